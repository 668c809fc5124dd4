"""Tools for checkpoints: list, show, verify, compare, export."""
