// What the kernels share: types, accesses of 16 bytes, sums in a fixed order.
// backends/sources.py puts this text in place of a source's #include of it.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

using int64 = long long;

// DEFINE(suffix, T) for each type of elements there is; for one of them where ONLY_...
// says so, since NVRTC takes half a second a kernel.
#if defined(ONLY_F32)
#define FOR_WHOLE(DEFINE) DEFINE(f32, float)
#define FOR_HALVES(DEFINE)
#elif defined(ONLY_F64)
#define FOR_WHOLE(DEFINE) DEFINE(f64, double)
#define FOR_HALVES(DEFINE)
#elif defined(ONLY_F16)
#define FOR_WHOLE(DEFINE)
#define FOR_HALVES(DEFINE) DEFINE(f16, __half)
#elif defined(ONLY_BF16)
#define FOR_WHOLE(DEFINE)
#define FOR_HALVES(DEFINE) DEFINE(bf16, __nv_bfloat16)
#else
#define FOR_WHOLE(DEFINE) DEFINE(f32, float) DEFINE(f64, double)
#define FOR_HALVES(DEFINE) DEFINE(f16, __half) DEFINE(bf16, __nv_bfloat16)
#endif
#define FOR_TYPES(DEFINE) FOR_WHOLE(DEFINE) FOR_HALVES(DEFINE)

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// Arithmetic on elements of type T is done in wide<T>: halves are for storage alone.
template <typename T> struct Wide { using type = float; };
template <> struct Wide<double> { using type = double; };
template <typename T> using wide = typename Wide<T>::type;

// Elements of T in one access of 16 bytes, the widest there is. Where halves are worked
// on beside floats, a thread takes PACK<wide<T>>: with eight, the two stores of a float
// array would each leave gaps, and a fifth of the memory's rate.
template <typename T> constexpr int PACK = 16 / sizeof(T);

// Whether all addresses (or null) are multiples of 16, as those accesses need.
template <typename... T>
__device__ __forceinline__ bool aligned(const T*... addresses) {
    return ((reinterpret_cast<unsigned long long>(addresses) | ...) & 15) == 0;
}

// What holds so many bytes.
template <int BYTES> struct Raw;
template <> struct Raw<1> { using type = unsigned char; };
template <> struct Raw<2> { using type = unsigned short; };
template <> struct Raw<4> { using type = unsigned; };
template <> struct Raw<8> { using type = uint2; };
template <> struct Raw<16> { using type = uint4; };

// Elements of T that one access takes where N of them lie together at an address that is
// aligned: 16 bytes, or less if there is no more.
template <int N, typename T> constexpr int AT_ONCE = N < PACK<T> ? N : PACK<T>;

// N elements from an address; aligned, unless it is a single one.
template <int N, typename T>
__device__ __forceinline__ void read(T (&to)[N], const T* from) {
    constexpr int EACH = AT_ONCE<N, T>;
    using Access = typename Raw<EACH * sizeof(T)>::type;
#pragma unroll
    for (int i = 0; i < N; i += EACH) {
        const Access raw = *reinterpret_cast<const Access*>(from + i);
        memcpy(to + i, &raw, sizeof raw);
    }
}

template <int N, typename T>
__device__ __forceinline__ void write(T* to, const T (&from)[N]) {
    constexpr int EACH = AT_ONCE<N, T>;
    using Access = typename Raw<EACH * sizeof(T)>::type;
#pragma unroll
    for (int i = 0; i < N; i += EACH) {
        Access raw;
        memcpy(&raw, from + i, sizeof raw);
        *reinterpret_cast<Access*>(to + i) = raw;
    }
}

// The same, converted to what arithmetic is done in.
template <int N, typename T>
__device__ __forceinline__ void load(wide<T> (&to)[N], const T* from) {
    T kept[N];
    read(kept, from);
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = static_cast<wide<T>>(kept[i]);
}

// The same, rounded to T: to nearest, ties to even.
template <int N, typename T>
__device__ __forceinline__ void store(T* to, const wide<T> (&from)[N]) {
    T kept[N];
#pragma unroll
    for (int i = 0; i < N; ++i) kept[i] = static_cast<T>(from[i]);
    write(to, kept);
}

// Where a thread begins and how far it hops, for loops that fit any grid.
__device__ __forceinline__ int64 first_index() {
    return static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64 hop() {
    return static_cast<int64>(gridDim.x) * blockDim.x;
}

// body(at, constant<N>): N elements from `at` on, in packs of N where `whole`, and one
// by one for what is left, or for all.
template <int N> struct Count { static constexpr int value = N; };

template <int N, typename Body>
__device__ __forceinline__ void for_packs(int64 n, bool whole, Body body) {
    const int64 n_packs = whole ? n / N : 0;
    // Unrolled, Adam needs more registers than there are on sm_120, and spills.
#pragma unroll 1
    for (int64 i = first_index(); i < n_packs; i += hop()) body(i * N, Count<N>{});
#pragma unroll 1
    for (int64 i = n_packs * N + first_index(); i < n; i += hop()) body(i, Count<1>{});
}

// The sum over a block's threads, complete in thread 0: in an order that depends on
// the size of the block alone, so with the same bits each time. To be called once.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double of_warps[WARP];
    for (int away = WARP / 2; away > 0; away /= 2)
        value += __shfl_down_sync(ALL_LANES, value, away);
    if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = value;
    __syncthreads();
    if (threadIdx.x < WARP) {
        value = threadIdx.x < blockDim.x / WARP ? of_warps[threadIdx.x] : 0.0;
        for (int away = WARP / 2; away > 0; away /= 2)
            value += __shfl_down_sync(ALL_LANES, value, away);
    }
    return value;
}
