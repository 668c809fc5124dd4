"""What people see of a study: a page, a table on the terminal, words."""
