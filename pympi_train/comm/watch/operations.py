"""The calls of communicators that the journal records."""

from pympi_train.comm.watch.journal import Operations
from pympi_train.trace.events import FOR_REQUESTS, PAIRWISE

# All ranks of the communicator call these, in the same order.
COLLECTIVES = (
    "Allreduce Bcast Allgather Allgatherv Alltoall Alltoallv Alltoallw Reduce "
    "Reduce_scatter Reduce_scatter_block Gather Gatherv Scatter Scatterv Scan Exscan "
    "Barrier allreduce bcast allgather alltoall reduce gather scatter scan exscan "
    "barrier"
).split()
# Collectives that return a request.
STARTED = (
    "Iallreduce Ibcast Iallgather Iallgatherv Ialltoall Ialltoallv Ireduce "
    "Ireduce_scatter Ireduce_scatter_block Igather Igatherv Iscatter Iscatterv Ibarrier"
).split()
SPLITS = ["Dup", "Split", "Split_type"]  # their results are guarded too

# PAIRWISE has no timeout: a server waits there for the next request.
OPERATIONS = ("", *COLLECTIVES, *STARTED, *SPLITS, *FOR_REQUESTS, *PAIRWISE)
WATCHED = Operations(
    OPERATIONS,
    n_collectives=OPERATIONS.index("Wait"),
    n_timed=OPERATIONS.index(PAIRWISE[0]),
)
