// Runs CUDA kernels on the CPU, for tests: the unmodified sources are compiled by g++
// after this header. Blocks run one after the other; the threads of a block one after
// the other as well, each on a stack of its own from where it first waits for others.
//
// What it finds: barriers that not all threads reach, shuffles with lanes missing,
// shared memory that is read before it is written (it holds NaN), overruns (with
// AddressSanitizer), misaligned accesses (with UndefinedBehaviorSanitizer). What it
// cannot show: data races between threads, memory ordering, speed.

#pragma once

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ucontext.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_types.h>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

// Device code finds these for every floating-point type without a namespace.
using std::exp;
using std::fabs;
using std::frexp;
using std::isfinite;
using std::isnan;
using std::ldexp;
using std::log;
using std::log1p;
using std::max;
using std::min;
using std::rint;
using std::sqrt;
using std::tanh;

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace cuda_cpu {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 96 * 1024;

enum class State { FRESH, READY, AT_BARRIER, AT_SHUFFLE, DONE };

// A stack that threads run on: one after the other, until one of them has to wait.
struct Fiber {
    std::unique_ptr<char[]> stack{new char[STACK]};
    ucontext_t context;
    jmp_buf resume;
    bool started = false;
};

struct Thread {
    State state = State::FRESH;
    Fiber* fiber = nullptr;
    unsigned mask = 0;     // of the shuffle that it waits in
    unsigned shuffles = 0; // so far: their parity chooses the slot
};

struct Slots {  // what the lanes of a warp show each other
    unsigned long long value[2][WARP];
};

// Shared memory of one declaration; it begins as NaN in each block.
struct Shared {
    explicit Shared(size_t bytes) : size(bytes), memory(new char[bytes]) {
        all().push_back(this);
    }
    static std::vector<Shared*>& all() {
        static std::vector<Shared*> declared;
        return declared;
    }
    size_t size;
    std::unique_ptr<char[]> memory;  // on the heap, where AddressSanitizer sees its ends
};

template <typename Array, int SITE> Array& shared() {
    static Shared declared(sizeof(Array));
    return *reinterpret_cast<Array*>(declared.memory.get());
}

class Block {
  public:
    void run(void (*call)(void*), void* argument, bool reverse) {
        call_ = call;
        argument_ = argument;
        reverse_ = reverse;
        const unsigned n = blockDim.x * blockDim.y * blockDim.z;
        threads_.assign(n, Thread{});
        slots_.resize((n + WARP - 1) / WARP);
        for (Shared* one : Shared::all()) memset(one->memory.get(), 0xff, one->size);
        begun_ = done_ = 0;
        while (done_ < n && error.empty()) {
            if (!pass()) release_barrier();
        }
        for (auto& fiber : fibers_) idle_.push_back(fiber.get());
        if (!error.empty()) fibers_.clear(), idle_.clear();  // some are in the middle
        else dedupe_idle();
    }

    void barrier() { wait(State::AT_BARRIER); }

    unsigned long long shuffle(unsigned mask, unsigned long long value, unsigned lane) {
        Thread& own = threads_[current_];
        const unsigned warp = current_ / WARP, parity = own.shuffles++ & 1;
        Slots& slots = slots_[warp];
        slots.value[parity][current_ % WARP] = value;
        own.mask = mask;
        if (!(mask >> current_ % WARP & 1)) fail("a lane that its own mask leaves out");
        if (!all_arrived(warp, mask)) {
            wait(State::AT_SHUFFLE);
        } else {
            for (unsigned i = 0; i < WARP; ++i) {
                if (mask >> i & 1 && warp * WARP + i != current_)
                    threads_[warp * WARP + i].state = State::READY;
            }
        }
        return mask >> lane & 1 ? slots.value[parity][lane] : ~0ull;
    }

    std::string error;

  private:
    // Let each thread that can go on do so; returns whether any did.
    bool pass() {
        bool any = false;
        const unsigned n = threads_.size();
        for (unsigned i = 0; i < n && error.empty(); ++i) {
            const unsigned t = reverse_ ? n - 1 - i : i;
            Thread& thread = threads_[t];
            if (thread.state == State::READY) {
                any = true;
                enter(thread.fiber, t);
            } else if (thread.state == State::FRESH) {
                any = true;
                enter(free_fiber(), t);
            }
        }
        return any;
    }

    void release_barrier() {
        unsigned waiting = 0;
        for (Thread& thread : threads_) waiting += thread.state == State::AT_BARRIER;
        if (waiting == threads_.size()) {
            for (Thread& thread : threads_) thread.state = State::READY;
            return;
        }
        error = "barrier divergence: " + std::to_string(waiting) + " of " +
                std::to_string(threads_.size()) + " threads at __syncthreads, " +
                std::to_string(done_) + " have returned, the others wait in a shuffle";
    }

    bool all_arrived(unsigned warp, unsigned mask) const {
        for (unsigned i = 0; i < WARP; ++i) {
            if (!(mask >> i & 1)) continue;
            const unsigned t = warp * WARP + i;
            if (t == current_) continue;
            if (t >= threads_.size()) return false;
            const Thread& other = threads_[t];
            if (other.state != State::AT_SHUFFLE || other.mask != mask) return false;
        }
        return true;
    }

    Fiber* free_fiber() {
        if (idle_.empty()) {
            fibers_.emplace_back(new Fiber);
            return fibers_.back().get();
        }
        Fiber* fiber = idle_.back();
        idle_.pop_back();
        return fiber;
    }

    void dedupe_idle() {
        std::sort(idle_.begin(), idle_.end());
        idle_.erase(std::unique(idle_.begin(), idle_.end()), idle_.end());
    }

    void place(unsigned t) {
        current_ = t;
        threadIdx.x = t % blockDim.x;
        threadIdx.y = t / blockDim.x % blockDim.y;
        threadIdx.z = t / (blockDim.x * blockDim.y);
    }

    static void start() { instance().live(); }

    // The life of a fiber: it runs its thread to the end, then gives itself back.
    void live() {
        for (;;) {
            Fiber* own = running_;
            call_(argument_);
            threads_[current_].state = State::DONE;
            ++done_;
            idle_.push_back(own);
            leave(own);
        }
    }

    void wait(State state) {
        threads_[current_].state = state;
        const unsigned t = current_;
        leave(threads_[t].fiber);
        place(t);
    }

    [[noreturn]] void fail(const char* what) {
        error = what;
        leave(running_);
        abort();
    }

    // swapcontext saves the signal mask by a system call; longjmp takes nanoseconds,
    // but AddressSanitizer follows the former alone.
    void enter(Fiber* fiber, unsigned t) {
        threads_[t].fiber = running_ = fiber;
        place(t);
        if (!fiber->started) {
            fiber->started = true;
            getcontext(&fiber->context);
            fiber->context.uc_stack.ss_sp = fiber->stack.get();
            fiber->context.uc_stack.ss_size = STACK;
            fiber->context.uc_link = nullptr;
            makecontext(&fiber->context, start, 0);
#ifndef __SANITIZE_ADDRESS__
            if (_setjmp(home_) == 0) setcontext(&fiber->context);
            return;
#endif
        }
#ifdef __SANITIZE_ADDRESS__
        swapcontext(&home_context_, &fiber->context);
#else
        if (_setjmp(home_) == 0) _longjmp(fiber->resume, 1);
#endif
    }

    void leave(Fiber* fiber) {
#ifdef __SANITIZE_ADDRESS__
        swapcontext(&fiber->context, &home_context_);
#else
        if (_setjmp(fiber->resume) == 0) _longjmp(home_, 1);
#endif
    }

  public:
    static Block& instance() {
        static Block block;
        return block;
    }

  private:
    void (*call_)(void*) = nullptr;
    void* argument_ = nullptr;
    bool reverse_ = false;
    std::vector<Thread> threads_;
    std::vector<Slots> slots_;
    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::vector<Fiber*> idle_;
    Fiber* running_ = nullptr;
    unsigned current_ = 0, begun_ = 0, done_ = 0;
    jmp_buf home_;
    ucontext_t home_context_;
};

template <typename T>
T shuffled(unsigned mask, T value, unsigned source, bool inside) {
    static_assert(sizeof(T) <= 8, "shuffles take up to 8 bytes");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = Block::instance().shuffle(mask, bits, source);
    if (!inside) return value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// One letter a parameter: p pointer, f float, d double, i and u 4 bytes, l 8 bytes.
template <typename T> constexpr char letter() {
    if (std::is_pointer<T>::value) return 'p';
    if (std::is_same<T, float>::value) return 'f';
    if (std::is_same<T, double>::value) return 'd';
    if (std::is_integral<T>::value && sizeof(T) == 8) return 'l';
    if (std::is_integral<T>::value && sizeof(T) == 4) return 'i';
    return '?';
}

template <typename... A> const char* signature(void (*)(A...)) {
    static const char letters[] = {letter<A>()..., 0};
    return letters;
}

template <typename... A> struct Call {
    void (*kernel)(A...);
    void** arguments;
    template <size_t... I> void go(std::index_sequence<I...>) {
        kernel(*static_cast<A*>(arguments[I])...);
    }
    static void run(void* self) {
        static_cast<Call*>(self)->go(std::index_sequence_for<A...>{});
    }
};

// Run a grid of blocks, in `reverse` the last block and thread first. Returns null or
// what went wrong.
template <typename... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block,
                   void** arguments, int reverse) {
    static std::string error;
    Block& engine = Block::instance();
    Call<A...> call{kernel, arguments};
    gridDim = dim3{grid[0], grid[1], grid[2]};
    blockDim = dim3{block[0], block[1], block[2]};
    engine.error.clear();
    const size_t n = static_cast<size_t>(grid[0]) * grid[1] * grid[2];
    for (size_t i = 0; i < n && engine.error.empty(); ++i) {
        const size_t b = reverse ? n - 1 - i : i;
        blockIdx = {static_cast<unsigned>(b % grid[0]),
                    static_cast<unsigned>(b / grid[0] % grid[1]),
                    static_cast<unsigned>(b / grid[0] / grid[1])};
        engine.run(Call<A...>::run, &call, reverse != 0);
    }
    error = engine.error;
    return error.empty() ? nullptr : error.c_str();
}

}  // namespace cuda_cpu

static inline unsigned cuda_cpu_lane() { return threadIdx.x % cuda_cpu::WARP; }

#define __syncthreads() cuda_cpu::Block::instance().barrier()

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned away, int width = 32) {
    const unsigned lane = cuda_cpu_lane(), end = (lane / width + 1) * width;
    const bool inside = lane + away < end;
    return cuda_cpu::shuffled(mask, value, inside ? lane + away : lane, inside);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int away, int width = 32) {
    const unsigned lane = cuda_cpu_lane(), other = lane ^ away;
    const bool inside = other / width <= lane / width;
    return cuda_cpu::shuffled(mask, value, inside ? other : lane, inside);
}
