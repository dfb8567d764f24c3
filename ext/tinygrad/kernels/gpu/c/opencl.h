// The dialect of OpenCL C 1.2: what the kernels here are written in, said in its words. cuda.h says the same in CUDA C.
// PTX is the compute capability times ten where NVIDIA's compiler takes inline PTX, 0 elsewhere.

#define KERNEL(items) __kernel __attribute__((reqd_work_group_size(items, 1, 1))) void
#define GLOBAL __global
#define LOCAL __local
#define LOCAL_ARRAY(type, name, n) __local type name[n] __attribute__((aligned(16)))
#define INLINE static inline
#define UNROLL _Pragma("unroll")
#define RESTRICT restrict

typedef char schar;

INLINE int group_id(int dimension) { return get_group_id(dimension); }
INLINE int item_id(void) { return get_local_id(0); }
INLINE void sync_group(void) { barrier(CLK_LOCAL_MEM_FENCE); }

#define make_float4(x, y, z, w) (float4)(x, y, z, w)
#define make_uint2(x, y) (uint2)(x, y)
#define make_uint4(x, y, z, w) (uint4)(x, y, z, w)
#define splat4(x) (float4)(x)
INLINE float dot4(float4 a, float4 b) { return dot(a, b); }
INLINE float4 unsigned_bytes(uint x) { return convert_float4(as_uchar4(x)); }
INLINE float4 signed_bytes(uint x) { return convert_float4(as_char4(x)); }

INLINE float4 load4(const GLOBAL float* p, long i) { return vload4(0, p + i); }
INLINE float4 load4_local(const LOCAL float* p, int i) { return vload4(0, p + i); }
INLINE void store4_local(float4 x, LOCAL float* p, int i) { vstore4(x, 0, p + i); }

// halves are stored as their bits and converted, never computed with
typedef ushort f16;
INLINE float f16_to_float(f16 bits) { return vload_half(0, (const half*)&bits); }
INLINE f16 float_to_f16(float x) {
  f16 bits;
  vstore_half_rte(x, 0, (half*)&bits);
  return bits;
}
INLINE float4 load4_f16(const GLOBAL f16* p, long i) { return vload_half4(0, (const GLOBAL half*)(p + i)); }

#if PTX
#include "load_ptx.h"
#else
INLINE uint4 load_once(const GLOBAL uint4* p) { return *p; }
INLINE uint2 load_cached8(const GLOBAL uint2* p) { return *p; }
INLINE uint load_cached4(const GLOBAL uint* p) { return *p; }
INLINE f16 load_cached2(const GLOBAL f16* p) { return *p; }
#endif

INLINE void prefetch_line(const GLOBAL uchar* p) { prefetch(p, 1); }
INLINE float bits_to_float(uint bits) { return as_float(bits); }
INLINE uint float_to_bits(float x) { return as_uint(x); }

// The last of several work-groups combines what all have written: every item calls publish_writes, then comes sync_group, then one item count_arrival, which
// gives how many have come before; in the last work-group every item calls fence_global before it reads, through volatile pointers.
INLINE void fence_global(void) { mem_fence(CLK_GLOBAL_MEM_FENCE); }
INLINE void publish_writes(void) { fence_global(); }
INLINE int count_arrival(volatile GLOBAL int* counter) {
  fence_global();
  return atomic_inc(counter);
}

#if HAS_MATRIX
#include "mma_ptx.h"
#endif

#if PTX
INLINE int dp4a(int a, int b, int c) {
  int sum;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}
INLINE float shuffle_xor(float x, int mask) {
  float other;
  asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=f"(other) : "f"(x), "r"(mask));
  return other;
}
#else
#if defined(__opencl_c_integer_dot_product_input_4x8bit_packed)
INLINE int dp4a(int a, int b, int c) { return c + dot_4x8packed_ss_int((uint)a, (uint)b); }
#else
INLINE int dp4a(int a, int b, int c) {
  const int4 x = convert_int4(as_char4(a)), y = convert_int4(as_char4(b));
  return c + x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
}
#endif
#endif
