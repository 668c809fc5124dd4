"""``pympi-train launch``: start the ranks of a training, and start them again."""

import argparse
import os

from pympi_train.cli.arguments import require_one_process, whole_number


def add_arguments(parser):
    """Add the arguments of ``launch``."""
    parser.add_argument(
        "-n", type=whole_number(), required=True, metavar="N", help="number of ranks"
    )
    parser.add_argument(
        "--min-ranks",
        type=whole_number(),
        metavar="M",
        help="start fewer ranks, at least this many, if N cannot be started (N)",
    )
    parser.add_argument(
        "--restarts",
        type=whole_number(0),
        default=10,
        metavar="R",
        help="start again at most this often (%(default)s)",
    )
    parser.add_argument(
        "--start-timeout",
        type=whole_number(0),
        default=3600,
        metavar="SECONDS",
        help="end ranks that make no first step for so long; 0: never (%(default)s)",
    )
    parser.add_argument(
        "--launcher",
        metavar="COMMAND",
        help="command that starts ranks, with its options, such as 'mpirun --host a,b' "
        "(srun in a SLURM job, else the mpirun of the MPI library)",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of any error"
    )
    parser.add_argument(
        "command",
        metavar="-- train CONFIG.toml ...",
        nargs=argparse.REMAINDER,
        help="the training, with the arguments of train; --resume is added",
    )
    parser.set_defaults(
        run=run,
        needs_mpi=False,
        json=False,
        finish=lambda args: _check(args, parser),
    )


def _check(args, parser):
    """Parse the command of the training with the parser of ``train``."""
    from pympi_train import cli

    words = args.command[args.command[:1] == ["--"] :]
    if words[:1] != ["train"]:
        parser.error("expected -- train CONFIG.toml after the options of launch")
    if args.min_ranks is None:
        args.min_ranks = args.n
    if args.min_ranks > args.n:
        parser.error(f"--min-ranks {args.min_ranks} is more than -n {args.n}")
    args.command = words
    args.training = cli._parser(words).parse_args(words)
    args.training.finish(args.training)


def run(args):
    """Start the ranks, again if they die; set the exit status."""
    from pympi_train.config.files import ConfigFile
    from pympi_train.launch.launchers import find_launcher
    from pympi_train.launch.supervise import Supervisor
    from pympi_train.launch.training import Training

    require_one_process("launch")
    train = args.training
    config = ConfigFile.read(train.config).parse(train.set)
    training = Training(args.command, config, train.resume)
    launcher = find_launcher(args.launcher, os.environ)
    _say(f"{args.n} ranks by {launcher}")
    asked = args.n, args.min_ranks, args.restarts, args.start_timeout
    args.status = Supervisor(launcher, training, *asked, _say).run()


def _say(text):
    from pympi_train.runs.speech import say_progress

    say_progress(f"launch   {text}")
