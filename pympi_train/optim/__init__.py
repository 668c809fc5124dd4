"""Optimizers on flat blocks, and learning-rate schedules. No MPI here."""
