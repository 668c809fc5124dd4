"""Errors to plant in the GPU path: a table for ``mutate.py``."""

# Each further type takes another build of a source, and detects the same errors.
ONE_TYPE = ("-k", "not (f64 or f16 or bf16)")
UPDATES = ["tests/kernels/test_updates.py", *ONE_TYPE]
LOSSES = ["tests/kernels/test_losses.py", *ONE_TYPE]
ACTIVATIONS = ["tests/kernels/test_activations.py", *ONE_TYPE]
ARRAYS = ["tests/kernels/test_arrays.py", *ONE_TYPE]
SPARSE = ["tests/kernels/test_sparse.py", *ONE_TYPE]
WIRES = ["tests/kernels/test_wires.py", *ONE_TYPE]
# x86 reads 16 bytes at any address; only the sanitizers report unaligned accesses.
SANITIZED = ["tests/kernels/test_sanitized.py", "-k", "touch_nothing"]
TRANSPORT = ["tests/comm/transports/test_choose.py", "--ranks", "2"]
FEED = ["tests/data/feeds/test_device_feed.py"]
DEVICE = ["tests/parallel/gpu/test_allreduce.py", "--ranks", "2"]
HALF = ["tests/parallel/gpu/test_half.py", "--ranks", "2"]

# File, text that occurs once in it, replacement, tests that must fail.
GPU_MUTATIONS = [
    ("kernels/updates.cu", "? step + mu * v[k] :", "? step + v[k] :", UPDATES),
    ("kernels/updates.cu", "is_weight ? s.keep : C(1)", "s.keep", UPDATES),
    ("kernels/updates.cu", "if (isnan(*factor)) return false;", "", UPDATES),
    (
        "kernels/updates.cu",
        "(sqrt(second[k]) + s.floor)",
        "sqrt(second[k] + s.floor)",
        UPDATES,
    ),
    ("kernels/updates.cu", "if (!(sum <= limit))", "if (sum > limit)", UPDATES),
    ("kernels/updates.cu", "weights_ = !weights_;", "", UPDATES),
    (
        "kernels/common.cuh",
        "+ first_index(); i < n;",
        "+ first_index(); i + 1 < n;",
        ARRAYS,
    ),
    ("kernels/common.cuh", "= value;\n    __syncthreads();", "= value;", UPDATES),
    ("kernels/common.cuh", "| ...) & 15) == 0", "| ...) & 3) == 0", SANITIZED),
    (
        "kernels/common.cuh",
        "static_cast<int64>(gridDim.x) * blockDim.x",
        "static_cast<int64>(gridDim.x) * blockDim.x - 1",
        ARRAYS,
    ),
    ("kernels/losses.cu", "        sum *= exp(top - larger);\n", "", LOSSES),
    (
        "kernels/losses.cu",
        "        __syncthreads();  // also, all threads have read the tops\n",
        "",
        LOSSES,
    ),
    (
        "kernels/losses.cu",
        "tops[warp] = top;\n        __syncthreads();",
        "tops[warp] = top;",
        LOSSES,
    ),
    ("kernels/losses.cu", "weights[(at + i) / t]", "weights[(at + i) % t]", LOSSES),
    ("kernels/losses.cu", "exp(-fabs(z[i]))", "exp(-z[i])", LOSSES),
    (
        "kernels/activations.cu",
        "x <= C(0) ? C(0) : x",
        "x > C(0) ? x : C(0)",
        ACTIVATIONS,
    ),
    ("kernels/activations.cu", "if (column >= w) column -= w;", "", ACTIVATIONS),
    ("kernels/activations.cu", "= sum;\n    __syncthreads();", "= sum;", ACTIVATIONS),
    ("kernels/arrays.cu", "            ++row;\n", "", ARRAYS),
    ("kernels/arrays.cu", "n % N == 0 && aligned(parts", "aligned(parts", SANITIZED),
    ("kernels/wires.cu", "            if (at >= n) continue;\n", "", SANITIZED),
    ("kernels/wires.cu", "other > top || isnan(other)", "other > top", WIRES),
    ("kernels/wires.cu", "static_cast<Code>(rint(x))", "static_cast<Code>(x)", WIRES),
    # Missing waits: the stand-in runs queued work as late as it may.
    (
        "pympi_train/comm/transports/staged.py",
        "        cuda.wait_for(there)\n",
        "",
        TRANSPORT,
    ),
    (
        "pympi_train/comm/transports/staged.py",
        "        cuda.stream().wait_event(cuda.record(self._up))\n",
        "",
        TRANSPORT,
    ),
    (
        "pympi_train/comm/transports/direct.py",
        "            cuda.wait_for(event)\n",
        "",
        TRANSPORT,
    ),
    (
        "pympi_train/comm/transports/nccl.py",
        "        cuda.stream().wait_event(cuda.record(self._stream))\n",
        "        pass\n",
        TRANSPORT,
    ),
    (
        "pympi_train/comm/transports/nccl.py",
        "            self._stream.wait_event(event)\n",
        "",
        TRANSPORT,
    ),
    ("kernels/sparse.cu", "away >= width", "away > width", SPARSE),
    ("kernels/sparse.cu", "e += n_groups", "e += 1", SPARSE),
    ("kernels/sparse.cu", "(-1 - place)", "(-place)", SPARSE),
    ("pympi_train/backends/cuda/sparse.py", "    queue_zeros(out)\n", "", FEED),
    (
        "pympi_train/data/feeds/slots.py",
        "            side.wait_event(self._used)\n",
        "            pass\n",
        FEED,
    ),
    (
        "pympi_train/data/feeds/slots.py",
        'copies."""\n        cuda.stream().wait_event(self._sent)\n',
        'copies."""\n',
        FEED,
    ),
    (
        "pympi_train/data/feeds/slots.py",
        "                cuda.stream().wait_event(self._sent)\n",
        "                pass\n",
        FEED,
    ),
    (
        "pympi_train/data/feeds/slots.py",
        "            cuda.wait_for(self._sent)  # the host's side has been read\n",
        "            pass\n",
        FEED,
    ),
    (
        "pympi_train/backends/cuda/arrays.py",
        "    cuda.wait_for_device()  # else the copy to",
        "    # else the copy to",
        ["tests/backends/cuda/test_device.py", "-k", "pageable"],
    ),
    (
        "pympi_train/comm/watch/recording.py",
        "        row[j.WAITING] = around\n",
        "        row[j.WAITING] = 0\n",
        ["tests/comm/watch/test_guard.py", "--ranks", "2"],
    ),
    (
        "pympi_train/parallel/gpu/allreduce.py",
        "        self._optimizer.step -= 1\n",
        "",
        HALF,
    ),
    (
        "pympi_train/parallel/gpu/half.py",
        "is not None and not math.isfinite(norm)",
        "is not None",
        HALF,
    ),
    (
        "pympi_train/parallel/gpu/allreduce.py",
        "        self._transport.sum(self.grads, self._ready)\n",
        "        self._transport.sum(self.grads[1:], ())\n",
        DEVICE,
    ),
]
