"""Checkpoints: the state of a training in files, written and read by any ranks."""
