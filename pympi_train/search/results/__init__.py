"""What a search leaves: scores, the log, tables and pictures."""
