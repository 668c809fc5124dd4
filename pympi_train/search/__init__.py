"""Search over the values of configuration keys: trials, folds, methods and results."""
