// CUDA C as NVRTC takes it, for clang on the CPU: what the emulated NVRTC puts before every source.
#pragma once
#include "thread.h"

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __global__ __attribute__((visibility("default"))) __attribute__((annotate("cuda_global")))
#define __launch_bounds__(...) __attribute__((annotate("cuda_launch_bounds", __VA_ARGS__)))
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static thread_local __attribute__((used))  // a block runs on one thread of the host, and blocks that run at once on several

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define threadIdx (cuda_self()->index)
#define blockIdx (cuda_self()->block)
#define blockDim (cuda_self()->block_dim)
#define gridDim (cuda_self()->grid_dim)
static const int warpSize = 32;

// ---- a kernel, as the driver calls it: from one packed block of arguments, each aligned to its size

template <class... A> struct CudaArguments {
  unsigned short offsets[sizeof...(A) + 1], sizes[sizeof...(A) + 1];
  int bytes;
  constexpr CudaArguments() : offsets(), sizes(), bytes(0) {
    int n = 0;
    (place(n++, sizeof(A), alignof(A)), ...);
  }
  constexpr void place(int n, size_t size, size_t align) {
    bytes = (int)((bytes + align - 1) / align * align);
    offsets[n] = (unsigned short)bytes, sizes[n] = (unsigned short)size;
    bytes += (int)size;
  }
};
template <class T> struct CudaPlain { typedef T type; };
template <class T> struct CudaPlain<const T> { typedef T type; };
template <int... N> struct CudaNumbers {};
template <int N, int... M> struct CudaCount : CudaCount<N - 1, N - 1, M...> {};
template <int... M> struct CudaCount<0, M...> { typedef CudaNumbers<M...> type; };

template <auto F> struct CudaCall;
template <class... A, void (*F)(A...)> struct CudaCall<F> {
  static constexpr CudaArguments<A...> arguments{};
  template <int... N> static inline void call(const char* packed, CudaNumbers<N...>) {
    F(*(const typename CudaPlain<A>::type*)(packed + arguments.offsets[N])...);
  }
  static void run(const char* packed) { call(packed, typename CudaCount<sizeof...(A)>::type()); }
  static constexpr CudaKernel kernel(int max_threads) {
    return {run, (int)sizeof...(A), arguments.bytes, max_threads, arguments.offsets, arguments.sizes};
  }
};
extern "C" __attribute__((visibility("default"), used)) extern const int cuda_module_arch = CUDA_MODULE_ARCH;

#include "cuda_vectors.h"
#include "cuda_math.h"
#include "cuda_threads.h"
#include "ptx_instructions.h"
