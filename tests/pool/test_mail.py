"""Messages between single ranks of a pool."""

import time

import pytest

from pympi_train.pool.mail import REPORTS, Mail


@pytest.mark.mpi(min_size=2)
def test_messages_that_have_come_are_received_at_the_first_look(comm, mpi_tmp_path):
    """Rank 0 looks once a step if no thread does it: it must not take two steps."""
    mail, mark = Mail(comm, REPORTS), mpi_tmp_path / "sent"
    comm.Barrier()
    if comm.rank == 1:
        mail.report(kind="running")
        mail.report(kind="end")
        mail.finish()
        mark.touch()
    elif comm.rank == 0:
        while not mark.exists():  # without a call of MPI, which would let it in
            time.sleep(0.001)
        assert mail.receive() == {"kind": "running", "from": 1}
        assert mail.receive() == {"kind": "end", "from": 1}
        assert mail.receive() is None
    comm.Barrier()
