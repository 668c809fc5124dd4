"""A run that is interrupted and goes on: checkpoints, signals, resuming."""
