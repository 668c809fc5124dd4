"""Which module's functions run the hot loops."""

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from pympi_train.errors import ConfigError

AS_CONFIGURED = "as configured"  # by name, not by "auto"
NAMES = ("numpy", "numba")
START_S = 1.0  # to import Numba and to load what it has compiled before
ADVICE = "pip install 'pympi-train[fast]'"


@dataclass(frozen=True)
class Backend:
    """A backend and why it was taken.

    Attributes
    ----------
    name : str
        ``"numpy"`` or ``"numba"``: never ``"auto"``.
    ops : module
        With the functions that ``numpy.ops`` describes.
    reason : str
        One line for the user.
    """

    name: str
    ops: ModuleType
    reason: str


def select(name):
    """Return the CPU's backend called ``name``: auto, numpy or numba.

    ``auto`` takes Numba where it can be imported, else NumPy. `comm.devices` comes
    before this where there may be a GPU.

    Raises
    ------
    ConfigError
        If there is no such backend, or Numba is asked for and cannot be imported.
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
    # Whatever it is: a NumPy newer than Numba knows, NUMBA_* that make no sense, ...
    try:
        return Backend(name, _ops(name), AS_CONFIGURED)
    except Exception as error:
        raise ConfigError(
            f"backend is {name!r} but it cannot be imported: "
            f"{str(error).rstrip('.')}. Install a "
            f'version that fits with {ADVICE}, or set backend = "numpy".'
        ) from error


def is_installed():
    """Return whether there is a Numba, without the 0.4 s of importing it."""
    return importlib.util.find_spec("numba") is not None


def seconds_saved(n_steps, layout, n_rows):
    """Return what Numba saves a training, about, its start not counted.

    Parameters
    ----------
    n_steps : int
    layout : Layout
        Of the model; each bias is taken as an output of a layer.
    n_rows : int
        Of a step.

    Notes
    -----
    Of a step with Adam on one core: 0.15 ms in calls whose code is in cache, and two to
    three times that between the products of a step; 6 ns a parameter, 3 ns an output of
    a layer and row (``bench kernels`` of both backends).
    """
    n_outputs = sum(tensor.size for tensor in layout.tensors if not tensor.is_weight)
    step_s = 4e-4 + 6e-9 * layout.size + 3e-9 * n_rows * n_outputs
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
