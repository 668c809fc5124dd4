"""NVIDIA GPUs as the driver's management library (NVML) and ``/proc`` show them."""

import importlib.util
import os

NOT_INSTALLED = "pynvml is not installed (pip install 'pympi-train[energy]')"


def open_nvml():
    """Start NVML; return its module, or the reason why it cannot be used.

    Returns
    -------
    module or str

    Notes
    -----
    Makes no CUDA context, so that the process may still fork.
    """
    if importlib.util.find_spec("pynvml") is None:
        return NOT_INSTALLED
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML cannot be used: {error}"
    return pynvml


def visible_gpus(nvml):
    """Return NVML's handles of the GPUs that CUDA_VISIBLE_DEVICES leaves, by name.

    NVML itself shows every GPU of the node that the job's cgroup allows.

    Parameters
    ----------
    nvml : module
        As `open_nvml` returns it.

    Returns
    -------
    dict of str to handle
        The names are "gpu 0", "gpu 1", ... in NVML's order.
    """
    handles = {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = None if named is None else [w.strip() for w in named.split(",")]
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = nvml.nvmlDeviceGetUUID(handle)
        uuid = uuid.decode() if isinstance(uuid, bytes) else uuid
        if wanted is None or any(
            name == str(index) or (name.startswith("GPU-") and uuid.startswith(name))
            for name in wanted
        ):
            handles[f"gpu {index}"] = handle
    return handles


def describe_gpus(root):
    """Return name and memory of each visible GPU, and the driver's version.

    Parameters
    ----------
    root : Path
        Where ``/proc`` lies, which is read without NVML.

    Returns
    -------
    gpus : list of dict
        ``name`` and ``memory_bytes``, which is None without NVML.
    driver : str or None
    """
    nvml = open_nvml()
    if isinstance(nvml, str):
        return _from_proc(root)
    try:
        gpus = [
            {
                "name": _text(nvml.nvmlDeviceGetName(handle)),
                "memory_bytes": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            }
            for handle in visible_gpus(nvml).values()
        ]
        return gpus, _text(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:  # such as a GPU that fell off the bus
        return _from_proc(root)
    finally:
        nvml.nvmlShutdown()


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _from_proc(root):
    folder, gpus = root / "proc/driver/nvidia", []
    try:
        for path in sorted(folder.glob("gpus/*/information")):
            for line in path.read_text().splitlines():
                if line.startswith("Model:"):
                    name = line.partition(":")[2].strip()
                    gpus.append({"name": name, "memory_bytes": None})
        words = (folder / "version").read_text().splitlines()[0].split()
        # NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  ...
        driver = next((w for w in words if w[0].isdigit() and "." in w), None)
    except (OSError, IndexError):
        return gpus, None
    return gpus, driver
