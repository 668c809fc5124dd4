"""Results and comparisons as lines for people, and as Markdown."""

from pympi_train.bench.suite.compare import (
    FASTER,
    SINGLE,
    SLOWER,
    UNDECIDED,
    VERDICTS,
)
from pympi_train.runs.speech import counted, in_columns, seconds_text


def result_lines(found):
    """Return the lines that show a result of ``bench all``.

    Parameters
    ----------
    found : dict
        As `measure_all` returns it on rank 0.

    Returns
    -------
    list of str
    """
    cpu = found["machine"]["cpu"]
    lines = [
        f"{cpu['model'] or 'unknown CPU'}; {counted(found['ranks'], 'rank')} on "
        f"{counted(found['nodes'], 'node')}, threads of each: {found['threads']}, "
        f"backend {found['backend']}; {found['machine']['mpi']}"
    ]
    if found["oversubscribed"]:
        lines.append("warning: more threads than cores, so that nothing is comparable")
    if not found["uniform"]:
        lines.append("warning: the nodes differ; the machine of rank 0 is described")
    for what, reason in found["energy"]["absent"].items():
        lines.append(f"no joules of the {what.upper()}: {reason}")
    for one in found["skipped"]:
        lines.append(f"{one['group']} is left out: {one['reason']}")
    rows = [("", "median", "rate", "joules", "")]
    for one in found["benchmarks"]:
        joules = "" if one["joules"] is None else f"{one['joules']:.3g}"
        beside = ""
        if "share" in one:
            beside = f"{100 * one['share']:.0f} % of {one['beside']}"
        rows.append(
            (one["name"], _short(one["median_s"]), _rate(one), joules, beside)
        )
    if all(row[3] == "" for row in rows[1:]):
        rows = [(*row[:3], row[4]) for row in rows]
    return lines + in_columns(rows)


def _short(seconds):
    return f"{1e6 * seconds:.3g} us" if seconds < 1e-3 else seconds_text(seconds)


def _rate(one):
    if "rows_per_s" in one:
        return f"{one['rows_per_s']:,.0f} rows/s"
    if "flops_per_s" in one:
        return f"{one['flops_per_s'] / 1e9:,.1f} GFLOP/s"
    if "bytes_per_s" in one:
        return f"{one['bytes_per_s'] / 1e9:,.2f} GB/s"
    return ""


def ratio_lines(found):
    """Return the lines that show what `compare_results` found.

    Returns
    -------
    list of str
    """
    lines = [
        f"differs: {what}: {before} -> {after}"
        for what, before, after in found["differences"]
    ]
    rows = [("", "before", "after", "ratio", "interval", "")]
    rows += [_cells(one) for one in _in_order(found)]
    lines += in_columns(rows)
    lines += [f"not compared: {name}: {why}" for name, why in found["left_out"]]
    return lines + [summary(found)]


def markdown_lines(found, before, after):
    """Return the comparison as Markdown, for a pull request.

    Parameters
    ----------
    found : dict
        As `compare_results` returns it.
    before, after : str
        Names of the two sides.

    Returns
    -------
    list of str
    """
    lines = [f"**{_plain(summary(found))}**", ""]
    if found["differences"]:
        lines += _table(
            ("machine", before, after), found["differences"], ("---",) * 3
        )
        lines.append("")
    head = ("benchmark", before, after, "ratio", "interval", "")
    bars = ("---", "---:", "---:", "---:", "---:", "---")
    lines += _table(head, map(_cells, _in_order(found)), bars)
    if found["left_out"]:
        names = ", ".join(_plain(name) for name, _ in found["left_out"])
        lines += ["", f"Not compared: {names}."]
    return lines


def summary(found):
    """Return one sentence on what became slower, and on what stays undecided."""
    by = f"{100 * found['by']:g} %"
    counts: dict[str, list] = {verdict: [] for verdict in VERDICTS}
    for one in found["benchmarks"]:
        counts[one["verdict"]].append(one["name"])
    n, slower = len(found["benchmarks"]), counts[SLOWER]
    text = f"{len(slower)} of {counted(n, 'benchmark')} became slower by more than {by}"
    if slower:
        text += ": " + ", ".join(slower)
    if counts[FASTER]:
        text += f"; faster: {len(counts[FASTER])}"
    if counts[UNDECIDED]:
        text += f"; undecided, as noise may hide {by}: {len(counts[UNDECIDED])}"
    if counts[SINGLE]:
        text += f"; not judged, as one value has no interval: {len(counts[SINGLE])}"
    return text


def _in_order(found):
    """Return the benchmarks with the slower ones first."""
    return sorted(
        found["benchmarks"],
        key=lambda one: (VERDICTS.index(one["verdict"]), -abs(one["ratio"] - 1)),
    )


def _cells(one):
    interval = one["interval"]
    shown = "" if interval is None else " to ".join(map(_bound, interval))
    times = _short(one["before_s"]), _short(one["after_s"])
    return (one["name"], *times, f"{one['ratio']:.3f}", shown, one["verdict"])


def _bound(ratio):
    return f"{ratio:.3f}" if ratio < 100 else "over 100"


def _table(head, rows, bars):
    lines = [head, bars, *rows]
    return ["| " + " | ".join(map(_plain, line)) + " |" for line in lines]


def _plain(text):
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
