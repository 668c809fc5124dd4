"""Tables: rows of columns of any type, read in pieces, to look at and to clean."""
