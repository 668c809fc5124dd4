"""Job files: the trainings that a pool is to do."""
