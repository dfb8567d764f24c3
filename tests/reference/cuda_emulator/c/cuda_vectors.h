// CUDA's vector types: plain structures, aligned as on the device.
#pragma once
#define CUDA_VECTORS(scalar, name, size)                                                                      \
  struct name##1 { scalar x; };                                                                               \
  struct __attribute__((aligned(2 * size))) name##2 { scalar x, y; };                                         \
  CUDA_VECTOR3(scalar, name)                                                                                  \
  struct __attribute__((aligned(4 * size > 16 ? 16 : 4 * size))) name##4 { scalar x, y, z, w; };              \
  static inline name##1 make_##name##1(scalar x) { return {x}; }                                              \
  static inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                                 \
  static inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }                    \
  static inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
#define CUDA_VECTOR3(scalar, name) struct name##3 { scalar x, y, z; };
CUDA_VECTORS(signed char, char, 1)
CUDA_VECTORS(unsigned char, uchar, 1)
CUDA_VECTORS(short, short, 2)
CUDA_VECTORS(unsigned short, ushort, 2)
CUDA_VECTORS(int, int, 4)
CUDA_VECTORS(float, float, 4)
CUDA_VECTORS(long, long, 8)
CUDA_VECTORS(unsigned long, ulong, 8)
CUDA_VECTORS(long long, longlong, 8)
CUDA_VECTORS(unsigned long long, ulonglong, 8)
CUDA_VECTORS(double, double, 8)
#undef CUDA_VECTOR3
#define CUDA_VECTOR3(scalar, name)  // thread.h has uint3
CUDA_VECTORS(unsigned int, uint, 4)
#undef CUDA_VECTOR3
#undef CUDA_VECTORS
