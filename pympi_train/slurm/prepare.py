"""From the arguments of the command to the file of the batch script."""

import os
import re
import shutil

from pympi_train.config.files import ConfigFile
from pympi_train.errors import ConfigError, DataError
from pympi_train.paths import expanded, require_utf8
from pympi_train.slurm import site
from pympi_train.slurm.request import FIELDS, JobRequest
from pympi_train.slurm.script import Work, batch_script, job_name, require_variations
from pympi_train.slurm.tools import find_plugin, python_command, require_plugin


def write_script(args):
    """Write the batch script for the arguments of ``pympi-train slurm``.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    (str, str or None)
        Its path, and that of an earlier script that was there, with other text.

    Raises
    ------
    ConfigError
        If an argument, or the configuration, is not valid.
    LaunchError
        If `srun` offers nothing for the MPI library.
    DataError
        If the file cannot be written.
    """
    vary = tuple(_variation(*words) for words in args.vary)
    defaults = site.read_site()
    request = make_request(args, defaults, require_variations(vary, args.array))
    work = make_work(args, vary, request)
    tool = container_tool(request)
    python = python_command(request.container, tool)
    plugin = args.mpi or defaults.get("mpi")
    plugin = require_plugin(plugin) if plugin else find_plugin(python)
    text = batch_script(request, work, plugin, python[0], tool)
    path = expanded(args.output or f"{work.name}.sbatch", "--output")
    return path, _write(path, text)


def _variation(key, *values):
    """Return (key, values) of the words after ``--vary``."""
    if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", key) or not values:
        raise ConfigError(
            f"--vary {key}: expected a key and its values, such as "
            "optimizer.learning_rate 0.1 0.01"
        )
    return key, values


def make_request(args, defaults, array):
    """Return the JobRequest for arguments, with defaults of the site.

    ``args`` has the attributes of `JobRequest`, and ``module``; None is not given.
    """
    found = {name: defaults[name] for name in FIELDS if name in defaults}
    for name in FIELDS:
        value = getattr(args, name, None)
        if value is not None:
            found[name] = value
    if args.module:
        found["modules"] = tuple(args.module)
    if found.get("container") is not None:
        found["container"] = _image(found["container"])
    is_site_s = found.get("partition") == defaults.get("partition")
    n_cpus, n_ranks = defaults.get("cpus_per_node"), found.get("ntasks_per_node")
    if "cpus_per_task" not in found and is_site_s and n_cpus and n_ranks:
        found["cpus_per_task"] = max(int(n_cpus) // n_ranks, 1)
    return JobRequest(**{**found, "array": array})


def make_work(args, vary, request):
    """Return the `Work` for arguments; check the configuration of each task.

    Raises
    ------
    ConfigError
        If the configuration is not valid, with any of the values that vary.
    """
    path = os.path.abspath(expanded(args.config))
    file = ConfigFile.read(path)

    def parsed(more=()):
        found = file.parse([*args.set, *more])
        _require_ranks(found.elastic, request)
        return found

    config = parsed()
    for key, values in vary:
        for value in values:
            parsed([f"{key}={value}"])
    if request.array is not None:
        _require_own_folders(config, vary)
    return Work(
        name=job_name(path),
        folder=require_utf8(os.getcwd()),
        config=path,
        overrides=tuple(args.set),
        vary=vary,
        directory=config.output.directory,
        checkpoints=config.checkpoints,
    )


def _require_ranks(elastic, request):
    """Raise ConfigError if the job cannot do what ``[elastic]`` asks for."""
    n_ranks = request.nodes * request.ntasks_per_node
    if (elastic.ranks or 0) > n_ranks:
        raise ConfigError(
            f"[elastic] ranks = {elastic.ranks}, but the job has {n_ranks} ranks "
            f"({request.nodes} x {request.ntasks_per_node}): ask for more, or lower it"
        )
    if elastic.survive:
        raise ConfigError(
            "[elastic] survive = true: needs Open MPI's mpirun --with-ft ulfm, and the "
            "script starts the ranks by srun, again if some die: leave it out"
        )


def _require_own_folders(config, vary):
    """Raise ConfigError unless the tasks of an array can have folders of their own."""
    if config.checkpoint.directory is not None:
        raise ConfigError(
            "[checkpoint] directory: the tasks of an array would share it; leave it "
            "out, and each has its checkpoints in its own run directory"
        )
    if "$" in config.output.directory:
        raise ConfigError(
            f"[output] directory {config.output.directory!r}: an array needs one "
            "without a $ in its name"
        )
    for key, _ in vary:
        if key in ("output.directory", "checkpoint.directory"):
            raise ConfigError(f"--vary {key}: each task has its own run directory")


def container_tool(request):
    """Return the program that runs a command in an image: Apptainer or Singularity."""
    if shutil.which("apptainer") is None and shutil.which("singularity") is not None:
        return "singularity"
    return "apptainer"


def _image(name):
    """Return the absolute path of an image, or a URL as it is."""
    if not isinstance(name, str) or "://" in name or name.startswith("-"):
        return name
    return os.path.abspath(expanded(name, "--container"))


def _write(path, text):
    """Write the script; return the new name of an earlier one, if its text differs."""
    kept = None
    try:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                before = file.read()
            if before == text:
                return None
            if before and not before.startswith("#!"):  # the configuration, perhaps
                raise DataError(
                    f"{path} is there, and is no script: name another file by --output"
                )
            kept = f"{path}~"
            os.replace(path, kept)
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(path, 0o755)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    return kept
