"""What a job is after an earlier start of the pool."""

import pytest

from pympi_train.errors import ConfigError
from pympi_train.pool.entry import PoolJob
from pympi_train.pool.history import FINISHED, WAITING, JobState
from pympi_train.pool.room import Needs


def followed(digest, resume):
    before = JobState("a", status=FINISHED, result={"steps": 3}, digest=digest)
    entry = PoolJob("a", Needs(1, 1), "", "a", digest="new")
    entry.follow(before, resume)
    return entry.status, entry.result


@pytest.mark.parametrize("digest, resume", [("new", None), (None, None), ("old", True)])
def test_a_finished_job_keeps_its_result(digest, resume):
    assert followed(digest, resume) == (FINISHED, {"steps": 3})


def test_the_result_of_another_configuration_is_refused():
    with pytest.raises(ConfigError, match="job a has finished .* another conf"):
        followed("old", None)
    assert followed("old", False) == (WAITING, None)
