"""Code that NVRTC compiles: no spills, few registers, wide accesses, no atomics.

The kernels are compiled for each architecture with CuPy's own options, but not run.
"""

import re

import pytest
from mpi_launch import ROOT
from nvrtc import ARCHITECTURES, Compiled, everything, nvrtc_version

from pympi_train.backends.cuda.sources import kernel_names

pytestmark = pytest.mark.nvrtc
SUFFIX = re.compile(r"_(f32|f64|f16|bf16)$")
HALVES = ("f16", "bf16")

# Registers per thread. A multiprocessor has 65536, and a block 256 threads: 128 allow
# two blocks, 80 three, 64 four, 48 five. A softmax has 32 logits per thread in flight.
MOST_REGISTERS = {
    "adam": 64,
    "momentum": 56,
    "adagrad": 56,
    "softmax": 80,
    "softmax_f64": 128,
    "logistic_f64": 56,
    "squares_f64": 56,
    "bias_gelu": 64,
    "gelu_gradient": 64,
    "column_partials": 64,
    "pack_fp16": 64,
    "pack_int8": 64,
    "csr_times": 64,
    "csr_join": 64,
}
DEFAULT_REGISTERS = 48
# NVRTC 12.9 uses more, and spills these bytes per thread on sm_100 and sm_120.
MORE_BY_12, SPILLED_BY_12 = 48, {"softmax": 64, "adagrad": 24}

# Kernels that access arrays 16 bytes at a time: the minimum numbers of such loads and
# stores per pack, by the formula. Halves beside float32 are accessed 8 bytes at a time.
WIDE = {
    "sgd": lambda half: (2 - half, 1),
    "momentum": lambda half: (3 - half, 2),
    "adam": lambda half: (4 - half, 3),
    "adagrad": lambda half: (3 - half, 2),
    "norm": lambda half: (1, 0),
    "bias_add": lambda half: (2, 1),
    "bias_relu": lambda half: (2, 1),
    "bias_tanh": lambda half: (2, 1),
    "bias_gelu": lambda half: (2, 2),
    "relu_gradient": lambda half: (2, 1),
    "tanh_gradient": lambda half: (2, 1),
    "gelu_gradient": lambda half: (2, 1),
    "scale": lambda half: (1, 1),
    "axpy": lambda half: (2 - half, 1),
    "fill": lambda half: (0, 1),
    "narrow": lambda half: (2, 1),
    "widen": lambda half: (0, 1),
    "row_sum": lambda half: (1, 1),
    "take_rows_16": lambda half: (1, 1),
    "logistic": lambda half: (3 - half, 1 - half),
    "squares": lambda half: (2 - half, 1 - half),
    "pack_bf16": lambda half: (2, 1),
    "unpack_bf16": lambda half: (1, 1),
    "unpack_fp16": lambda half: (1, 1),
    "unpack_int8": lambda half: (1, 1),
}

LOCAL = re.compile(r"(LDL|STL)\b")
# Names differ by generation: RED became REDG. REDUX adds up a warp's registers.
ATOMIC = re.compile(r"(ATOM|RED(?!UX)|SUATOM|SURED)")

each = pytest.mark.parametrize(
    "file, architecture",
    [(file, arch) for file in kernel_names() for arch in ARCHITECTURES],
)


@pytest.fixture
def compiled(file, architecture):
    return everything()[file, architecture]


def base(name):
    """Return a kernel's name without its type."""
    return SUFFIX.sub("", name)


@each
def test_nothing_is_spilled_and_registers_are_few(compiled):
    assert compiled.kernels
    older = nvrtc_version() < (13, 0)
    allowed = SPILLED_BY_12 if older else {}
    spilled = {
        k: v
        for k, v in compiled.kernels.items()
        if v["spilled"] > allowed.get(base(k), 0)
    }
    assert not spilled
    caps = {
        k: MOST_REGISTERS.get(k, MOST_REGISTERS.get(base(k), DEFAULT_REGISTERS))
        + (MORE_BY_12 if older else 0)
        for k in compiled.kernels
    }
    above = {
        k: v["registers"]
        for k, v in compiled.kernels.items()
        if v["registers"] > caps[k]
    }
    assert not above


@each
def test_instructions(compiled):
    sass = compiled.sass
    assert set(sass) == set(compiled.kernels)
    for name, operations in sass.items():
        local = [op for op in operations if LOCAL.match(op)]
        assert not local, (name, local)
        atomic = [op for op in operations if ATOMIC.match(op)]
        assert not atomic, (name, atomic)
        if base(name) in WIDE:
            loads, stores = WIDE[base(name)](name.endswith(HALVES))
            wide_loads = sum("LDG" in op and ".128" in op for op in operations)
            wide_stores = sum("STG" in op and ".128" in op for op in operations)
            assert (wide_loads >= loads, wide_stores >= stores) == (True, True), (
                name,
                wide_loads,
                wide_stores,
            )


PLANTED = """
extern "C" __global__ void planted(float* x, int* y, int n) {
    float kept[64];
    for (int i = 0; i < 64; ++i) kept[i] = x[i] * n;
    for (int i = 0; i < n; ++i) x[i] = kept[y[i]];
    atomicAdd(y, n);
    if (atomicCAS(y + 1, n, 7) == 3) x[0] = 1.0f;
}
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_looked_for_is_found_where_it_is(architecture):
    planted = Compiled("planted", PLANTED, architecture)
    (operations,) = planted.sass.values()
    assert planted.kernels["planted"]["spilled"]
    assert any(LOCAL.match(op) for op in operations)
    found = {op.split(".")[0] for op in operations if ATOMIC.match(op)}
    assert len(found) == 2, found  # one returns a value, one does not


def table():
    """Return {kernel: (registers on sm_80, on sm_90)} of kernels/README.md."""
    text = (ROOT / "kernels" / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` .*\| (\d+) / (\d+) \|$", text, re.MULTILINE)
    return {name: (int(a), int(b)) for name, a, b in rows}


def test_the_table_names_every_kernel():
    names = {
        base(name)
        for (file, arch), one in everything().items()
        if arch == 80
        for name in one.kernels
    }
    assert set(table()) == names


def test_the_table_tells_the_registers():
    text = (ROOT / "kernels" / "README.md").read_text()
    measured_with = re.search(r"NVRTC (\d+)\.(\d+)", text)
    if tuple(map(int, measured_with.groups())) != nvrtc_version():
        pytest.skip("registers differ between releases of NVRTC")
    for name, registers in table().items():
        found = []
        for architecture in (80, 90):
            for (_, arch), one in everything().items():
                kernel = one.kernels.get(f"{name}_f32") or one.kernels.get(name)
                kernel = kernel or one.kernels.get(f"{name}_f16")
                if arch == architecture and kernel:
                    found.append(kernel["registers"])
        assert tuple(found) == registers, name
