import json

import pytest

from pympi_train.backends.machine import describe_machine


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def two_sockets():
    """Two sockets of two cores of two threads; the numbering is that of Intel."""
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Planted CPU\n"
        "flags\t\t: fpu hypervisor\n\nmodel name\t: another\n",
        "proc/meminfo": "MemTotal:       1024 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
        "sys/fs/cgroup/job/step/memory.max": "4096\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/devices/system/node/node0/x": "",
        "sys/devices/system/node/node1/x": "",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel "
        "Module  580.65.06  Sun\n",
        "proc/driver/nvidia/gpus/0/information": "Model: \t NVIDIA Planted\n",
        "etc/os-release": 'NAME="x"\nPRETTY_NAME="Planted Linux 1"\n',
    }
    for cpu in range(8):
        folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
        files[f"{folder}/physical_package_id"] = f"{cpu % 4 // 2}\n"
        files[f"{folder}/core_cpus_list"] = f"{cpu % 4},{cpu % 4 + 4}\n"
    return files


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Describe a machine of planted files."""

    def describe(files, mask=(0, 1, 4), **how):
        write(tmp_path, files)
        monkeypatch.setattr("pympi_train.backends.machine.affinity", lambda: set(mask))
        monkeypatch.setattr(
            "pympi_train.backends.nvidia.open_nvml", lambda: "not installed"
        )
        return describe_machine(root=tmp_path, **how)

    return describe


def test_topology(planted):
    found = planted(two_sockets())
    assert found["cpu"] == {
        "model": "Planted CPU",
        "sockets": 2,
        "cores": 4,
        "threads": 8,
        "smt": True,
        "governor": None,
        "virtual": True,
    }
    assert found["affinity"] == {"cores": 2, "threads": 3}
    assert found["memory_bytes"] == 1 << 20
    assert found["numa_nodes"] == 2
    assert found["os"]["distribution"] == "Planted Linux 1"


def test_gpus_without_nvml(planted):
    found = planted(two_sockets())
    assert found["gpus"] == [{"name": "NVIDIA Planted", "memory_bytes": None}]
    assert found["gpu_driver"] == "580.65.06"


def test_tightest_cgroup_counts(planted):
    found = planted(two_sockets())
    assert found["cgroup"] == {"cpus": 1.5, "memory_bytes": 4096}


def test_cgroups_of_version_1(planted):
    files = {
        "proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/\n0::/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "8192\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    found = planted(files)
    assert found["cgroup"] == {"cpus": 2.0, "memory_bytes": 8192}


def test_unknown_is_none(planted):
    found = planted({})
    assert found["cpu"]["cores"] is None
    assert found["affinity"]["cores"] is None
    assert found["cgroup"] == {"cpus": None, "memory_bytes": None}
    assert found["gpus"] == [] and found["gpu_driver"] is None
    assert found["mpi"] is None


def test_uuids_are_not_told(planted, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc,GPU-def")
    assert planted({})["environment"]["CUDA_VISIBLE_DEVICES"] == "2 by UUID"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert planted({})["environment"]["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_this_machine_fits_into_json():
    found = describe_machine(mpi="MPICH Version:  4.3\nmore\0")
    assert json.loads(json.dumps(found)) == found
    assert found["mpi"] == "MPICH Version: 4.3"
    assert found["versions"]["numpy"]
    assert found["affinity"]["threads"] >= 1
    assert "hostname" not in found
    assert describe_machine(hostname=True)["hostname"]
