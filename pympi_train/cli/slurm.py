"""``pympi-train slurm``: write and submit a batch script."""

from pympi_train.cli import add_common
from pympi_train.cli.train import add_config
from pympi_train.runs.speech import say, say_progress

REQUEST = (
    ("nodes", int, "N", "number of nodes"),
    ("ntasks_per_node", int, "M", "ranks on each node"),
    ("cpus_per_task", int, "C", "CPUs of each rank; default: its share of the node"),
    ("gpus_per_node", int, "G", "GPUs on each node"),
    ("time", str, "HH:MM:SS", "time limit; also D-HH:MM:SS"),
    ("partition", str, "P", "partition"),
    ("account", str, "A", "account that is charged"),
    ("array", str, "SPEC", "numbers of the tasks of an array, such as 0-5%%2"),
    ("signal_before", int, "S", "seconds before the limit to signal at (120)"),
)


def add_arguments(parser):
    """Add the arguments of ``slurm``."""
    add_config(parser)
    finish = parser.get_default("finish")
    parser.set_defaults(
        finish=lambda args: None if args.init else finish(args), needs_mpi=False
    )
    for name, kind, metavar, about in REQUEST:
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=kind, metavar=metavar, help=about)
    parser.add_argument(
        "--vary",
        metavar=("KEY", "VALUE"),
        nargs="+",
        action="append",
        default=[],
        help="an array in which each task has another VALUE of KEY: "
        "optimizer.learning_rate 0.1 0.01",
    )
    parser.add_argument(
        "--module", metavar="NAME", nargs="+", help="environment modules to load"
    )
    parser.add_argument(
        "--container", metavar="IMAGE", help="Apptainer image that has pympi-train"
    )
    parser.add_argument(
        "--mpi", metavar="PLUGIN", help="for srun --mpi; default: the one that fits MPI"
    )
    parser.add_argument("--output", metavar="FILE", help="the script (NAME.sbatch)")
    parser.add_argument("--submit", action="store_true", help="submit the script too")
    parser.add_argument(
        "--wait", action="store_true", help="submit, and wait until the job has ended"
    )
    parser.add_argument(
        "--init", action="store_true", help="write defaults of this site, and end"
    )
    add_common(parser, run)


def run(args):
    """Write the script, and submit it if that is asked for; return what was done."""
    from pympi_train.slurm import jobs, prepare, site

    if args.init:
        path = site.write_site()
        _tell(args, f"wrote    {path}: defaults of this site")
        return {"site": str(path)}
    path, kept = prepare.write_script(args)
    _tell(args, f"wrote    {path}" + (f"; the earlier one is {kept}" if kept else ""))
    told = {"script": path}
    if not (args.submit or args.wait):
        _tell(args, f"to start, and to resume: sbatch {path}")
        return told
    number, doubt = jobs.submit(path)
    told["job"] = number
    _tell(args, f"job      {number}")
    if doubt:
        _tell(args, f"warning  the job may not start: {doubt}")
    if args.wait:
        told["tasks"] = jobs.follow(number, lambda line: _tell(args, line))
        for task in told["tasks"]:
            _tell(
                args,
                f"job {task['id']} {task['state'].lower()}, exit status "
                f"{task['exit_status']}; its output: {task['output']}",
            )
        args.status = int(any(task["state"] != "COMPLETED" for task in told["tasks"]))
    return told


def _tell(args, line):
    """Print a line: with --json on stderr, as standard output has the object alone."""
    (say_progress if args.json else say)(line)
