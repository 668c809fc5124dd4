"""Sources of rows, which supply batches to training, evaluation and prediction."""
