// Losses at the output. Each kernel overwrites the outputs with the gradient of the
// loss sum, and writes each block's share of the sum, in double, to partials[block];
// sum_finish adds them up. T is the type of the outputs; weights and targets have type
// wide<T>. Null weights mean that all are 1.

#include "common.cuh"

// The lowest finite number, as initial maximum. With -inf, exp(top - larger) would be
// NaN for a thread without logits.
template <typename C> constexpr C LEAST = -0x1.fffffep127f;
template <> constexpr double LEAST<double> = -0x1.fffffffffffffp1023;

// Online softmax of logits that arrive in groups: their maximum, and the sum of
// exp(logit - maximum) (M. Milakov and N. Gimelshein, "Online normalizer
// calculation for softmax", 2018, arXiv:1805.02867). NaN if a logit is NaN or +inf.
template <typename C> struct Softmax {
    C top = LEAST<C>, sum = C(0);

    // Add the logits z of every `step`-th column, of which `left` columns remain.
    template <int N, typename T>
    __device__ void add(const T (&z)[N], int step, int left) {
        C larger = top;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (i * step >= left) break;
            const C one = static_cast<C>(z[i]);
            larger = one > larger ? one : larger;
        }
        sum *= exp(top - larger);
        top = larger;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (i * step >= left) break;
            sum += exp(static_cast<C>(z[i]) - top);
        }
    }
};

// Combine the Softmax of all threads of a row. Groups of `width` threads, a power of
// two up to the size of the block, share a row. All threads of the block must call it.
template <typename C>
__device__ Softmax<C> over_row(Softmax<C> mine, int width) {
    __shared__ C tops[WARP];
    __shared__ C sums[WARP];
    const int warp = threadIdx.x / WARP, n_warps = width / WARP;
    const int first = n_warps == 0 ? warp : warp / n_warps * n_warps;
    C top = mine.top;
    for (int away = min(width, WARP) / 2; away > 0; away /= 2) {
        const C other = __shfl_xor_sync(ALL_LANES, top, away);
        top = other > top ? other : top;
    }
    if (width > WARP) {
        if (threadIdx.x % WARP == 0) tops[warp] = top;
        __syncthreads();
        for (int i = first; i < first + n_warps; ++i) top = tops[i] > top ? tops[i] : top;
    }
    C sum = mine.sum * exp(mine.top - top);
    for (int away = min(width, WARP) / 2; away > 0; away /= 2)
        sum += __shfl_xor_sync(ALL_LANES, sum, away);
    if (width > WARP) {
        if (threadIdx.x % WARP == 0) sums[warp] = sum;
        __syncthreads();  // also, all threads have read the tops
        sum = C(0);
        for (int i = first; i < first + n_warps; ++i) sum += sums[i];
    }
    return {top, sum};
}

// Logits of a row that a thread holds in registers, all in flight from memory at once.
template <typename C> constexpr int LOGITS = 128 / sizeof(C);

// Load the logits of columns 0, step, 2 step, ..., of which `left` columns remain. Not
// converted here: each conversion would wait for its load before the next load starts.
template <int N, typename T>
__device__ __forceinline__ void load_logits(T (&to)[N], const T* from, int step,
                                            int left) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (i * step >= left) break;
        to[i] = from[i * step];
    }
}

// sum_i w_i (log sum_j exp(z_ij) - z_iy), z_ij <- w_i (softmax(z_i)_j - [j = y_i]).
// Rows of up to LOGITS width elements are read once; longer rows are read a second
// time, from cache, for the gradient. The host has checked that labels are in [0, c).
template <typename T>
__device__ void softmax(T* logits, const int64* labels, const wide<T>* weights,
                        int64 k, int64 c, int width, double* partials) {
    using C = wide<T>;
    const int lane = threadIdx.x % width, rows_at_once = blockDim.x / width;
    const int64 step = static_cast<int64>(gridDim.x) * rows_at_once;
    const int64 round = LOGITS<C> * width;
    double total = 0.0;
    // All threads of a block make the same number of rounds: over_row synchronises
    // them.
    for (int64 start = static_cast<int64>(blockIdx.x) * rows_at_once; start < k;
         start += step) {
        const int64 row = start + threadIdx.x / width;
        T* mine = logits + row * c + lane;
        Softmax<C> found;
        T z[LOGITS<C>];
        C w = C(1);
        int64 label = -1;
        if (row < k) {
            label = labels[row] - lane;
            if (weights != nullptr) w = weights[row];
#pragma unroll 1
            for (int64 j = 0; j < c; j += round) {
                const int left = static_cast<int>(min(c - j, round)) - lane;
                load_logits(z, mine + j, width, left);
                found.add(z, width, left);
            }
        }
        found = over_row(found, width);
        if (row >= k) continue;
        const C scale = w / found.sum;
        C of_label = C(0);
        bool has_label = false;
#pragma unroll 1
        for (int64 j = 0; j < c; j += round) {
            const int left = static_cast<int>(min(c - j, round)) - lane;
            if (c > round) load_logits(z, mine + j, width, left);
#pragma unroll
            for (int i = 0; i < LOGITS<C>; ++i) {
                if (i * width >= left) break;
                const C below = static_cast<C>(z[i]) - found.top;
                const bool right = i * width == label - j;
                const C slope = exp(below) * scale - (right ? w : C(0));
                of_label = right ? below : of_label;
                has_label |= right;
                mine[j + i * width] = static_cast<T>(slope);
            }
        }
        if (has_label) total += w * (log(found.sum) - of_label);
    }
    total = block_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// sum_i w_i (log(1 + exp(z_i)) - y_i z_i), z_i <- w_i (1 / (1 + exp(-z_i)) - y_i), from
// exp(-|z|) only, which never overflows.
template <typename T>
__device__ void logistic(T* logits, const wide<T>* labels, const wide<T>* weights,
                         int64 k, double* partials) {
    using C = wide<T>;
    double total = 0.0;
    constexpr int N = PACK<C>;
    for_packs<N>(k, aligned(logits, labels, weights), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        C z[K], y[K], w[K];
        load(z, logits + at);
        read(y, labels + at);
        if (weights != nullptr) read(w, weights + at);
#pragma unroll
        for (int i = 0; i < K; ++i) {
            if (weights == nullptr) w[i] = C(1);
            const C small = exp(-fabs(z[i]));
            // The difference is exact, because y is 0 or 1.
            total += w[i] * (log1p(small) + ((z[i] > C(0) ? z[i] : C(0)) - y[i] * z[i]));
            const C sigmoid = (z[i] >= C(0) ? C(1) : small) / (C(1) + small);
            z[i] = w[i] * (sigmoid - y[i]);
        }
        store(logits + at, z);
    });
    total = block_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// sum_i w_i / 2 sum_j (h_ij - y_ij)^2, h_ij <- w_i (h_ij - y_ij), for k rows of t
// outputs.
template <typename T>
__device__ void squares(T* outputs, const wide<T>* targets, const wide<T>* weights,
                        int64 k, int64 t, double* partials) {
    using C = wide<T>;
    double total = 0.0;
    constexpr int N = PACK<C>;
    for_packs<N>(k * t, aligned(outputs, targets), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        C h[K], y[K];
        load(h, outputs + at);
        read(y, targets + at);
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const C error = h[i] - y[i];
            const C w = weights == nullptr ? C(1) : weights[(at + i) / t];
            total += 0.5 * w * (static_cast<double>(error) * error);
            h[i] = w * error;
        }
        store(outputs + at, h);
    });
    total = block_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// found[0] <- the sum of the partials. Launch one block.
extern "C" __global__ void __launch_bounds__(256)
sum_finish(const double* partials, int count, double* found) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) found[0] = sum;
}

#define LOSSES(SUFFIX, T)                                                              \
    extern "C" __global__ void __launch_bounds__(256, 2) softmax_##SUFFIX(             \
        T* logits, const int64* labels, const wide<T>* weights, int64 k, int64 c,      \
        int width, double* partials) {                                                 \
        softmax<T>(logits, labels, weights, k, c, width, partials);                    \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) logistic_##SUFFIX(               \
        T* logits, const wide<T>* labels, const wide<T>* weights, int64 k,             \
        double* partials) {                                                            \
        logistic<T>(logits, labels, weights, k, partials);                             \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) squares_##SUFFIX(                \
        T* outputs, const wide<T>* targets, const wide<T>* weights, int64 k, int64 t,  \
        double* partials) {                                                            \
        squares<T>(outputs, targets, weights, k, t, partials);                         \
    }

FOR_TYPES(LOSSES)
