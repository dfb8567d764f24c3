// The dialect of CUDA C, as NVRTC compiles it; opencl.h says the same in OpenCL C.
// PTX is the compute capability times ten.

typedef unsigned char uchar;
typedef signed char schar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong;

// with a number of blocks ptxas takes the registers that loads in flight need; without, it relies on occupancy alone and even spills
#define KERNEL(items) extern "C" __global__ void __launch_bounds__(items, 1)
#define GLOBAL
#define LOCAL
#define LOCAL_ARRAY(type, name, n) __shared__ __align__(16) type name[n]
#define INLINE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define RESTRICT __restrict__

INLINE int group_id(int dimension) { return dimension == 0 ? blockIdx.x : dimension == 1 ? blockIdx.y : blockIdx.z; }
INLINE int item_id() { return threadIdx.x; }
INLINE void sync_group() { __syncthreads(); }

INLINE float4 splat4(float x) { return make_float4(x, x, x, x); }
INLINE float4 operator+(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
INLINE float4 operator-(float4 a, float b) { return make_float4(a.x - b, a.y - b, a.z - b, a.w - b); }
INLINE float4 operator*(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
INLINE float4 operator*(float4 a, float b) { return make_float4(a.x * b, a.y * b, a.z * b, a.w * b); }
INLINE float4 operator*(float a, float4 b) { return b * a; }
INLINE void operator+=(float4& a, float4 b) { a = a + b; }
INLINE void operator*=(float4& a, float b) { a = a * b; }
INLINE float dot4(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
INLINE float4 unsigned_bytes(uint x) {
  return make_float4((float)(x & 255), (float)(x >> 8 & 255), (float)(x >> 16 & 255), (float)(x >> 24));
}
INLINE float4 signed_bytes(uint x) {
  return make_float4((float)(schar)x, (float)(schar)(x >> 8), (float)(schar)(x >> 16), (float)(schar)(x >> 24));
}

// all vectors that kernels read are aligned to their size
INLINE float4 load4(const float* p, long i) { return *(const float4*)(p + i); }
INLINE float4 load4_local(const float* p, int i) { return *(const float4*)(p + i); }
INLINE void store4_local(float4 x, float* p, int i) { *(float4*)(p + i) = x; }

// halves are stored as their bits and converted, never computed with
typedef ushort f16;
#ifndef CUDA_PTX_H  // defined by an emulator, which brings functions of these names
#include "cuda_ptx.h"
#include "load_ptx.h"
#if HAS_MATRIX
#include "mma_ptx.h"
#endif
#endif
INLINE float4 load4_f16(const f16* p, long i) {
  const ushort4 bits = *(const ushort4*)(p + i);
  return make_float4(f16_to_float(bits.x), f16_to_float(bits.y), f16_to_float(bits.z), f16_to_float(bits.w));
}

INLINE float bits_to_float(uint bits) { return __uint_as_float(bits); }
INLINE uint float_to_bits(float x) { return __float_as_uint(x); }

// as opencl.h says; the fence of one item after a barrier covers its whole block (PTX ISA, memory consistency model: causality order)
INLINE void fence_global() { __threadfence(); }
INLINE void publish_writes() {}
INLINE int count_arrival(volatile int* counter) {
  fence_global();
  return atomicAdd((int*)counter, 1);
}

#define BYTE_PERMUTE(low, high, selector) __byte_perm(low, high, selector)
INLINE int dp4a(int a, int b, int c) { return __dp4a(a, b, c); }
INLINE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
