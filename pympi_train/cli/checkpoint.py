"""``pympi-train checkpoint``: list, show, verify, compare and export checkpoints."""

from pympi_train.cli import add_common
from pympi_train.runs.speech import counted, one_line, say

ABOUT_LIST = (
    "List the checkpoints of a run: step, epoch, time, size and metric, which is the "
    "best and the newest, and whether all files are there with their sizes."
)
ABOUT_SHOW = "Show what a checkpoint holds: progress, configuration, software, tensors."
ABOUT_VERIFY = (
    "Read every byte, in parallel, and compare it with the hashes of the manifests. If "
    "a file is missing or damaged, the exit status is 2."
)
ABOUT_DIFF = (
    "Compare two checkpoints: which values and tensors differ, with the largest "
    "absolute and relative difference. Seconds are not compared. The exit status is 0 "
    "either way."
)
ABOUT_EXPORT = (
    "Write the parameters to a file: .safetensors, .npz, or .onnx, which holds the "
    "whole model (extra onnx)."
)
SHOWN_FINDINGS = 50


def add_arguments(parser):
    """Add a parser for each tool."""
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    _add(kinds, "list", "step, time, size and metric of each", ABOUT_LIST, run_list)
    _add(kinds, "show", "tensors, progress, configuration", ABOUT_SHOW, run_show)
    _add(kinds, "verify", "the hashes of all files", ABOUT_VERIFY, run_verify)
    _add(kinds, "diff", "what differs between two", ABOUT_DIFF, run_diff)
    _add(kinds, "export", "parameters for other programs", ABOUT_EXPORT, run_export)


PATHS = {
    "list": {"path": ("RUN_OR_FOLDER", "a run directory, or a folder of checkpoints")},
    "show": {"path": ("CHECKPOINT", "its folder")},
    "verify": {
        "paths": ("CHECKPOINT_OR_FOLDER", "checkpoints, run directories or folders")
    },
    "diff": {"a": ("A", "a checkpoint"), "b": ("B", "another one")},
    "export": {
        "source": ("CHECKPOINT_OR_RUN", "a checkpoint, or a run that ended"),
        "output": ("OUTPUT", "a file: .safetensors, .npz or .onnx"),
    },
}


def _add(kinds, name, about, description, run):
    parser = kinds.add_parser(name, help=about, description=description)
    for path, (metavar, meaning) in PATHS[name].items():
        nargs = "+" if path == "paths" else None
        parser.add_argument(path, metavar=metavar, help=meaning, nargs=nargs)
    add_common(parser, run)


def _print(args, comm, lines):
    """Print lines on rank 0, unless the result is printed as JSON."""
    if comm.rank == 0 and not args.json:
        for line in lines():
            say(one_line(line))


def run_list(args, comm):
    """Print the checkpoints of a run; return them."""
    from pympi_train.checkpointtools.listing import list_checkpoints, listing_lines

    found = list_checkpoints(args.path, comm)
    _print(args, comm, lambda: listing_lines(found))
    return found


def run_show(args, comm):
    """Print what a checkpoint holds; return it."""
    from pympi_train.checkpointtools.contents import (
        contents_lines,
        describe_checkpoint,
    )

    found = describe_checkpoint(args.path, comm)
    _print(args, comm, lambda: contents_lines(found))
    return found


def run_verify(args, comm):
    """Compare files with their hashes; return the findings."""
    from pympi_train.checkpointtools.found import size_text
    from pympi_train.checkpointtools.verify import verify_checkpoints

    found = verify_checkpoints(args.paths, comm)

    def lines():
        wrong = found["findings"]
        yield from wrong[:SHOWN_FINDINGS]
        if len(wrong) > SHOWN_FINDINGS:
            yield f"... and {len(wrong) - SHOWN_FINDINGS:,} more; --json has all"
        files = f"{counted(found['files'], 'file')}, {size_text(found['bytes'])}"
        told = f"{counted(found['checkpoints'], 'checkpoint')}, {files}"
        yield f"{told}: {counted(len(wrong), 'finding')}"

    _print(args, comm, lines)
    args.status = 2 if comm.bcast(bool(found["findings"]), root=0) else 0
    return found


def run_diff(args, comm):
    """Print how two checkpoints differ; return the differences."""
    from pympi_train.checkpointtools.compare import (
        compare_checkpoints,
        comparison_lines,
    )

    found = compare_checkpoints(args.a, args.b, comm)
    _print(args, comm, lambda: comparison_lines(found))
    return found


def run_export(args, comm):
    """Write the parameters to a file; return what was written."""
    from pympi_train.checkpointtools.export import export_weights

    found = export_weights(args.source, args.output, comm)

    def lines():
        n = counted(found["parameters"], "parameter")
        yield f"{counted(found['tensors'], 'tensor')}, {n}: {found['output']}"
        yield from found["remarks"]

    _print(args, comm, lines)
    return found
