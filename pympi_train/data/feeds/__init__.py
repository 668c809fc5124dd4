"""Feeds: batches of a source for training steps."""
