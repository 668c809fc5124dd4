"""Many trainings in one pass over the rows: lanes of learning rate, l2 and fold."""
