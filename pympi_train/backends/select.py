"""Choice of the CPU backend, the module that has the hot loops."""

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from pympi_train.errors import ConfigError

AS_CONFIGURED = "as configured"  # chosen by name, not by "auto"
NAMES = ("numpy", "numba")
START_S = 1.0  # to import Numba and load its cached kernels
ADVICE = "pip install 'pympi-train[fast]'"


@dataclass(frozen=True)
class Backend:
    """A backend and the reason for its choice.

    Attributes
    ----------
    name : str
        ``"numpy"`` or ``"numba"``: never ``"auto"``.
    ops : module
        Has the functions that ``numpy.ops`` describes.
    reason : str
        One line for the user.
    """

    name: str
    ops: ModuleType
    reason: str


def select(name):
    """Return the CPU backend called ``name``: auto, numpy or numba.

    ``auto`` selects Numba if it can be imported, else NumPy. `comm.devices` tries a GPU
    first, then calls this.

    Raises
    ------
    ConfigError
        If there is no such backend, or if Numba is requested but cannot be imported.
    """
    if name == "auto":
        return _auto()
    if name not in NAMES:
        choices = ", ".join(("auto", *NAMES, "cuda"))
        raise ConfigError(f"backend must be one of {choices}; got {name!r}")
    if name == "numba" and not is_installed():
        raise ConfigError(
            "backend is 'numba' but Numba is not installed. Install it with "
            f'{ADVICE}, or set backend = "auto" or "numpy".'
        )
    # Any exception: NumPy is too new for Numba, a NUMBA_* variable is invalid, ...
    try:
        return Backend(name, _ops(name), AS_CONFIGURED)
    except Exception as error:
        raise ConfigError(
            f"backend is {name!r} but it cannot be imported: "
            f"{str(error).rstrip('.')}. Install a "
            f'version that fits with {ADVICE}, or set backend = "numpy".'
        ) from error


def is_installed():
    """Return whether Numba is installed, without importing it, which takes 0.4 s."""
    return importlib.util.find_spec("numba") is not None


def seconds_saved(n_steps, layout, n_rows, n_entries=0):
    """Return an estimate of the seconds that Numba saves a training, without start-up.

    Parameters
    ----------
    n_steps : int
    layout : Layout
        Layout of the model. Each bias counts as one output of a layer.
    n_rows : int
        Rows per step.
    n_entries : int
        Entries of these rows, if they are sparse.

    Notes
    -----
    Savings per step with Adam on one core, from ``bench kernels`` of both backends:
    0.15 ms in calls if their code is in cache, and two to three times as much between
    the products of a step; 6 ns per parameter; 3 ns per row and output of a layer; 8 ns
    per entry of sparse rows.
    """
    n_outputs = sum(tensor.size for tensor in layout.tensors if not tensor.is_weight)
    step_s = 4e-4 + 6e-9 * layout.size + 3e-9 * n_rows * n_outputs
    step_s += 8e-9 * n_entries
    return n_steps * step_s


def present():
    """Return the names of the backends that can be imported, the fastest last."""
    names = ["numpy"]
    if _auto().name == "numba":
        names.append("numba")
    return names


def _auto():
    if not is_installed():
        reason = f"Numba is not installed; faster with {ADVICE}"
        return Backend("numpy", _ops("numpy"), reason)
    try:
        return Backend("numba", _ops("numba"), "Numba is installed")
    except Exception as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = f"Numba cannot be imported: {line}"
        return Backend("numpy", _ops("numpy"), reason)


def _ops(name):
    return importlib.import_module(f"pympi_train.backends.{name}.ops")
