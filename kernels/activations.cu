// A layer's bias with its activation, their gradients, and the gradient of the bias.
// z, delta, out and pre are C-contiguous, of shape (k, w). All kernels work in place.

#include "common.cuh"

// gelu(x) = x/2 (1 + tanh(GELU_1 x + GELU_3 x^3)) (D. Hendrycks and K. Gimpel, 2016,
// arXiv:1606.08415, section 2), with GELU_1 = sqrt(2 / pi).
constexpr double GELU_1 = 0.79788456080286535588;
constexpr double GELU_3 = 0.044715 * GELU_1;

template <typename C> __device__ C gelu_tanh(C x) {
    return tanh((C(GELU_3) * x * x + C(GELU_1)) * x);
}

struct Identity {
    template <typename C> __device__ C operator()(C x) const { return x; }
};
struct Relu {  // NaN is kept; -0 becomes +0
    template <typename C> __device__ C operator()(C x) const {
        return x <= C(0) ? C(0) : x;
    }
};
struct Tanh {
    template <typename C> __device__ C operator()(C x) const { return tanh(x); }
};
struct Gelu {
    template <typename C> __device__ C operator()(C x) const {
        return C(0.5) * (C(1) + gelu_tanh(x)) * x;
    }
};

// z <- f(z + b), and pre <- z + b unless pre is null. Reads and writes z.
template <typename T, typename F>
__device__ void bias_map(T* z, const T* b, T* pre, int64 n, int64 w, F f) {
    if (n == 0) return;
    constexpr int N = PACK<T>;
    // A pack must not cross the end of a row, or its biases would not be contiguous.
    const bool whole = w % N == 0 && aligned(z, b, pre);
    // The column is carried along, because a division per access would take longer.
    int64 column = first_index() * (whole ? N : 1) % w;
    const int64 step = hop() * (whole ? N : 1) % w;
    for_packs<N>(n, whole, [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        wide<T> x[K], bias[K], y[K];
        load(x, z + at);
        load(bias, b + column);
#pragma unroll
        for (int i = 0; i < K; ++i) {
            x[i] += bias[i];
            y[i] = f(x[i]);
        }
        store(z + at, y);
        if (pre != nullptr) store(pre + at, x);
        column += step;
        if (column >= w) column -= w;
    });
}

struct ReluSlope {  // a factor of 0: as in NumPy, NaN times 0 is NaN
    template <typename C> __device__ C operator()(C out) const {
        return out > C(0) ? C(1) : C(0);
    }
};
struct TanhSlope {
    template <typename C> __device__ C operator()(C out) const {
        return C(1) - out * out;
    }
};
struct GeluSlope {  // (1 + t) / 2 (1 + x (1 - t) (c1 + 3 c3 x^2))
    template <typename C> __device__ C operator()(C x) const {
        const C t = gelu_tanh(x);
        const C inner = C(3.0 * GELU_3) * x * x + C(GELU_1);
        return C(0.5) * (C(1) + t) * (C(1) + x * (C(1) - t) * inner);
    }
};

// delta <- delta slope(kept). Reads both, writes delta.
template <typename T, typename F>
__device__ void slope_map(T* delta, const T* kept, int64 n, F slope) {
    constexpr int N = PACK<T>;
    for_packs<N>(n, aligned(delta, kept), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        wide<T> d[K], x[K];
        load(d, delta + at);
        load(x, kept + at);
#pragma unroll
        for (int i = 0; i < K; ++i) d[i] *= slope(x[i]);
        store(delta + at, d);
    });
}

constexpr int COLUMN_THREADS = 8;  // threads of a block that add up one column

// The sum over the threads of a lane, valid in those of turn 0. Call once per kernel.
template <typename C> __device__ C over_turns(C sum) {
    __shared__ C sums[COLUMN_THREADS][WARP];
    const int lane = threadIdx.x % WARP, turn = threadIdx.x / WARP;
    sums[turn][lane] = sum;
    __syncthreads();
    for (int i = 1; turn == 0 && i < COLUMN_THREADS; ++i) sum += sums[i][lane];
    return sum;
}

// partials[r, j] <- the sum of delta[., j] over rows r size to (r + 1) size - 1. Block
// (b, r) takes 32 columns with 8 threads each. With a single r, the sum goes to out.
template <typename T>
__device__ void column_partials(const T* delta, int64 k, int64 w, int64 size,
                                wide<T>* partials, T* out) {
    const int turn = threadIdx.x / WARP;
    const int64 column = static_cast<int64>(blockIdx.x) * WARP + threadIdx.x % WARP;
    const int64 start = blockIdx.y * size, stop = min(start + size, k);
    wide<T> sum = 0;
    if (column < w) {
#pragma unroll 8  // loads in flight
        for (int64 row = start + turn; row < stop; row += COLUMN_THREADS)
            sum += static_cast<wide<T>>(delta[row * w + column]);
    }
    sum = over_turns(sum);
    if (turn != 0 || column >= w) return;
    if (gridDim.y == 1) {
        out[column] = static_cast<T>(sum);
    } else {
        partials[blockIdx.y * w + column] = sum;
    }
}

// out[j] <- the sum over r of partials[r, j], in double; blocks as above.
template <typename T>
__device__ void column_finish(const wide<T>* partials, int64 count, int64 w, T* out) {
    const int turn = threadIdx.x / WARP;
    const int64 column = static_cast<int64>(blockIdx.x) * WARP + threadIdx.x % WARP;
    double sum = 0.0;
    if (column < w) {
#pragma unroll 8
        for (int64 r = turn; r < count; r += COLUMN_THREADS)
            sum += partials[r * w + column];
    }
    sum = over_turns(sum);
    if (turn == 0 && column < w) out[column] = static_cast<T>(static_cast<wide<T>>(sum));
}

#define BIAS(NAME, SUFFIX, T, F)                                                       \
    extern "C" __global__ void __launch_bounds__(256) bias_##NAME##_##SUFFIX(          \
        T* z, const T* b, T* pre, int64 n, int64 w) {                                  \
        bias_map(z, b, pre, n, w, F{});                                                \
    }
#define SLOPE(NAME, SUFFIX, T, F)                                                      \
    extern "C" __global__ void __launch_bounds__(256) NAME##_gradient_##SUFFIX(        \
        T* delta, const T* kept, int64 n) {                                            \
        slope_map(delta, kept, n, F{});                                                \
    }
#define ACTIVATIONS(SUFFIX, T)                                                         \
    BIAS(add, SUFFIX, T, Identity)                                                     \
    BIAS(relu, SUFFIX, T, Relu)                                                        \
    BIAS(tanh, SUFFIX, T, Tanh)                                                        \
    BIAS(gelu, SUFFIX, T, Gelu)                                                        \
    SLOPE(relu, SUFFIX, T, ReluSlope)                                                  \
    SLOPE(tanh, SUFFIX, T, TanhSlope)                                                  \
    SLOPE(gelu, SUFFIX, T, GeluSlope)                                                  \
    extern "C" __global__ void __launch_bounds__(256) column_partials_##SUFFIX(        \
        const T* delta, int64 k, int64 w, int64 size, wide<T>* partials, T* out) {     \
        column_partials<T>(delta, k, w, size, partials, out);                          \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) column_finish_##SUFFIX(          \
        const wide<T>* partials, int64 count, int64 w, T* out) {                       \
        column_finish<T>(partials, count, w, out);                                     \
    }

FOR_TYPES(ACTIVATIONS)
