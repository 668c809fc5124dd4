// Shared by all kernels: types, 16-byte accesses, sums in a fixed order.
// backends/cuda/sources.py replaces the #include of this file by its text.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

using int64 = long long;

// DEFINE(suffix, T) for each type of elements, or for one type if ONLY_... is defined,
// because NVRTC takes half a second per kernel.
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

// Arithmetic on elements of type T is done in wide<T>: half precision is for storage
// only.
template <typename T> struct Wide { using type = float; };
template <> struct Wide<double> { using type = double; };
template <typename T> using wide = typename Wide<T>::type;

// Elements of T in a 16-byte access, the widest there is. In kernels on both halves and
// floats, a thread takes PACK<wide<T>>: with eight elements, the two stores to a float
// array would each leave gaps, which costs a fifth of the memory bandwidth.
template <typename T> constexpr int PACK = 16 / sizeof(T);

// Whether all addresses are multiples of 16, or null, as those accesses require.
template <typename... T>
__device__ __forceinline__ bool aligned(const T*... addresses) {
    return ((reinterpret_cast<unsigned long long>(addresses) | ...) & 15) == 0;
}

// A type of the given number of bytes.
template <int BYTES> struct Raw;
template <> struct Raw<1> { using type = unsigned char; };
template <> struct Raw<2> { using type = unsigned short; };
template <> struct Raw<4> { using type = unsigned; };
template <> struct Raw<8> { using type = uint2; };
template <> struct Raw<16> { using type = uint4; };

// Elements of T per access to N consecutive elements at an aligned address: 16 bytes,
// or all N if they take fewer.
template <int N, typename T> constexpr int AT_ONCE = N < PACK<T> ? N : PACK<T>;

// Read N elements; the address must be aligned unless N is 1.
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

// Read N elements and convert them to wide<T>.
template <int N, typename T>
__device__ __forceinline__ void load(wide<T> (&to)[N], const T* from) {
    T kept[N];
    read(kept, from);
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = static_cast<wide<T>>(kept[i]);
}

// Round N elements to T, to nearest, ties to even, and write them.
template <int N, typename T>
__device__ __forceinline__ void store(T* to, const wide<T> (&from)[N]) {
    T kept[N];
#pragma unroll
    for (int i = 0; i < N; ++i) kept[i] = static_cast<T>(from[i]);
    write(to, kept);
}

// First index and stride of a thread in a grid-stride loop.
__device__ __forceinline__ int64 first_index() {
    return static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64 hop() {
    return static_cast<int64>(gridDim.x) * blockDim.x;
}

// Call body(at, Count<N>) for each pack of N elements from `at`, if `whole`, then
// body(at, Count<1>) for each remaining element.
template <int N> struct Count { static constexpr int value = N; };

template <int N, typename Body>
__device__ __forceinline__ void for_packs(int64 n, bool whole, Body body) {
    const int64 n_packs = whole ? n / N : 0;
    // Not unrolled: Adam would need more registers than sm_120 has, and spill.
#pragma unroll 1
    for (int64 i = first_index(); i < n_packs; i += hop()) body(i * N, Count<N>{});
#pragma unroll 1
    for (int64 i = n_packs * N + first_index(); i < n; i += hop()) body(i, Count<1>{});
}

// The sum over a block's threads, valid in thread 0. The order depends only on the size
// of the block, so the bits are the same each time. Call it once per kernel.
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
