"""Batches of a source, as a step takes them."""
