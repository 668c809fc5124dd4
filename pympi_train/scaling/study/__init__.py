"""Measures the training step of a configuration at several numbers of ranks."""
