"""The options of ``pympi-train scaling``."""

from pympi_train.cli.arguments import add_launching, whole_number, whole_numbers
from pympi_train.cli.slurm import REQUEST

WITH_SLURM = "(with --launcher slurm)"
OF_JOBS = ("ntasks_per_node", "gpus_per_node", "time", "partition", "account")


def add_study_options(parser):
    """Add the options that say what is measured, and by what."""
    parser.add_argument(
        "--ranks",
        metavar="N,...",
        type=whole_numbers(),
        default=[1, 2],
        help="numbers of ranks, such as 1,2,4,8 (1,2)",
    )
    parser.add_argument(
        "--mode",
        choices=("strong", "weak", "both"),
        default="strong",
        help="strong: the global batch of the configuration at every number of ranks; "
        "weak: it grows with the ranks (%(default)s)",
    )
    parser.add_argument(
        "--strategies",
        metavar="all|NAME,...",
        help="values of [parallel] strategy to compare (as configured)",
    )
    parser.add_argument(
        "--repeats",
        type=whole_number(),
        default=5,
        help="launches of each case (%(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=whole_number(3),
        default=100,
        help="timed steps of a launch (%(default)s)",
    )
    add_launching(
        parser, "|slurm", "; slurm submits a job for each number of ranks, and waits"
    )
    parser.add_argument(
        "--timeout",
        type=whole_number(),
        default=3600,
        metavar="SECONDS",
        help="end of a launch that takes longer (%(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="OUT.json",
        help="file of the study; OUT.csv and OUT.html are written beside it. If it "
        "exists, what it has is not measured again (scaling.json)",
        default="scaling.json",
    )


def add_job_options(parser):
    """Add those options of ``slurm`` that jobs of a study have."""
    for name, kind, metavar, about in REQUEST:
        if name in OF_JOBS:
            option, help = "--" + name.replace("_", "-"), f"{about} {WITH_SLURM}"
            parser.add_argument(option, type=kind, metavar=metavar, help=help)
    help = f"environment modules to load {WITH_SLURM}"
    parser.add_argument("--module", metavar="NAME", nargs="+", help=help)
    help = f"for srun --mpi; default: the one that fits MPI {WITH_SLURM}"
    parser.add_argument("--mpi", metavar="PLUGIN", help=help)


def refuse_job_options(args):
    """Raise ConfigError if an option of jobs is given without ``--launcher slurm``."""
    from pympi_train.errors import ConfigError
    from pympi_train.slurm.request import option_of

    for name in (*OF_JOBS, "module", "mpi"):
        if getattr(args, name) is not None:
            raise ConfigError(f"{option_of(name)} is for --launcher slurm")
