"""The summary of a trace in words and tables."""

from pympi_train.runs.speech import counted
from pympi_train.trace.events import PARTS
from pympi_train.tracetools.straggler import LEAST_SHARE

SHOWN_RANKS = 16
SHOWN_PATH = 6
SHORT = {"collective": "exchange", "evaluation": "evaluate", "checkpoint": "checkpt"}
LEAST = 0.0005  # a kind of which no rank has more has no column
KINDS_OF_WORK = {
    "input": "reading its rows",
    "forward": "forward",
    "backward": "backward",
    "pack": "packing messages",
    "update": "the update",
    "checkpoint": "checkpoints",
    "evaluation": "evaluation",
    "other": "work outside of any span",
}
LATE = "an exchange that it leaves later than they do"


def trace_lines(found):
    """Yield the lines that tell a result of `summarise_trace`."""
    yield (
        f"{counted(found['ranks'], 'rank')} on {counted(found['nodes'], 'node')}, "
        f"{counted(found['steps_in_all'], 'step')} in {found['seconds']:.3f} s"
    )
    if found["steps"] < found["steps_in_all"]:
        yield (
            f"{found['steps']:,} of them were recorded, to take 1 % of the time; each "
            "counts for those before it"
        )
    cut = found["overwritten"]
    if cut:
        yield (
            f"older spans of {counted(len(cut), 'rank')} were overwritten: this is "
            f"the end of the training"
        )
    yield ""
    if found["ranks"] > 1:
        yield from _straggler_lines(found["straggler"], found["waits"])
    yield from _path_lines(found["critical_path"])
    if found["buckets"] is not None:
        b = found["buckets"]
        share = b["share_of_steps"]
        steps = "a step" if share > 0.99 else f"in each of {share:.0%} of the steps"
        yield (
            f"buckets        {b['per_step']} {steps}, in flight "
            f"{1e3 * b['median_s']:.3g} ms (median), {b['hidden_share']:.0%} of it "
            "while backward computes"
        )
    yield ""
    yield from _table("node", found["phases_by_node"])
    rows = found["phases_by_rank"]
    yield ""
    yield from _table("rank", rows[:SHOWN_RANKS])
    if len(rows) > SHOWN_RANKS:
        yield f"... and {len(rows) - SHOWN_RANKS:,} more ranks; --json has all"


def _straggler_lines(straggler, waits):
    if straggler is None and (waits is None or waits["largest_share"] < LEAST_SHARE):
        yield "straggler      none: the ranks wait little for any one of them"
        return
    if straggler is None:
        yield (
            f"straggler      none: the ranks wait {waits['share']:.0%} of their time, "
            "for none much longer than for others"
        )
        return
    s = straggler
    when = f"in {s['share_of_steps']:.0%} of the steps"
    if s["cause"] in PARTS:
        when = "between steps"
    yield (
        f"straggler      rank {s['rank']} on node {s['node']}: the others wait for it "
        f"{when},"
    )
    cause = KINDS_OF_WORK.get(s["cause"], LATE)
    yield (
        f"               {s['wait_share']:.0%} of their time; the cause is "
        f"{cause} ({s['excess_share']:.0%} of its extra time)"
    )


def _path_lines(path):
    if not path:
        yield "critical path  none: no call was found that all ranks make"
        return
    first = "critical path"
    for entry in path[:SHOWN_PATH]:
        place = f"rank {entry['rank']} " if "rank" in entry else ""
        yield f"{first:14} {entry['share']:4.0%}  {place}{entry['kind']}"
        first = ""
    rest = sum(entry["share"] for entry in path[SHOWN_PATH:])
    if rest:
        yield f"{'':14} {rest:4.0%}  {len(path) - SHOWN_PATH} smaller parts"


def _table(what, rows):
    """Yield a table of shares in percent."""
    kinds = [
        k
        for k in (*KINDS_OF_WORK, "collective", "wait")
        if any(row[k] >= LEAST for row in rows)
    ]
    names = [SHORT.get(kind, kind) for kind in kinds]
    yield f"{what:>6} " + " ".join(f"{name:>9}" for name in names) + "   % of its time"
    for row in rows:
        cells = " ".join(f"{100 * row[kind]:9.1f}" for kind in kinds)
        yield f"{row[what]:6} " + cells
