"""Many trainings that share the ranks of one MPI job."""
