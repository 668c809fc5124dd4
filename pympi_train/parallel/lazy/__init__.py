"""Steps on sparse rows by the columns that occur in a batch."""
