"""``pympi-train scaling --launcher slurm``: what its jobs ask for and do."""

import argparse
import dataclasses
import os
import sys
from functools import partial
from pathlib import Path

from pympi_train.cli.scaling.options import OF_JOBS
from pympi_train.errors import ConfigError
from pympi_train.launch.training import own_program
from pympi_train.runs.speech import counted
from pympi_train.scaling.study.jobs import StudyJobs, measure_by_jobs
from pympi_train.scaling.study.record import Study
from pympi_train.slurm import prepare, site, tools
from pympi_train.slurm.script import job_name


def prepare_jobs(args, plan, say):
    """Return the Study, and a function that measures by jobs and returns the failures.
    """
    request, launcher = _job_request(args)
    cores = request.cpus_per_task
    settings = {"steps": args.steps, "cores_per_rank": cores}
    own = {"machine": None, "mpi": None, "settings": settings}
    study = Study(args.output, {**plan.about, **own})
    folder = Path(os.path.abspath(args.output)).with_suffix(".jobs")
    words = partial(_job_words, args, os.path.abspath(plan.path), cores, launcher)
    study_jobs = StudyJobs(folder, job_name(plan.path), request, words)
    launches = counted(len(plan.cases), "launch", "launches")
    what = f"{counted(cores, 'core')} a rank, {launches}: {args.output}"
    say(f"jobs of SLURM, {what}")
    return study, partial(measure_by_jobs, study, plan.cases, study_jobs)


def _job_request(args):
    """Return the JobRequest of the largest job, and the launcher within the jobs."""
    defaults = site.read_site()
    asked = {name: getattr(args, name) for name in (*OF_JOBS, "module")}
    asked |= {"nodes": 1, "cpus_per_task": args.cores_per_rank}
    request = prepare.make_request(argparse.Namespace(**asked), defaults, None)
    if request.container is not None:
        raise ConfigError(
            f"{site.site_path()}: container: a study starts no ranks in an image"
        )
    cores = request.cpus_per_task or 1
    request = dataclasses.replace(request, cpus_per_task=cores)
    plugin = args.mpi or defaults.get("mpi")
    if not plugin:
        tools.find_plugin([sys.executable])  # an error here, not after hours in a queue
        return request, "srun"
    plugin = tools.require_plugin(plugin)
    bound = f"--kill-on-bad-exit=1 --cpu-bind=cores --cpus-per-task={cores}"
    return request, f"srun --mpi={plugin} {bound}"


def _job_words(args, path, cores, launcher, n_ranks, part):
    """Return the command of the job that measures on so many ranks."""
    words = [*own_program(), "scaling", path]
    words += ["--set", *args.set] if args.set else []
    words += [] if args.strategies is None else ["--strategies", args.strategies]
    values = {"ranks": n_ranks, "mode": args.mode, "repeats": args.repeats}
    values |= {"steps": args.steps, "cores-per-rank": cores, "launcher": launcher}
    values |= {"timeout": args.timeout, "output": part}
    return words + [str(w) for k, v in values.items() for w in (f"--{k}", v)]
