"""What the trace of a training says."""
