"""A recorded step, replayed on many simulated ranks over a modelled network."""
