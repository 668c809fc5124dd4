// Losses at the output. Each overwrites the outputs by the gradient of the loss sum,
// and leaves a block's share of that sum, in double, in partials[block]; sum_finish
// adds them up. T is the type of the outputs, weights and targets are wide<T>; weights
// may be null, for 1.

#include "common.cuh"

// For logits being looked at one after the other: the largest, and the sum of
// exp(logit - largest) over them (M. Milakov and N. Gimelshein, "Online normalizer
// calculation for softmax", 2018, arXiv:1805.02867).
template <typename C> struct Softmax {
    C top, sum;

    __device__ void add(C z) {
        if (z > top) {
            sum = sum * exp(top - z) + C(1);
            top = z;
        } else {
            sum += z == top ? C(1) : exp(z - top);  // -inf may be the largest so far
        }
    }

    __device__ void add(const Softmax& other) {
        const C larger = other.top > top ? other.top : top;
        sum = rescaled(larger) + other.rescaled(larger);
        top = larger;
    }

    __device__ C rescaled(C larger) const {
        return top == larger ? sum : sum * exp(top - larger);
    }
};

// What all threads of a row have together: groups of `width` threads, a power of two
// up to the size of the block, share a row each. All threads of the block take part.
template <typename C>
__device__ Softmax<C> over_row(Softmax<C> mine, int width) {
    for (int away = min(width, WARP) / 2; away > 0; away /= 2) {
        const Softmax<C> other = {__shfl_xor_sync(ALL_LANES, mine.top, away),
                                  __shfl_xor_sync(ALL_LANES, mine.sum, away)};
        mine.add(other);
    }
    if (width <= WARP) return mine;
    __shared__ C tops[WARP];
    __shared__ C sums[WARP];
    const int warp = threadIdx.x / WARP, n_warps = width / WARP;
    if (threadIdx.x % WARP == 0) {
        tops[warp] = mine.top;
        sums[warp] = mine.sum;
    }
    __syncthreads();
    const int first = warp / n_warps * n_warps;
    mine = {tops[first], sums[first]};
    for (int i = first + 1; i < first + n_warps; ++i) mine.add({tops[i], sums[i]});
    __syncthreads();  // before the next row's are written
    return mine;
}

// sum_i w_i (log sum_j exp(z_ij) - z_iy), z_ij <- w_i (softmax(z_i)_j - [j = y_i]).
// Logits are read from memory once for both sums of a row, and once more, from cache,
// for the gradient. A label outside [0, c) is no class: the host has looked for such.
template <typename T>
__device__ void softmax(T* logits, const int64* labels, const wide<T>* weights,
                        int64 k, int64 c, int width, double* partials) {
    using C = wide<T>;
    const int lane = threadIdx.x % width, rows_at_once = blockDim.x / width;
    const int64 step = static_cast<int64>(gridDim.x) * rows_at_once;
    double total = 0.0;
    // All threads of a block go round as often: they meet in over_row.
    for (int64 start = static_cast<int64>(blockIdx.x) * rows_at_once; start < k;
         start += step) {
        const int64 row = start + threadIdx.x / width;
        T* z = logits + row * c;
        Softmax<C> found = {log(C(0)), C(0)};  // NVRTC has no name for infinity
        if (row < k) {
#pragma unroll 1  // else sm_120 spills
            for (int64 j = lane; j < c; j += width) found.add(static_cast<C>(z[j]));
        }
        found = over_row(found, width);
        if (row >= k) continue;
        const C w = weights == nullptr ? C(1) : weights[row];
        const C sum = found.sum + (found.top - found.top);  // NaN where infinite
        const C scale = w / sum;
        const int64 label = labels[row];
#pragma unroll 1
        for (int64 j = lane; j < c; j += width) {
            const C below = static_cast<C>(z[j]) - found.top;
            C slope = exp(below) * scale;
            if (j == label) {
                total += w * (log(static_cast<double>(sum)) - below);
                slope -= w;
            }
            z[j] = static_cast<T>(slope);
        }
    }
    total = block_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// sum_i w_i (log(1 + exp(z_i)) - y_i z_i), z_i <- w_i (1 / (1 + exp(-z_i)) - y_i), by
// exp(-|z|) alone, which never overflows.
template <typename T>
__device__ void logistic(T* logits, const wide<T>* labels, const wide<T>* weights,
                         int64 k, double* partials) {
    using C = wide<T>;
    double total = 0.0;
    for (int64 i = first_index(); i < k; i += hop()) {
        const C z = static_cast<C>(logits[i]), y = labels[i];
        const C w = weights == nullptr ? C(1) : weights[i];
        const C small = exp(-fabs(z));
        // The difference is exact, as y is 0 or 1.
        total += w * (log1p(small) + ((z > C(0) ? z : C(0)) - y * z));
        const C sigmoid = (z >= C(0) ? C(1) : small) / (C(1) + small);
        logits[i] = static_cast<T>(w * (sigmoid - y));
    }
    total = block_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// sum_i w_i / 2 sum_j (h_ij - y_ij)^2, h_ij <- w_i (h_ij - y_ij), for k rows of t.
template <typename T>
__device__ void squares(T* outputs, const wide<T>* targets, const wide<T>* weights,
                        int64 k, int64 t, double* partials) {
    using C = wide<T>;
    double total = 0.0;
    for (int64 i = first_index(); i < k * t; i += hop()) {
        const C error = static_cast<C>(outputs[i]) - targets[i];
        const C w = weights == nullptr ? C(1) : weights[i / t];
        total += 0.5 * w * (static_cast<double>(error) * error);
        outputs[i] = static_cast<T>(w * error);
    }
    total = block_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// found[0] <- the sum of the partials. One block.
extern "C" __global__ void __launch_bounds__(256)
sum_finish(const double* partials, int count, double* found) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) found[0] = sum;
}

#define LOSSES(SUFFIX, T)                                                              \
    extern "C" __global__ void __launch_bounds__(256) softmax_##SUFFIX(                \
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
