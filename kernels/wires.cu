// Wire formats of fewer bits, with error feedback, as in backends/numpy/wires.py. C is
// float or double. 256 elements share a scale; a warp takes them, 8 elements per lane.

#include "common.cuh"

constexpr int WIDTH = 256;
constexpr int EACH = WIDTH / WARP;
// Limits of the scales, as in numpy/wires.py.
constexpr float LEAST = 0x1p-119f;
constexpr int HALF_TOP = 15, HALF_LEAST = -112, HALF_MOST = 113;

// Conversions to the bits of the nearest bfloat16 (float16, int8), and back.
struct Bf16 {
    template <typename C> static __device__ unsigned short code(C x) {
        const __nv_bfloat16 rounded = __float2bfloat16_rn(static_cast<float>(x));
        unsigned short bits;
        memcpy(&bits, &rounded, sizeof bits);
        return bits;
    }
    static __device__ float number(unsigned short bits) {
        __nv_bfloat16 x;
        memcpy(&x, &bits, sizeof bits);
        return static_cast<float>(x);
    }
};
struct Fp16 {
    using Code = unsigned short;
    template <typename C> static __device__ Code code(C x) {
        const __half rounded = __float2half_rn(static_cast<float>(x));
        Code bits;
        memcpy(&bits, &rounded, sizeof bits);
        return bits;
    }
    static __device__ float number(Code bits) {
        __half x;
        memcpy(&x, &bits, sizeof bits);
        return static_cast<float>(x);
    }
    // A power of two that scales the maximum of the group into [2^14, 2^15).
    template <typename C> static __device__ float scale(C top) {
        if (!isfinite(top)) return nanf("");
        int exponent = 0;
        frexp(top, &exponent);
        exponent -= HALF_TOP;
        if (exponent > HALF_MOST) return nanf("");
        return ldexp(1.0f, max(exponent, HALF_LEAST));
    }
};
struct Int8 {
    using Code = signed char;
    template <typename C> static __device__ Code code(C x) {
        return static_cast<Code>(rint(x));
    }
    static __device__ float number(Code code) { return code; }
    template <typename C> static __device__ float scale(C top) {
        const float scale = static_cast<float>(top / C(127));
        if (!isfinite(scale)) return nanf("");
        return scale < LEAST ? 0.0f : scale;
    }
};

// codes <- values + residual in bfloat16, residual <- the rounding error. Reads values
// and residual, writes residual and codes.
template <typename C>
__device__ void pack_bf16(const C* values, C* residual, unsigned short* codes,
                          int64 n) {
    constexpr int N = PACK<C>;
    for_packs<N>(n, aligned(values, residual, codes), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        C x[K], left[K];
        unsigned short code[K];
        read(x, values + at);
        read(left, residual + at);
#pragma unroll
        for (int i = 0; i < K; ++i) {
            x[i] += left[i];
            code[i] = Bf16::code(x[i]);
            // For double, includes the error of rounding to float first.
            left[i] = x[i] - static_cast<C>(Bf16::number(code[i]));
            if (!isfinite(left[i])) left[i] = C(0);
        }
        write(residual + at, left);
        write(codes + at, code);
    });
}

// The same with a scale for each WIDTH elements; a group with a non-finite element
// becomes NaN as a whole. Reads values and residual, writes residual, codes, scales.
template <typename How, typename C>
__device__ void pack_scaled(const C* values, C* residual, typename How::Code* codes,
                            float* scales, int64 n) {
    const int lane = threadIdx.x % WARP;
    const int64 n_groups = (n + WIDTH - 1) / WIDTH, n_warps = hop() / WARP;
    for (int64 group = first_index() / WARP; group < n_groups; group += n_warps) {
        C x[EACH], top = C(0);
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int64 at = group * WIDTH + i * WARP + lane;
            x[i] = at < n ? residual[at] + values[at] : C(0);
            const C size = fabs(x[i]);
            if (size > top || isnan(size)) top = size;  // NaN is kept
        }
        for (int away = WARP / 2; away > 0; away /= 2) {
            const C other = __shfl_xor_sync(ALL_LANES, top, away);
            if (other > top || isnan(other)) top = other;
        }
        const float scale = How::scale(top);
        const bool wrong = isnan(scale);
        const C factor = wrong ? C(0) : static_cast<C>(scale);
        const C inverse = factor > C(0) ? C(1) / factor : C(0);
        if (lane == 0) scales[group] = scale;
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int64 at = group * WIDTH + i * WARP + lane;
            if (at >= n) continue;
            const C value = wrong ? C(0) : x[i];
            const auto code = How::code(value * inverse);
            codes[at] = code;
            residual[at] = value - static_cast<C>(How::number(code)) * factor;
        }
    }
}

// out <- the decoded values, plus out if `add`. Reads codes and scales (and out),
// writes out. Null scales mean 1.
template <typename How, typename Code, typename C>
__device__ void unpack(const Code* codes, const float* scales, C* out, int64 n,
                       int add) {
    constexpr int N = PACK<C>;  // divides WIDTH, so a pack lies in one group
    for_packs<N>(n, aligned(codes, out), [&](int64 at, auto count) {
        constexpr int K = decltype(count)::value;
        Code code[K];
        C sum[K] = {};
        read(code, codes + at);
        if (add) read(sum, out + at);
        const C scale = scales == nullptr ? C(1) : static_cast<C>(scales[at / WIDTH]);
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const C x = static_cast<C>(How::number(code[i])) * scale;
            sum[i] = add ? sum[i] + x : x;
        }
        write(out + at, sum);
    });
}

#define SCALED(NAME, SUFFIX, C, How)                                                   \
    extern "C" __global__ void __launch_bounds__(256) pack_##NAME##_##SUFFIX(          \
        const C* values, C* residual, How::Code* codes, float* scales, int64 n) {      \
        pack_scaled<How, C>(values, residual, codes, scales, n);                       \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) unpack_##NAME##_##SUFFIX(        \
        const How::Code* codes, const float* scales, C* out, int64 n, int add) {       \
        unpack<How>(codes, scales, out, n, add);                                       \
    }
#define WIRES(SUFFIX, C)                                                               \
    extern "C" __global__ void __launch_bounds__(256) pack_bf16_##SUFFIX(              \
        const C* values, C* residual, unsigned short* codes, float* scales, int64 n) { \
        pack_bf16<C>(values, residual, codes, n);                                      \
    }                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) unpack_bf16_##SUFFIX(            \
        const unsigned short* codes, const float* scales, C* out, int64 n, int add) {  \
        unpack<Bf16, unsigned short>(codes, nullptr, out, n, add);                     \
    }                                                                                  \
    SCALED(fp16, SUFFIX, C, Fp16)                                                      \
    SCALED(int8, SUFFIX, C, Int8)

FOR_WHOLE(WIRES)
