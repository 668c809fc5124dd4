"""Sources of rows: whoever trains, measures or predicts asks them for batches."""
