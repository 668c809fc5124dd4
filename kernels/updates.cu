// Updates of a flat block of parameters, and the norm of its gradient.
//
// C is the type of parameters and state, G that of the gradient. The host computes
// the scalars in double, because 1.0f - 0.999f has a relative error of 1.3e-5.

#include "common.cuh"

// Alternating runs of weights and of biases: `ends` has the end of each run, exclusive;
// the last is the end of the block. Penalties apply to weights. Null means that all are
// weights. A pack lies in one run, because tensors begin at multiples of 8 elements.
class Runs {
  public:
    __device__ Runs(const int64* ends, bool weights_first)
        : ends_(ends), end_(ends == nullptr ? INT64_END : *ends),
          weights_(ends == nullptr || weights_first) {}

    // Whether element i is a weight. i must not decrease between calls, so that a
    // thread walks through the runs once.
    __device__ bool weight_at(int64 i) {
        while (i >= end_) {
            end_ = *++ends_;
            weights_ = !weights_;
        }
        return weights_;
    }

  private:
    static constexpr int64 INT64_END = 0x7fffffffffffffff;
    const int64* ends_;
    int64 end_;
    bool weights_;
};

// Turns the sum of gradients into g = scale grad + l2 p.
template <typename C> struct Gradient {
    C scale, l2, coupled;

    // Return false if the gradient is not usable: its norm is not finite, or too large.
    // `factor`, from norm_finish, clips; weight decay (`coupled`) is not clipped.
    __device__ bool prepare(const double* factor) {
        if (factor != nullptr) {
            if (isnan(*factor)) return false;
            scale = static_cast<C>(scale * *factor);
            l2 = static_cast<C>(l2 * *factor);
        }
        l2 += coupled;
        return true;
    }

    __device__ C operator()(C grad, C p, bool is_weight) const {
        return is_weight ? scale * grad + l2 * p : scale * grad;
    }
};

// p <- p - rate g, or with momentum mu: v <- mu v + g, p <- p - rate v, or Nesterov's
// p <- p - rate (g + mu v). Reads grad and p (and v), writes p (and v).
template <bool MOMENTUM, typename C, typename G>
__device__ void sgd(C* params, const G* grad, C* velocity, G* copy, int64 n, C rate,
                    C mu, bool nesterov, Gradient<C> gradient, const double* factor,
                    Runs runs) {
    if (!gradient.prepare(factor)) return;
    constexpr int N = PACK<C>;
    for_packs<N>(n, aligned(params, grad, velocity, copy), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        C p[K], g[K], v[K];
        load(p, params + at);
        load(g, grad + at);
        if constexpr (MOMENTUM) load(v, velocity + at);
        const bool is_weight = runs.weight_at(at);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            C step = gradient(g[k], p[k], is_weight);
            if constexpr (MOMENTUM) {
                v[k] = mu * v[k] + step;
                step = nesterov ? step + mu * v[k] : v[k];
            }
            p[k] -= rate * step;
        }
        store(params + at, p);
        if constexpr (MOMENTUM) store(velocity + at, v);
        if constexpr (sizeof(G) < sizeof(C)) {
            if (copy != nullptr) store(copy + at, p);
        }
    });
}

// Adam (Kingma and Ba 2015, algorithm 1) and AdamW (Loshchilov and Hutter 2019), with
// the bias corrections in rate and floor (AdamScalars in backends/scalars.py):
// m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2,
// p <- keep p - rate m / (sqrt(v) + floor). Reads grad, p, m, v, writes p, m, v.
template <typename C> struct Adam { C beta1, rest1, beta2, rest2, rate, floor, keep; };

template <typename C, typename G>
__device__ void adam(C* params, const G* grad, C* m, C* v, G* copy, int64 n, Adam<C> s,
                     Gradient<C> gradient, const double* factor, Runs runs) {
    if (!gradient.prepare(factor)) return;
    constexpr int N = PACK<C>;
    for_packs<N>(n, aligned(params, grad, m, v, copy), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        C p[K], g[K], first[K], second[K];
        load(g, grad + at);
        load(p, params + at);
        load(first, m + at);
        load(second, v + at);
        const bool is_weight = runs.weight_at(at);
        const C keep = is_weight ? s.keep : C(1);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const C d = gradient(g[k], p[k], is_weight);
            first[k] = s.beta1 * first[k] + s.rest1 * d;
            second[k] = s.beta2 * second[k] + s.rest2 * d * d;
            p[k] = keep * p[k] - s.rate * first[k] / (sqrt(second[k]) + s.floor);
        }
        store(params + at, p);
        store(m + at, first);
        store(v + at, second);
        if constexpr (sizeof(G) < sizeof(C)) {
            if (copy != nullptr) store(copy + at, p);
        }
    });
}

// AdaGrad (Duchi, Hazan and Singer 2011): q <- q + g^2, p <- p - rate g / (sqrt(q) +
// floor). Reads grad, p, q, writes p, q.
template <typename C, typename G>
__device__ void adagrad(C* params, const G* grad, C* squares, G* copy, int64 n, C rate,
                        C floor, Gradient<C> gradient, const double* factor,
                        Runs runs) {
    if (!gradient.prepare(factor)) return;
    constexpr int N = PACK<C>;
    for_packs<N>(n, aligned(params, grad, squares, copy), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        C p[K], g[K], q[K];
        load(p, params + at);
        load(g, grad + at);
        load(q, squares + at);
        const bool is_weight = runs.weight_at(at);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const C d = gradient(g[k], p[k], is_weight);
            q[k] += d * d;
            p[k] -= rate * d / (sqrt(q[k]) + floor);
        }
        store(params + at, p);
        store(squares + at, q);
        if constexpr (sizeof(G) < sizeof(C)) {
            if (copy != nullptr) store(copy + at, p);
        }
    });
}

// partials[b] <- block b's share of the sum of (scale grad + l2 p)^2 over weights and
// (bias_scale grad)^2 over biases, in double. p is not read if l2 is 0.
template <typename C, typename G>
__device__ void norm_partials(const G* grad, const C* params, int64 n, C scale, C l2,
                              C bias_scale, Runs runs, double* partials) {
    double sum = 0.0;
    constexpr int N = PACK<G>;
    for_packs<N>(n, aligned(grad, params), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        C g[K], p[K] = {};
        load(g, grad + at);
        if (l2 != C(0)) load(p, params + at);
        const bool is_weight = runs.weight_at(at);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const double d = is_weight ? scale * g[k] + l2 * p[k] : bias_scale * g[k];
            sum += d * d;
        }
    });
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// found[0] <- the sum of the partials: |g|^2. found[1] <- the factor for an update: NaN
// (no update) unless |g|^2 <= limit; else the factor that clips |g| to `clip` (0: no
// clipping). Launch one block.
extern "C" __global__ void __launch_bounds__(256)
norm_finish(const double* partials, int count, double limit, double clip,
            double* found) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    const double norm = sqrt(sum);
    found[0] = sum;
    found[1] = clip > 0.0 && norm > clip ? clip / norm : 1.0;
    if (!(sum <= limit)) found[1] = nan("");
}

#define UPDATES(SUFFIX, T)                                                             \
    extern "C" __global__ void __launch_bounds__(256) sgd_##SUFFIX(                    \
        wide<T>* params, const T* grad, T* copy, int64 n, wide<T> rate,                \
        wide<T> scale, wide<T> l2, wide<T> coupled, const double* factor,              \
        const int64* ends, int weights_first) {                                        \
        sgd<false, wide<T>, T>(params, grad, nullptr, copy, n, rate, wide<T>(0),       \
                               false, {scale, l2, coupled}, factor,                    \
                               {ends, weights_first != 0});                            \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) momentum_##SUFFIX(               \
        wide<T>* params, const T* grad, wide<T>* velocity, T* copy, int64 n,           \
        wide<T> rate, wide<T> mu, int nesterov, wide<T> scale, wide<T> l2,             \
        wide<T> coupled, const double* factor, const int64* ends, int weights_first) { \
        sgd<true, wide<T>, T>(params, grad, velocity, copy, n, rate, mu,               \
                              nesterov != 0, {scale, l2, coupled}, factor,             \
                              {ends, weights_first != 0});                             \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) adam_##SUFFIX(                   \
        wide<T>* params, const T* grad, wide<T>* m, wide<T>* v, T* copy, int64 n,      \
        wide<T> beta1, wide<T> rest1, wide<T> beta2, wide<T> rest2, wide<T> rate,      \
        wide<T> floor, wide<T> keep, wide<T> scale, wide<T> l2, wide<T> coupled,       \
        const double* factor, const int64* ends, int weights_first) {                  \
        adam<wide<T>, T>(params, grad, m, v, copy, n,                                  \
                         {beta1, rest1, beta2, rest2, rate, floor, keep},              \
                         {scale, l2, coupled}, factor, {ends, weights_first != 0});    \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) adagrad_##SUFFIX(                \
        wide<T>* params, const T* grad, wide<T>* squares, T* copy, int64 n,            \
        wide<T> rate, wide<T> floor, wide<T> scale, wide<T> l2, wide<T> coupled,       \
        const double* factor, const int64* ends, int weights_first) {                  \
        adagrad<wide<T>, T>(params, grad, squares, copy, n, rate, floor,               \
                            {scale, l2, coupled}, factor, {ends, weights_first != 0}); \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) norm_##SUFFIX(                   \
        const T* grad, const wide<T>* params, int64 n, wide<T> scale, wide<T> l2,      \
        wide<T> bias_scale, const int64* ends, int weights_first, double* partials) {  \
        norm_partials<wide<T>, T>(grad, params, n, scale, l2, bias_scale,              \
                                  {ends, weights_first != 0}, partials);               \
    }

FOR_TYPES(UPDATES)
