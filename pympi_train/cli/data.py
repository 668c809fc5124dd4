"""``pympi-train data``: look at data files, check, convert, split and make them."""

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.runs.speech import counted, say

ABOUT_INFO = (
    "Describe data files: columns with types, missing values, means, the most frequent "
    "values, and sections [data] and [model] that seem to fit."
)
ABOUT_CHECK = (
    "Read every row, and report what is probably wrong: files that cannot be read, "
    "shards that differ from the checksums of their manifest, missing and infinite "
    "values, constant and duplicate columns. With findings, the exit status is 2."
)
ABOUT_CONVERT = (
    "Convert files of any format to a folder of shards, in parallel, with a manifest "
    "of types, statistics and checksums. The shards are the same on any number of "
    "ranks, and the folder appears when all is written."
)
ABOUT_SPLIT = (
    "Write training and validation rows to two folders, OUTPUT/train and "
    "OUTPUT/validation: the rows that [data] validation holds out with the same seed."
)
ABOUT_SYNTH = (
    "Make data of any size, in parallel. The bytes are the same on any number of ranks."
)
KINDS = ("regression", "classification", "sparse", "tokens", "images")
SHOWN_FINDINGS = 50


def add_arguments(parser):
    """Add a parser for each tool."""
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    _add_info(kinds)
    _add_check(kinds)
    _add_convert(kinds)
    _add_split(kinds)
    _add_synth(kinds)


def _add_info(kinds):
    about = "columns, statistics, and a configuration that may fit"
    parser = kinds.add_parser("info", help=about, description=ABOUT_INFO)
    _add_inputs(parser)
    add_common(parser, run_info)


def _add_check(kinds):
    about = "whether every row can be read and makes sense"
    parser = kinds.add_parser("check", help=about, description=ABOUT_CHECK)
    _add_inputs(parser)
    add_common(parser, run_check)


def _add_convert(kinds):
    about = "to shards of .npy or Parquet"
    parser = kinds.add_parser("convert", help=about, description=ABOUT_CONVERT)
    _add_inputs(parser)
    _add_output(parser)
    add_common(parser, run_convert)


def _add_split(kinds):
    about = "training and validation rows"
    parser = kinds.add_parser("split", help=about, description=ABOUT_SPLIT)
    _add_inputs(parser)
    _add_output(parser)
    parser.add_argument(
        "--validation", type=float, default=0.2, help="fraction of rows (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="chooses the rows (%(default)s)"
    )
    parser.add_argument(
        "--stratify", metavar="COLUMN", help="the same fraction of each value of COLUMN"
    )
    parser.add_argument(
        "--group", metavar="COLUMN", help="rows with one value of COLUMN stay together"
    )
    add_common(parser, run_split)


def _add_synth(kinds):
    about = "data of any size, for trials"
    parser = kinds.add_parser("synth", help=about, description=ABOUT_SYNTH)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("output", metavar="OUTPUT", help="a new folder")
    for name, default, meaning in (
        ("rows", 1000, "rows, images or tokens"),
        ("features", 20, "features of a row"),
        ("classes", 2, "classes; of images too"),
        ("nonzeros", 10, "entries of a sparse row"),
        ("side", 28, "pixels of a side of an image"),
        ("channels", 1, "channels of an image"),
        ("vocabulary", 1000, "distinct tokens"),
    ):
        parser.add_argument(
            f"--{name}",
            type=whole_number(),
            default=default,
            help=f"{meaning} (%(default)s)",
        )
    parser.add_argument(
        "--noise", type=float, default=0.1, help="noise of the target (%(default)s)"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, help="(%(default)s)")
    parser.add_argument(
        "--format",
        choices=("npy", "parquet"),
        default="npy",
        help="of the shards; sparse rows are .svm (%(default)s)",
    )
    parser.add_argument("--rows-per-shard", type=whole_number(), help="(about 64 MB)")
    add_common(parser, run_synth)


def _add_inputs(parser):
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="files, folders or patterns"
    )
    parser.add_argument(
        "--columns", metavar="NAME", action="extend", nargs="+", help="keep only these"
    )
    parser.add_argument(
        "--no-header",
        dest="header",
        action="store_const",
        const=False,
        help="the first line of a .csv is a row",
    )
    parser.add_argument(
        "--token-dtype",
        choices=("uint8", "uint16", "uint32", "uint64"),
        default="uint16",
        help="of the tokens of .bin files (%(default)s)",
    )


def _add_output(parser):
    parser.add_argument("output", metavar="OUTPUT", help="a new folder")
    parser.add_argument(
        "--format",
        choices=("parquet", "npy"),
        default="parquet",
        help="of the shards (%(default)s)",
    )
    parser.add_argument(
        "--target", metavar="NAME", help="for npy: a column with files of its own"
    )
    parser.add_argument(
        "--weights", metavar="NAME", help="for npy: a column with files of its own"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        help="for npy: of the features (their common dtype)",
    )
    parser.add_argument("--rows-per-shard", type=whole_number(), help="(about 64 MB)")


def _reading(args):
    """Return the arguments of every tool that reads files."""
    inputs = args.inputs[0] if len(args.inputs) == 1 else args.inputs
    return {
        "inputs": inputs,
        "columns": args.columns,
        "header": args.header,
        "token_dtype": args.token_dtype,
        "is_shown": not args.json,
    }


def _writing(args):
    """Return the arguments of the tools that write shards."""
    names = ("format", "target", "weights", "dtype", "output")
    found = {name: getattr(args, name) for name in names}
    return {**_reading(args), **found, "rows": args.rows_per_shard}


def run_info(args, comm):
    """Print a description of data files; return it."""
    from pympi_train.datatools.info import describe_files, info_lines

    found = describe_files(comm=comm, **_reading(args))
    if comm.rank == 0 and not args.json:
        for line in info_lines(found):
            say(line)
    return found


def run_check(args, comm):
    """Print what is wrong with data files; return the findings."""
    from pympi_train.datatools.check import check_files

    found = check_files(comm=comm, **_reading(args))
    args.status = 2 if found["findings"] else 0
    if comm.rank == 0 and not args.json:
        for kind, text in found["findings"][:SHOWN_FINDINGS]:
            say(f"{kind:10} {text}")
        n = len(found["findings"])
        if n > SHOWN_FINDINGS:
            say(f"... and {n - SHOWN_FINDINGS:,} more; --json has all")
        rows = "" if found["rows"] is None else f" in {counted(found['rows'], 'row')}"
        say(f"{counted(n, 'finding')}{rows}")
    return found


def run_convert(args, comm):
    """Write shards; return how many of how many rows."""
    from pympi_train.datatools.convert import convert_files

    found = convert_files(comm=comm, **_writing(args))
    return _written(args, comm, found)


def _written(args, comm, manifest):
    """Print what was written; return it without the statistics and checksums."""
    if comm.rank:
        return None
    n = len(manifest["shards"])
    found = {"rows": manifest["rows"], "shards": n, "output": args.output}
    if not args.json:
        say(f"{counted(found['rows'], 'row')} in {counted(n, 'shard')}: {args.output}")
    return found


def run_split(args, comm):
    """Write training and validation rows; return their numbers."""
    from pympi_train.datatools.split_files import split_files

    found = split_files(
        comm=comm,
        fraction=args.validation,
        seed=args.seed,
        stratify=args.stratify,
        group=args.group,
        **_writing(args),
    )
    if comm.rank == 0 and not args.json:
        parts = (f"{counted(n, 'row')} in {args.output}/{p}" for p, n in found.items())
        say("; ".join(parts))
    return found


def run_synth(args, comm):
    """Write made data; return how much."""
    from pympi_train.datatools.synth import make_data

    names = ("kind", "output", "rows", "features", "classes", "nonzeros", "side")
    names += ("channels", "vocabulary", "noise", "seed", "format")
    found = make_data(
        comm=comm,
        rows_per_shard=args.rows_per_shard,
        is_shown=not args.json,
        **{name: getattr(args, name) for name in names},
    )
    return _written(args, comm, found)
