"""What the measurements of a study say: efficiency, where it is lost, and why."""
