"""``pympi-train trace``: what the trace of a training says."""

from pympi_train.cli import add_common

ABOUT_SUMMARY = (
    "Read the trace of a training: the critical path, the rank that the others wait "
    "for and why, and the share of each phase, by rank and node."
)


def add_arguments(parser):
    """Add a parser for each tool."""
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    summary = kinds.add_parser(
        "summary", help="critical path, straggler, phases", description=ABOUT_SUMMARY
    )
    summary.add_argument(
        "path", metavar="RUN_DIR", help="[output] directory, or a trace.json"
    )
    add_common(summary, run_summary)
    summary.set_defaults(needs_mpi=False)


def run_summary(args):
    """Print what a trace says; return it."""
    from pympi_train.paths import expanded
    from pympi_train.runs.speech import say
    from pympi_train.tracetools.report import trace_lines
    from pympi_train.tracetools.summary import summarise_trace

    found = summarise_trace(expanded(args.path))
    if not args.json:
        for line in trace_lines(found):
            say(line)
    return found
