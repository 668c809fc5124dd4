"""Prints what a CuPy offers, as JSON: run with the real one, and with the stand-in.

    python tests/cpu_cuda/contract.py [NAME ...]

For each dotted name below ``cupy``: the names of its parameters where they are known,
true where it is anything else, null where it does not exist. Without names: all public
names of the stand-in's modules, and of its classes.
"""

import importlib
import inspect
import json
import re
import sys
import warnings

MODULES = (
    "cupy",
    "cupy.cuda",
    "cupy.cuda.runtime",
    "cupy.cuda.cublas",
    "cupy.cuda.nccl",
)
# Modules and helpers of the stand-in itself.
ITS_OWN = re.compile(r"^(np|os|sys|time|socket|tempfile|ctypes|bisect|weakref)$|^_")
OF_CLASSES = ("cupy.ndarray", "cupy.RawModule", "cupy.cuda.Stream", "cupy.cuda.Event")
OF_CLASSES += ("cupy.cuda.Device", "cupy.cuda.nccl.NcclCommunicator")


def standin_names():
    """Yield the dotted names that the stand-in offers."""
    for module in MODULES:
        found = importlib.import_module(module)
        for name, value in vars(found).items():
            foreign = getattr(value, "__module__", module).split(".")[0] != "cupy"
            is_its_own = ITS_OWN.match(name) or inspect.ismodule(value)
            if not is_its_own and not (callable(value) and foreign):
                yield f"{module}.{name}"
    for owner in OF_CLASSES:
        for name in vars(look_up(owner)):
            if not name.startswith("_"):
                yield f"{owner}.{name}"


def look_up(dotted):
    """Return what ``dotted`` names; AttributeError if there is no such thing."""
    parts = dotted.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for part in parts[i:]:
            found = getattr(found, part)
        return found
    raise AttributeError(dotted)


def describe(dotted):
    """Return parameter names, true, or None."""
    try:
        found = look_up(dotted)
    except AttributeError:
        return None
    if not callable(found):
        return True
    try:
        return [name for name in inspect.signature(found).parameters if name != "self"]
    except (TypeError, ValueError):
        pass
    first = (found.__doc__ or "").strip().split("\n")[0]  # Cython writes it there
    match = re.match(r"^[\w.]+\((.*)\)", first)
    if match is None:
        return True
    words = [part.split("=")[0].split() for part in match[1].split(",") if part.strip()]
    names = [word[-1].lstrip("*") for word in words]
    return [name for name in names if name not in ("self", "", "/")]


def main():
    warnings.simplefilter("ignore")
    names = sys.argv[1:] or sorted(set(standin_names()))
    print(json.dumps({name: describe(name) for name in names}))


if __name__ == "__main__":
    main()
