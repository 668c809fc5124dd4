"""A model of the training step: its time on more ranks, by strategy and compression."""
