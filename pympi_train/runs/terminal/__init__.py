"""What rank 0 prints of a training."""
