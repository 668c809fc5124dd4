"""What an earlier training has left: read to predict, to export, and to start from."""
