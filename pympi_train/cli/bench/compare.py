"""``bench compare``: two results of ``bench all``."""

import argparse
import math

from pympi_train.cli import add_common

ABOUT = (
    "Compare two results of bench all: for each benchmark that both have, the ratio of "
    "the seconds and its interval. All intervals hold together with 95 %. Exit status "
    "1 if the interval of some ratio lies above 1 + SHARE as a whole. BEFORE and AFTER "
    "are files, or folders of the files of several launches (five or more of each), "
    "which also shows how much launches differ."
)


def add_arguments(kinds):
    """Add the parser of ``bench compare``."""
    parser = kinds.add_parser(
        "compare", help="two results of bench all", description=ABOUT
    )
    parser.add_argument("before", metavar="BEFORE", help="file or folder")
    parser.add_argument("after", metavar="AFTER", help="file or folder")
    parser.add_argument(
        "--by",
        type=_share,
        default=0.05,
        metavar="SHARE",
        help="allowed slow-down (%(default)s)",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print tables for a pull request"
    )
    add_common(parser, run)
    parser.set_defaults(needs_mpi=False)


def _share(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a share from 0, got {text!r}")
    return value


def run(args):
    """Compare two results; return the comparison."""
    from pympi_train.bench.suite import compare, text
    from pympi_train.runs.speech import say

    sides = compare.read_side(args.before), compare.read_side(args.after)
    found = compare.compare_results(*sides, args.by)
    if args.markdown:
        lines = text.markdown_lines(found, args.before, args.after)
    else:
        lines = text.comparison_lines(found)
    if args.markdown or not args.json:
        for line in lines:
            say(line)
    slower = any(one["verdict"] == compare.SLOWER for one in found["benchmarks"])
    args.status = int(slower)
    return found
