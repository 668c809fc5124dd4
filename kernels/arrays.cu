// Basic array operations: scale, add, convert, fill, sum rows, take rows.

#include "common.cuh"

// x <- a x
template <typename T> __device__ void scale(T* x, int64 n, wide<T> a) {
    constexpr int N = PACK<T>;
    for_packs<N>(n, aligned(x), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        wide<T> values[K];
        load(values, x + at);
#pragma unroll
        for (int i = 0; i < K; ++i) values[i] *= a;
        store(x + at, values);
    });
}

// y <- y + a x; y has type wide<T>.
template <typename T> __device__ void axpy(const T* x, wide<T>* y, int64 n, wide<T> a) {
    constexpr int N = PACK<wide<T>>;
    for_packs<N>(n, aligned(x, y), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        wide<T> term[K], sum[K];
        load(term, x + at);
        load(sum, y + at);
#pragma unroll
        for (int i = 0; i < K; ++i) sum[i] += a * term[i];
        store(y + at, sum);
    });
}

// out <- source, rounded to nearest, ties to even; infinite beyond the range of T.
template <typename T>
__device__ void narrow(const wide<T>* source, T* out, int64 n) {
    constexpr int N = PACK<T>;
    for_packs<N>(n, aligned(source, out), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        wide<T> values[K];
        load(values, source + at);
        store(out + at, values);
    });
}

// out <- source, exactly
template <typename T>
__device__ void widen(const T* source, wide<T>* out, int64 n) {
    constexpr int N = PACK<wide<T>>;
    for_packs<N>(n, aligned(source, out), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        wide<T> values[K];
        load(values, source + at);
        store(out + at, values);
    });
}

// x <- a
template <typename T> __device__ void fill(T* x, int64 n, wide<T> a) {
    constexpr int N = PACK<T>;
    for_packs<N>(n, aligned(x), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        wide<T> values[K];
#pragma unroll
        for (int i = 0; i < K; ++i) values[i] = a;
        store(x + at, values);
    });
}

// out[i] <- the sum over r of parts[r, i], in that order, rounded to T at the end;
// `count` rows of n elements.
template <typename T>
__device__ void row_sum(const T* parts, int64 count, T* out, int64 n) {
    constexpr int N = PACK<T>;
    for_packs<N>(n, n % N == 0 && aligned(parts, out), [&](int64 at, auto count_) {
        constexpr int K = decltype(count_)::value;
        wide<T> sum[K], term[K];
        load(sum, parts + at);
        // Not unrolled: compilers would use more registers than full occupancy allows,
        // and some would spill. One pack in flight for each of 2048 threads saturates
        // memory.
#pragma unroll 1
        for (int64 r = 1; r < count; ++r) {
            load(term, parts + r * n + at);
#pragma unroll
            for (int i = 0; i < K; ++i) sum[i] += term[i];
        }
        store(out + at, sum);
    });
}

// out[i] <- source[rows[i]], for k rows of `units` accesses of type U. Each row index
// is read by as many threads as the row has units: from cache, except the first time.
template <typename U>
__device__ void take_rows(const U* source, const int64* rows, U* out, int64 k,
                          int64 units) {
    if (k == 0 || units == 0) return;
    int64 row = first_index() / units, unit = first_index() % units;
    const int64 row_hop = hop() / units, unit_hop = hop() % units;
#pragma unroll 1
    for (int64 i = first_index(); i < k * units; i += hop()) {
        out[i] = source[rows[row] * units + unit];
        row += row_hop;
        unit += unit_hop;
        if (unit >= units) {
            unit -= units;
            ++row;
        }
    }
}

#define TAKE_ROWS(BYTES, U)                                                            \
    extern "C" __global__ void __launch_bounds__(256) take_rows_##BYTES(               \
        const U* source, const int64* rows, U* out, int64 k, int64 units) {            \
        take_rows<U>(source, rows, out, k, units);                                     \
    }

TAKE_ROWS(16, uint4)
TAKE_ROWS(8, uint2)
TAKE_ROWS(4, unsigned)
TAKE_ROWS(2, unsigned short)

#define ARRAYS(SUFFIX, T)                                                              \
    extern "C" __global__ void __launch_bounds__(256) scale_##SUFFIX(                  \
        T* x, int64 n, wide<T> a) {                                                    \
        scale<T>(x, n, a);                                                             \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) axpy_##SUFFIX(                   \
        const T* x, wide<T>* y, int64 n, wide<T> a) {                                  \
        axpy<T>(x, y, n, a);                                                           \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) fill_##SUFFIX(                   \
        T* x, int64 n, wide<T> a) {                                                    \
        fill<T>(x, n, a);                                                              \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) row_sum_##SUFFIX(                \
        const T* parts, int64 count, T* out, int64 n) {                                \
        row_sum<T>(parts, count, out, n);                                              \
    }

#define CONVERSIONS(SUFFIX, T)                                                         \
    extern "C" __global__ void __launch_bounds__(256) narrow_##SUFFIX(                 \
        const wide<T>* source, T* out, int64 n) {                                      \
        narrow<T>(source, out, n);                                                     \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) widen_##SUFFIX(                  \
        const T* source, wide<T>* out, int64 n) {                                      \
        widen<T>(source, out, n);                                                      \
    }

FOR_TYPES(ARRAYS)
FOR_HALVES(CONVERSIONS)
