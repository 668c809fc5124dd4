"""A planted slow rank is named, with its cause; files are read as they were written."""

import json

import numpy as np
import pytest

from pympi_train.comm.watch.recorder import GOLDEN, WORD
from pympi_train.errors import DataError
from pympi_train.trace.chrome import END_OF_FILE, head_text, lane_text
from pympi_train.trace.events import KINDS
from pympi_train.trace.ring import SPAN
from pympi_train.tracetools.read import read_tracks
from pympi_train.tracetools.report import trace_lines
from pympi_train.tracetools.summary import summarise_trace

STEP_S = {"input": 1e-3, "forward": 2e-3, "backward": 3e-3}
TRANSFER_S, UPDATE_S = 5e-4, 1e-3
EVALUATION_S, CHECKPOINT_S = 2e-2, 1e-2


EVENT = (
    '{"ph": "X", "cat": "input", "name": "input", "pid": 0, "tid": 0, "ts": %s, '
    '"dur": %s, "args": {"step": 1}}'
)
WRONG = [("NaN", "1"), ("1e999", "1"), ("1", "-1"), ("1", "1e300"), ("null", "1")]


def planted(
    n_ranks,
    n_steps,
    slow=None,
    kind="input",
    extra_s=4e-3,
    every=1,
    epoch=None,
    late_s=0.0,
):
    """Spans of each rank: the others wait for ``slow`` in the Allreduce of each step.

    The slow rank needs ``extra_s`` more for ``kind`` in two of three steps, and leaves
    each Allreduce ``late_s`` after the others. Of the
    steps one of ``every`` is recorded, as `Recorder` does, and all that is between
    them: after each ``epoch`` steps rank 0 saves, and all ranks evaluate.
    """
    rows, now_s = [[] for _ in range(n_ranks)], np.zeros(n_ranks)

    def add(rank, name, step, seconds):
        kind = name if name in KINDS else "collective"
        start_s = now_s[rank]
        now_s[rank] += seconds
        row = (KINDS.index(kind), name, step, start_s, now_s[rank])
        is_part = name in ("evaluation", "checkpoint", "Bcast")
        if is_part or step * GOLDEN & WORD < (WORD + 1) // every:
            rows[rank].append(row)

    for step in range(1, n_steps + 1):
        if epoch and step % epoch == 0:
            add(0, "checkpoint", step, CHECKPOINT_S)
            exit_s = now_s.max() + TRANSFER_S
            for rank in range(n_ranks):
                add(rank, "Bcast", step, exit_s - now_s[rank])
                add(rank, "evaluation", step, EVALUATION_S)
                add(rank, "Bcast", step, TRANSFER_S)
        for rank in range(n_ranks):
            for name, seconds in STEP_S.items():
                is_late = rank == slow and name == kind and step % 3
                add(rank, name, step, seconds + (extra_s if is_late else 0.0))
        exit_s = now_s.max() + TRANSFER_S
        for rank in range(n_ranks):
            own_s = exit_s + (late_s if rank == slow else 0.0)
            add(rank, "Allreduce", step, own_s - now_s[rank])
            add(rank, "update", step, UPDATE_S)
    return [np.array(found, SPAN) for found in rows]


def write(path, ranks, per_node=2, last_step=0, **how):
    texts = [
        lane_text(spans, rank, rank // per_node, f'host "{rank // per_node}"', **how)
        for rank, spans in enumerate(ranks)
    ]
    about = {"ranks": len(ranks), "every": 1, "last_step": last_step}
    path.write_text(head_text(about) + ",\n".join(texts) + END_OF_FILE)
    return path


def summary(tmp_path, ranks, **how):
    return summarise_trace(write(tmp_path / "trace.json", ranks, **how))


@pytest.mark.parametrize("kind", STEP_S)
@pytest.mark.parametrize("every", [1, 4])
def test_a_planted_slow_rank_is_named_with_its_cause(tmp_path, kind, every):
    found = summary(tmp_path, planted(4, 120, 2, kind, every=every))
    straggler = found["straggler"]
    assert (straggler["rank"], straggler["node"]) == (2, 1)
    assert straggler["cause"] == kind
    assert straggler["share_of_steps"] == pytest.approx(2 / 3, abs=0.1)
    assert straggler["excess_share"] == pytest.approx(1)
    usual_s = sum(STEP_S.values()) + TRANSFER_S + UPDATE_S
    share = straggler["share_of_steps"] * 4e-3
    assert straggler["wait_share"] == pytest.approx(share / (usual_s + share), rel=0.1)
    first = found["critical_path"][0]
    assert sum(e["share"] for e in found["critical_path"]) == pytest.approx(1)
    assert (first["rank"], first["kind"]) == (2, kind)
    text = "\n".join(trace_lines(found))
    assert "rank 2 on node 1" in text
    assert ("of them were recorded" in text) == (every > 1)


@pytest.mark.parametrize("every", [1, 8])
def test_a_rank_that_saves_is_named_though_another_is_late_in_most_steps(
    tmp_path, every
):
    """Rank 0 saves in every tenth step; rank 2 is late by little in two of three."""
    how = {"slow": 2, "extra_s": 0.2e-3, "epoch": 10, "every": every}
    found = summary(tmp_path, planted(3, 400, **how))
    straggler = found["straggler"]
    assert (straggler["rank"], straggler["cause"]) == (0, "checkpoint")
    n_steps = found["steps_in_all"]
    share = CHECKPOINT_S * (n_steps // 10) / found["seconds"]
    assert straggler["wait_share"] == pytest.approx(share, rel=0.1)
    text = "\n".join(trace_lines(found))
    assert "rank 0 on node 0: the others wait for it between steps,\n" in text


def test_waits_for_each_rank_in_turn_are_no_little_waits(tmp_path):
    """Without a straggler, the summary says how much the ranks wait for one another."""
    ranks = [[] for _ in range(3)]
    for step in range(1, 91):
        for rank in range(3):
            start_s, late_s = 10e-3 * step, 4e-3 * (step % 3 == rank)
            times_s = np.cumsum([start_s, 1e-3, 3e-3 + late_s])
            exit_s = start_s + 9e-3
            for name, a, b in (
                ("forward", times_s[0], times_s[1]),
                ("backward", times_s[1], times_s[2]),
                ("Allreduce", times_s[2], exit_s),
                ("update", exit_s, start_s + 10e-3),
            ):
                kind = KINDS.index(name if name in KINDS else "collective")
                ranks[rank].append((kind, name, step, a, b))
    found = summary(tmp_path, [np.array(rows, SPAN) for rows in ranks])
    assert found["straggler"] is None
    # In each step, two of three ranks wait 4 of 10 ms.
    assert found["waits"]["share"] == pytest.approx(2 / 3 * 0.4, rel=0.01)
    assert found["waits"]["largest_share"] == pytest.approx(0.4 / 3, rel=0.02)
    text = "\n".join(trace_lines(found))
    assert "none: the ranks wait 27% of their time, for none much longer" in text


@pytest.mark.parametrize("epoch", [4, 10])
@pytest.mark.parametrize("every", [2, 8])
def test_sampled_steps_stand_for_all(tmp_path, every, epoch):
    """Evaluations and checkpoints are always recorded, and take no more for that."""
    how = {"slow": 1, "kind": "backward", "epoch": epoch}
    whole = summary(tmp_path, planted(3, 1000, **how))
    found = summary(tmp_path, planted(3, 1000, **how, every=every), last_step=1010)
    assert whole["steps"] == whole["steps_in_all"] == 999
    assert found["steps"] == pytest.approx(1000 / every, rel=0.05)
    recorded = [s for s in range(1, 1001) if s * GOLDEN & WORD < (WORD + 1) // every]
    assert found["steps_in_all"] in [1010 - first + 1 for first in recorded[:2]]
    assert found["seconds"] == pytest.approx(whole["seconds"], rel=0.05)
    for what in ("phases_by_rank", "phases_by_node"):
        for own, true in zip(found[what], whole[what]):
            for kind in (*KINDS, "other"):
                assert own[kind] == pytest.approx(true[kind], abs=0.01), kind
    for name in ("share_of_steps", "wait_share", "excess_share"):
        assert found["straggler"][name] == pytest.approx(
            whole["straggler"][name], abs=0.05
        )
    for kind in (*KINDS, "exchange"):
        own, true = (
            sum(e["share"] for e in one["critical_path"] if e["kind"] == kind)
            for one in (found, whole)
        )
        assert own == pytest.approx(true, abs=0.02), kind


def test_balanced_ranks_have_no_straggler(tmp_path):
    found = summary(tmp_path, planted(3, 20))
    assert found["straggler"] is None
    assert found["steps"] == 19 and (found["ranks"], found["nodes"]) == (3, 2)
    assert found["phases_by_rank"][1]["forward"] == pytest.approx(2 / 7.5)
    assert found["phases_by_node"][1]["ranks"] == 1
    assert any("none" in line for line in trace_lines(found))


def test_without_meetings_there_are_phases_alone(tmp_path):
    ranks = [s[s["name"] != "Allreduce"] for s in planted(2, 3)]
    found = summary(tmp_path, [*ranks, np.empty(0, SPAN)])
    assert found["straggler"] is None and found["critical_path"] == []
    assert found["phases_by_rank"][2]["other"] == 0
    list(trace_lines(found))


@pytest.mark.parametrize("every", [1, 4])
def test_waits_for_requests_are_exchange_on_the_critical_path(tmp_path, every):
    """Compressed sums spend their time there: the path leaves nothing out."""
    ranks = planted(3, 120, every=every)
    for spans in ranks:
        waits = spans["name"] == "backward"
        spans["name"][waits], spans["kind"][waits] = "Wait", KINDS.index("wait")
    path = summary(tmp_path, ranks)["critical_path"]
    shares = {entry["kind"]: entry["share"] for entry in path}
    whole_s = sum(STEP_S.values()) + TRANSFER_S + UPDATE_S
    exchange_s = TRANSFER_S + STEP_S["backward"]
    assert shares["exchange"] == pytest.approx(exchange_s / whole_s, rel=0.05)


@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize("every", [1, 4])
def test_work_before_the_first_meeting_is_on_the_path(tmp_path, n_ranks, every):
    """As that of workers with a server, who meet at the end of an epoch."""
    ranks = planted(n_ranks, 120, every=every)
    last = max(spans["step"].max() for spans in ranks)
    for number, spans in enumerate(ranks):
        is_met = spans["name"] == "Allreduce"
        waits = is_met & (spans["step"] < last)
        spans["name"][waits], spans["kind"][waits] = "Wait", KINDS.index("wait")
        ranks[number] = spans[number:]  # as if older ones were overwritten
    path = summary(tmp_path, ranks)["critical_path"]
    shares = {entry["kind"]: entry["share"] for entry in path}
    whole_s = sum(STEP_S.values()) + TRANSFER_S + UPDATE_S
    want_s = {**STEP_S, "update": UPDATE_S, "exchange": TRANSFER_S}
    for kind, seconds in want_s.items():
        assert shares[kind] == pytest.approx(seconds / whole_s, rel=0.05), kind


def test_a_rank_that_leaves_the_exchange_late_has_no_slow_work(tmp_path):
    """Its core is another process's meanwhile; small extra work is not the cause."""
    ranks = planted(3, 60, 1, "input", 1e-4, late_s=3e-3)
    found = summary(tmp_path, ranks)
    assert found["straggler"]["rank"] == 1
    assert found["straggler"]["cause"] == "exchange"
    assert found["straggler"]["excess_share"] > 0.9
    assert "leaves later than they do" in "\n".join(trace_lines(found))


def test_calls_of_some_ranks_are_not_matched(tmp_path):
    """Rank 0 makes a call more, after the first of each step."""
    ranks = planted(2, 9, 1, "forward")
    more = ranks[0][ranks[0]["name"] == "Allreduce"].copy()
    more["name"] = "Bcast"
    more["start_s"] = more["end_s"]
    ranks[0] = np.sort(np.concatenate([ranks[0], more]), order="start_s")
    assert summary(tmp_path, ranks)["straggler"]["rank"] == 1


def test_a_file_is_json_of_the_format_and_read_as_written(tmp_path):
    ranks = planted(3, 5, 1)
    path = write(tmp_path / "trace.json", ranks, is_cut=True)
    events = json.loads(path.read_text())["traceEvents"]
    assert {e["pid"] for e in events} == {0, 1}
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert 'node 1 (host "1")' in names
    steps = [e for e in events if e.get("cat") == "step"]
    assert len(steps) == 15
    for step in steps:  # the phases of a step lie in it, to the nanosecond
        inside = [
            e
            for e in events
            if e["ph"] == "X" and e["tid"] == step["tid"] and e["args"] == step["args"]
        ]
        assert len(inside) == 6 and inside[0] is step
        end = max(round(1e3 * (e["ts"] + e["dur"])) for e in inside)
        assert end == round(1e3 * (step["ts"] + step["dur"]))
    about, tracks = read_tracks(path)
    assert about["ranks"] == 3 and [track.rank for track in tracks] == [0, 1, 2]
    for track, spans in zip(tracks, ranks):
        assert track.is_cut and track.kinds.tolist() == spans["kind"].tolist()
        assert track.steps.tolist() == spans["step"].tolist()
        assert track.starts_s == pytest.approx(spans["start_s"], abs=1e-9)
        assert track.ends_s == pytest.approx(spans["end_s"], abs=2e-9)
    assert KINDS[tracks[0].kinds[0]] == "input"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected a trace that pympi-train wrote"),
        ('{"traceEvents": []}', "expected a trace that pympi-train wrote"),
        (head_text({}), "the end is missing"),
        (head_text({}) + '{"ph": "X", "na', "the end is missing"),
        (head_text({}) + '{"ph": "X"}\n]}\n', "line 2: expected an event"),
        (head_text({}) + "[1]\n]}\n", "line 2: expected an event"),
        (head_text({"every": "9"}) + "]}\n", "expected a trace that pympi-train"),
        (head_text({"every": float("nan")}) + "]}\n", "expected a trace that"),
        (head_text({}) + "[" * 9000 + "\n]}\n", "line 2: expected an event"),
        *((head_text({}) + EVENT % times + "\n]}\n", "line 2") for times in WRONG),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    path = tmp_path / "trace.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_tracks(path)


def test_one_rank_is_its_own_critical_path(tmp_path):
    spans = [planted(1, 20)[0]]
    spans[0] = spans[0][spans[0]["kind"] != KINDS.index("collective")]
    found = summary(tmp_path, spans)
    path = {one["kind"]: one["share"] for one in found["critical_path"]}
    assert list(path)[0] == "backward" and sum(path.values()) == pytest.approx(1)
    assert all(one["rank"] == 0 for one in found["critical_path"])
    text = "\n".join(trace_lines(found))
    assert "rank 0 backward" in text and "straggler" not in text
