import types

import pytest

from pympi_train.backends import energy
from pympi_train.backends.energy import EnergyMeter, joules_between

RANGE = 1000_000  # microjoules


class Counters:
    """A tree like /sys/class/powercap."""

    def __init__(self, root):
        self.folder = root / "sys/class/powercap"

    def set(self, zone, microjoules, name=None):
        folder = self.folder / zone
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        if name:
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")


@pytest.fixture
def counters(tmp_path):
    return Counters(tmp_path)


def test_no_counter_is_said(tmp_path):
    meter = EnergyMeter(root=tmp_path, nvml="pynvml is planted away")
    assert meter.sources == ()
    assert "no RAPL" in meter.absent["cpu"]
    assert meter.absent["gpu"] == "pynvml is planted away"
    assert joules_between(meter.read(), meter.read()) is None


def test_sockets_and_memory_are_added_and_nothing_twice(tmp_path, counters):
    counters.set("intel-rapl:0", 10, "package-0")
    counters.set("intel-rapl:0:0", 10, "core")  # a part of package-0
    counters.set("intel-rapl:0:1", 10, "dram")
    counters.set("intel-rapl:1", 10, "package-1")
    counters.set("intel-rapl:2", 10, "psys")  # includes all
    counters.set("intel-rapl-mmio:0", 10, "package-0")  # the same again
    meter = EnergyMeter(root=tmp_path, nvml="none")
    assert meter.sources == ("package-0", "package-0 dram", "package-1")
    assert "cpu" not in meter.absent
    before = meter.read()
    counters.set("intel-rapl:0", 500_010)
    counters.set("intel-rapl:0:1", 200_010)
    counters.set("intel-rapl:0:0", 400_000)
    assert joules_between(before, meter.read()) == pytest.approx(0.7)


def test_counter_that_begins_again(tmp_path, counters):
    counters.set("intel-rapl:0", RANGE - 5, "package-0")
    meter = EnergyMeter(root=tmp_path, nvml="none")
    before = meter.read()
    total = 0
    for now in (4, 700_000, 3, 3, 2):  # three turns after the first
        counters.set("intel-rapl:0", now)
        after = meter.read()
        total += joules_between(before, after) or 0.0  # None: it stood still
        before = after
    obvious = 3 * (RANGE + 1) + 2 - (RANGE - 5)
    assert total == pytest.approx(obvious / 1e6)


def test_counter_that_vanishes_gives_no_sum(tmp_path, counters):
    counters.set("intel-rapl:0", 1, "package-0")
    counters.set("intel-rapl:1", 1, "package-1")
    meter = EnergyMeter(root=tmp_path, nvml="none")
    before = meter.read()
    (counters.folder / "intel-rapl:1/energy_uj").unlink()
    assert joules_between(before, meter.read()) is None


def test_counters_that_stand_still_are_not_zero_joules(tmp_path, counters):
    counters.set("intel-rapl:0", 0, "package-0")
    meter = EnergyMeter(root=tmp_path, nvml="none")
    assert joules_between(meter.read(), meter.read()) is None


def test_right_to_read_is_missing(tmp_path, counters, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder / "energy_uj"))

    monkeypatch.setattr(energy, "_zones", refuse)
    meter = EnergyMeter(root=tmp_path, nvml="none")
    assert "root only" in meter.absent["cpu"] and meter.read() == {}


class FakeNvml(types.SimpleNamespace):
    class NVMLError(Exception):
        pass

    def __init__(self, millijoules):
        super().__init__(millijoules=millijoules)

    def nvmlDeviceGetCount(self):
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}abc"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if self.millijoules[handle] is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules[handle]


@pytest.mark.parametrize(
    "visible, joules", [(None, 7.0), ("1", 4.0), ("GPU-0a", 3.0), ("", None)]
)
def test_gpus_of_this_process(tmp_path, monkeypatch, visible, joules):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNvml([1000, 1000])
    meter = EnergyMeter(root=tmp_path, nvml=nvml)
    before = meter.read()
    nvml.millijoules = [4000, 5000]
    assert joules_between(before, meter.read()) == joules
    assert ("gpu" in meter.absent) == (joules is None)


def test_gpu_that_counts_no_energy(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    meter = EnergyMeter(root=tmp_path, nvml=FakeNvml([None]))
    assert "Not Supported" in meter.absent["gpu"] and meter.read() == {}
