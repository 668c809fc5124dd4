"""Joules that this node has used, where the machine tells them.

CPUs and their memory count energy by RAPL (running average power limit), which Linux
shows under ``/sys/class/powercap``; NVIDIA GPUs since Volta count it by NVML.
"""

from pathlib import Path

from pympi_train.backends.nvidia import open_nvml, visible_gpus

RAPL = "sys/class/powercap"
NO_RAPL = "this machine shows no RAPL counters (/sys/class/powercap/intel-rapl:*)"


class EnergyMeter:
    """Counters of energy of this node.

    Parameters
    ----------
    root : path
        Where ``/sys`` lies; for tests.
    nvml : module or str, optional
        Stands in for ``pynvml``; a string is the reason for its absence.

    Attributes
    ----------
    sources : tuple of str
        Names of the counters, such as "package-0", "package-0 dram", "gpu 0".
    absent : dict of str to str
        For "cpu" and "gpu", why nothing is read, in one line; no entry if something is.

    Notes
    -----
    Not collective. *One* rank of a node has a meter: the counters are those of the
    whole node. They include whatever else runs there, and idle power.

    RAPL's counters begin again at 0, at 65 or 260 kJ: `read` corrects that as long as
    it is called more often than they do so, which takes at least 80 s at 800 W.

    Examples
    --------
    >>> meter = EnergyMeter()
    >>> before = meter.read()
    >>> joules = joules_between(before, meter.read())  # None if there is no counter
    """

    def __init__(self, root="/", nvml=None):
        self.absent = {}
        self._zones, self._gpus = [], {}
        try:
            self._zones = _zones(Path(root) / RAPL)
            if not self._zones:
                self.absent["cpu"] = NO_RAPL
        except PermissionError as error:
            self.absent["cpu"] = (
                f"{error.filename} may be read by root only; an administrator can "
                "allow it: chmod -R a+r /sys/class/powercap/intel-rapl:*/energy_uj"
            )
        except (OSError, ValueError) as error:
            self.absent["cpu"] = f"RAPL cannot be read: {error}"
        self._nvml = open_nvml() if nvml is None else nvml
        if isinstance(self._nvml, str):
            self.absent["gpu"] = self._nvml
        else:
            self._find_gpus()
        self.sources = (*(zone.name for zone in self._zones), *self._gpus)

    def _find_gpus(self):
        try:
            handles = visible_gpus(self._nvml)
            for handle in handles.values():
                self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except self._nvml.NVMLError as error:  # before Volta, or in a virtual GPU
            self.absent["gpu"] = f"NVML counts no energy of the GPUs here: {error}"
            return
        self._gpus = handles
        if not handles:
            self.absent["gpu"] = "NVML shows no GPU of this process"

    def read(self):
        """Return the joules that each counter has counted since it or Linux started.

        Returns
        -------
        dict of str to float
            By the names in `sources`. Only differences have a meaning:
            `joules_between`. A counter that can no longer be read is left out.
        """
        found = {}
        for zone in self._zones:
            try:
                found[zone.name] = zone.joules()
            except (OSError, ValueError):
                pass
        for name, handle in self._gpus.items():
            try:
                millijoules = self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            except self._nvml.NVMLError:
                continue
            found[name] = millijoules / 1e3
        return found


def joules_between(before, after):
    """Return the joules between two results of `EnergyMeter.read`.

    Returns
    -------
    float or None
        Sum over all counters. None without counters, and if one could not be read: a
        partial sum would look like a saving. None too if nothing was counted, as by
        those of some virtual machines, which stand still.
    """
    if not before or before.keys() != after.keys():
        return None
    found = sum(after[name] - before[name] for name in before)
    return found if found > 0 else None


class _Zone:
    """One counter of RAPL, continued where it begins again at 0."""

    def __init__(self, folder, name):
        self.name = name
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._turns, self._last = 0, int(self._file.read_text())

    def joules(self):
        """Return the joules that the counter has counted, since an unknown start."""
        now = int(self._file.read_text())
        if now < self._last:
            self._turns += 1
        self._last = now
        # The counter's largest value is the range itself, and 0 comes after it.
        return (self._turns * (self._range + 1) + now) / 1e6


def _zones(folder):
    """Return the counters of sockets, and of memory where it is counted apart.

    Cores and graphics are parts of their socket; "psys" includes the sockets; and
    intel-rapl-mmio shows the same counters as intel-rapl.
    """
    found = []
    for socket in sorted(folder.glob("intel-rapl:*")):
        name = (socket / "name").read_text().strip()
        if socket.name.count(":") == 1 and name.startswith("package"):
            found.append(_Zone(socket, name))
            for part in sorted(folder.glob(f"{socket.name}:*")):
                if (part / "name").read_text().strip() == "dram":
                    found.append(_Zone(part, f"{name} dram"))
    return found
