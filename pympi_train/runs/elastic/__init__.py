"""Jobs whose ranks change while they train."""
