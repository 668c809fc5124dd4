"""``pympi-train pool``: train the jobs of a file on the ranks of one MPI job."""

from contextlib import contextmanager

from pympi_train.cli import add_common


def add_arguments(parser):
    """Add the arguments of ``pool``."""
    parser.add_argument(
        "jobs",
        metavar="JOBS.toml",
        help='the job file; or "status" and the directory of a pool, to see how far it '
        "is, without mpirun",
    )
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", help="status: directory of the pool"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from an earlier start: finished jobs are kept, the others go on "
        "where they were; without an earlier start, begin",
    )
    parser.add_argument(
        "--picture",
        metavar="FILE.png",
        nargs="?",
        const="",
        help="status: draw who used which rank when (ranks.png in DIR)",
    )
    add_common(parser, run)
    parser.set_defaults(finish=lambda args: _choose(args, parser))


def _choose(args, parser):
    """Choose what the words stand for; check that the options belong to it."""
    if args.jobs == "status":
        if args.directory is None:
            parser.error("status needs the directory of a pool")
        if args.resume:
            parser.error("--resume is for a job file, not for status")
        args.run, args.needs_mpi = run_status, False
        return
    if args.directory is not None:
        parser.error(f"unrecognized arguments: {args.directory}")
    if args.picture is not None:
        parser.error("--picture is for status: a pool draws at its end by itself")
    args.within = _signals


@contextmanager
def _signals(args):
    """Handle signals from here on: a rank that left while MPI starts would be alone."""
    from pympi_train.runs.recovery.signals import WITH_CTRL_C, orderly

    with orderly(WITH_CTRL_C) as args.stop:
        yield


def run(args, comm):
    """Train all jobs; return the status of the pool."""
    from pympi_train.cli.train import make_console
    from pympi_train.comm.checks import on_root, raise_together
    from pympi_train.pool.machine import machine_of
    from pympi_train.pool.pool import Pool
    from pympi_train.pool.report.ending import finish_pool, work_through

    console, read, found, error = make_console(args, comm), [], None, None
    machine = machine_of(comm)
    directory = on_root(comm, lambda: _read(args, machine, console, read))
    how = {"console": console, "resume": args.resume, "stop": args.stop}
    pool = Pool(comm, directory=directory, **how)
    try:
        with pool as entered:
            if entered is not None:
                work_through(entered, *read)
        if comm.rank == 0:
            found = finish_pool(read[0], console.say)
    except Exception as caught:
        error = caught
    args.status = found["exit_status"] if found else 1
    if pool.has_lost:  # they take part in nothing
        if error is not None:
            raise error
        return found
    raise_together(comm, error)
    args.status = comm.bcast(args.status, root=0)
    return found


def _read(args, machine, console, read):
    """Put the plan and the names of its finished jobs into ``read``.

    Says what is to be done, and returns the directory.
    """
    from pympi_train.paths import expanded
    from pympi_train.pool.jobfile.plan import read_plan
    from pympi_train.pool.report.records import check_earlier
    from pympi_train.pool.room import GB, Needs, require_room
    from pympi_train.runs.speech import counted

    plan = read_plan(expanded(args.jobs), machine.n_ranks)
    kept = check_earlier(plan, args.resume)
    for job in plan.jobs:
        bytes_a_rank = (job.memory_gb or 0.0) * GB
        least, most = job.min_ranks, job.max_ranks
        needs = Needs(least, most, gpus=job.gpus, memory=bytes_a_rank)
        require_room(machine, needs, job.name)
    done = f", {len(kept):,} of them finished before" if kept else ""
    jobs, ranks = counted(len(plan.jobs), "job"), counted(machine.n_ranks, "rank")
    console.say(f"pool     {plan.directory}: {jobs}{done}, {ranks}")
    read += [plan, kept]
    return plan.directory


def run_status(args):
    """Print the status of a pool; return it."""
    from pympi_train.paths import expanded
    from pympi_train.pool.report.ending import draw_pool
    from pympi_train.pool.report.status import describe_pool, status_lines
    from pympi_train.runs.speech import say

    directory = expanded(args.directory)
    found = describe_pool(directory)
    if args.picture is not None:
        found["picture"] = draw_pool(directory, args.picture and expanded(args.picture))
    if not args.json:
        for line in status_lines(found):
            say(line)
        if args.picture is not None:
            say(f"picture  {found['picture']}")
    return found
