"""The order "window": rows are permuted within windows, so that reads are long."""
