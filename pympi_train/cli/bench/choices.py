"""Choices that several benchmarks offer."""

BACKENDS = ("auto", "numpy", "numba", "cuda")
OPTIMIZERS = ("gd", "sgd", "adam", "adamw")
