"""What people see of a pool."""
