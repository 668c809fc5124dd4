// Products with sparse rows: sums of scaled rows of a dense matrix.

#include "common.cuh"

// The sums of the entries of a run by `lanes` threads, a power of two up to a warp:
// `width` of them, also a power of two, each have an output j, and the others share the
// entries. `term(e, j)` is entry e's term of output j. `write(run, j, sum)` receives
// the sums. The order of a sum depends on lanes and width alone, so that the bits are
// the same each time.
template <typename T, typename Term, typename Write>
__device__ __forceinline__ void sum_runs(const int64* starts, int64 n, int64 c,
                                         int lanes, int width, Term term, Write write) {
    const int lane = threadIdx.x % lanes, group = lane / width;
    const int n_groups = lanes / width, runs_at_once = blockDim.x / lanes;
    const int64 step = static_cast<int64>(gridDim.x) * runs_at_once;
    // All threads of a warp make the same number of rounds: the shuffles need them.
#pragma unroll 1
    for (int64 first = static_cast<int64>(blockIdx.x) * runs_at_once; first < n;
         first += step) {
        const int64 run = first + threadIdx.x / lanes;
        const int64 start = run < n ? starts[run] + group : 0;
        const int64 stop = run < n ? starts[run + 1] : 0;
#pragma unroll 1
        for (int64 from = 0; from < c; from += width) {
            const int64 j = from + lane % width;
            T sum = T(0);
            if (j < c) {
                // Unrolled: the loads of four entries do not wait for each other.
#pragma unroll 4
                for (int64 e = start; e < stop; e += n_groups) sum += term(e, j);
            }
            for (int away = lanes / 2; away >= width; away /= 2)
                sum += __shfl_xor_sync(ALL_LANES, sum, away);
            if (run < n && group == 0 && j < c) write(run, j, sum);
        }
    }
}

// out[p] <- sum over e of values[e] w[indices[e]], e from starts[i] up to starts[i + 1],
// for n runs i of entries, and rows of c elements. p is places[i]; where that is
// negative, the run is a piece of a longer one, and its sum goes to
// pieces[-1 - places[i]].
template <typename T>
__device__ void csr_times(const int64* starts, const int* places, const int* indices,
                          const T* values, int64 n, const T* w, int64 c, int lanes,
                          int width, T* out, T* pieces) {
    sum_runs<T>(
        starts, n, c, lanes, width,
        [&](int64 e, int64 j) { return values[e] * w[indices[e] * c + j]; },
        [&](int64 run, int64 j, T sum) {
            const int64 place = places[run];
            (place >= 0 ? out + place * c : pieces + (-1 - place) * c)[j] = sum;
        });
}

// out[places[i]] <- the sum of pieces[starts[i]] up to pieces[starts[i + 1] - 1], rows of
// c elements.
template <typename T>
__device__ void csr_join(const int64* starts, const int* places, const T* pieces,
                         int64 n, int64 c, int lanes, int width, T* out) {
    sum_runs<T>(
        starts, n, c, lanes, width,
        [&](int64 e, int64 j) { return pieces[e * c + j]; },
        [&](int64 run, int64 j, T sum) { out[places[run] * c + j] = sum; });
}

#define SPARSE(SUFFIX, T)                                                              \
    extern "C" __global__ void __launch_bounds__(256) csr_times_##SUFFIX(              \
        const int64* starts, const int* places, const int* indices, const T* values,   \
        int64 n, const T* w, int64 c, int lanes, int width, T* out, T* pieces) {       \
        csr_times<T>(starts, places, indices, values, n, w, c, lanes, width, out,      \
                     pieces);                                                          \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) csr_join_##SUFFIX(               \
        const int64* starts, const int* places, const T* pieces, int64 n, int64 c,     \
        int lanes, int width, T* out) {                                                \
        csr_join<T>(starts, places, pieces, n, c, lanes, width, out);                  \
    }

FOR_WHOLE(SPARSE)
