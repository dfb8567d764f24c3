// CUDA's math functions, by the C library's and the compiler's own.
#pragma once
#define CUDA_FN static inline __attribute__((always_inline))

#define CUDA_MATH1(name)                              \
  extern "C" float name##f(float) noexcept;              \
  extern "C" double name(double) noexcept;               \
  CUDA_FN float name(float x) { return __builtin_##name##f(x); }
CUDA_MATH1(exp) CUDA_MATH1(exp2) CUDA_MATH1(log) CUDA_MATH1(log2) CUDA_MATH1(log10) CUDA_MATH1(log1p) CUDA_MATH1(expm1) CUDA_MATH1(sqrt)
CUDA_MATH1(cbrt) CUDA_MATH1(sin) CUDA_MATH1(cos) CUDA_MATH1(tan) CUDA_MATH1(asin) CUDA_MATH1(acos) CUDA_MATH1(atan) CUDA_MATH1(sinh)
CUDA_MATH1(cosh) CUDA_MATH1(tanh) CUDA_MATH1(erf) CUDA_MATH1(erfc) CUDA_MATH1(floor) CUDA_MATH1(ceil) CUDA_MATH1(trunc) CUDA_MATH1(round)
CUDA_MATH1(rint) CUDA_MATH1(nearbyint) CUDA_MATH1(fabs)
#undef CUDA_MATH1
#define CUDA_MATH2(name)                                          \
  extern "C" float name##f(float, float) noexcept;                   \
  extern "C" double name(double, double) noexcept;                   \
  CUDA_FN float name(float x, float y) { return __builtin_##name##f(x, y); }
CUDA_MATH2(fmin) CUDA_MATH2(fmax) CUDA_MATH2(fmod) CUDA_MATH2(pow) CUDA_MATH2(atan2) CUDA_MATH2(copysign) CUDA_MATH2(hypot)
#undef CUDA_MATH2
extern "C" float ldexpf(float, int) noexcept;
extern "C" int printf(const char*, ...) noexcept;
CUDA_FN float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
CUDA_FN double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
CUDA_FN float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
CUDA_FN float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
CUDA_FN float rsqrt(float x) { return rsqrtf(x); }
CUDA_FN double rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }
CUDA_FN float exp10f(float x) { return __builtin_powf(10.0f, x); }
CUDA_FN bool isnan(float x) { return __builtin_isnan(x); }
CUDA_FN bool isnan(double x) { return __builtin_isnan(x); }
CUDA_FN bool isinf(float x) { return __builtin_isinf(x); }
CUDA_FN bool isinf(double x) { return __builtin_isinf(x); }
CUDA_FN bool isfinite(float x) { return __builtin_isfinite(x); }
CUDA_FN bool isfinite(double x) { return __builtin_isfinite(x); }
CUDA_FN int abs(int x) { return x < 0 ? -x : x; }
CUDA_FN long abs(long x) { return x < 0 ? -x : x; }
CUDA_FN long long abs(long long x) { return x < 0 ? -x : x; }
CUDA_FN float abs(float x) { return __builtin_fabsf(x); }
CUDA_FN double abs(double x) { return __builtin_fabs(x); }

#define CUDA_MIN_MAX(a, b, t)                                    \
  CUDA_FN t min(a x, b y) { return (t)x < (t)y ? (t)x : (t)y; }  \
  CUDA_FN t max(a x, b y) { return (t)x > (t)y ? (t)x : (t)y; }
CUDA_MIN_MAX(int, int, int) CUDA_MIN_MAX(unsigned, unsigned, unsigned) CUDA_MIN_MAX(int, unsigned, unsigned)
CUDA_MIN_MAX(unsigned, int, unsigned) CUDA_MIN_MAX(long, long, long) CUDA_MIN_MAX(unsigned long, unsigned long, unsigned long)
CUDA_MIN_MAX(long, unsigned long, unsigned long) CUDA_MIN_MAX(unsigned long, long, unsigned long)
CUDA_MIN_MAX(long long, long long, long long) CUDA_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef CUDA_MIN_MAX
CUDA_FN float min(float x, float y) { return __builtin_fminf(x, y); }
CUDA_FN float max(float x, float y) { return __builtin_fmaxf(x, y); }
CUDA_FN double min(double x, double y) { return __builtin_fmin(x, y); }
CUDA_FN double max(double x, double y) { return __builtin_fmax(x, y); }
CUDA_FN double min(float x, double y) { return __builtin_fmin(x, y); }
CUDA_FN double max(float x, double y) { return __builtin_fmax(x, y); }
CUDA_FN double min(double x, float y) { return __builtin_fmin(x, y); }
CUDA_FN double max(double x, float y) { return __builtin_fmax(x, y); }

// ---- intrinsics
CUDA_FN float __expf(float x) { return __builtin_expf(x); }
CUDA_FN float __exp10f(float x) { return exp10f(x); }
CUDA_FN float __logf(float x) { return __builtin_logf(x); }
CUDA_FN float __log2f(float x) { return __builtin_log2f(x); }
CUDA_FN float __sinf(float x) { return __builtin_sinf(x); }
CUDA_FN float __cosf(float x) { return __builtin_cosf(x); }
CUDA_FN float __powf(float x, float y) { return __builtin_powf(x, y); }
CUDA_FN float __fdividef(float x, float y) { return x / y; }
CUDA_FN float __fdiv_rn(float x, float y) { return x / y; }
CUDA_FN float __frcp_rn(float x) { return 1.0f / x; }
CUDA_FN float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
CUDA_FN float __frsqrt_rn(float x) { return (float)(1.0 / __builtin_sqrt((double)x)); }
CUDA_FN float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
CUDA_FN float __saturatef(float x) { return x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f; }
// rounded on their own: never part of a fused multiply-add
CUDA_FN float __fadd_rn(float x, float y) {
#pragma clang fp contract(off)
  return x + y;
}
CUDA_FN float __fsub_rn(float x, float y) {
#pragma clang fp contract(off)
  return x - y;
}
CUDA_FN float __fmul_rn(float x, float y) {
#pragma clang fp contract(off)
  return x * y;
}
// conversions to integers stay within the integer's range, and NaN becomes 0
CUDA_FN int cuda_saturate(float x) { return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? -2147483647 - 1 : (int)x; }
CUDA_FN int __float2int_rn(float x) { return cuda_saturate(__builtin_rintf(x)); }
CUDA_FN int __float2int_rz(float x) { return cuda_saturate(x); }
CUDA_FN int __float2int_rd(float x) { return cuda_saturate(__builtin_floorf(x)); }
CUDA_FN int __float2int_ru(float x) { return cuda_saturate(__builtin_ceilf(x)); }
CUDA_FN unsigned __float2uint_rn(float x) { return x > 0.0f ? x >= 4294967296.0f ? 0xffffffffu : (unsigned)__builtin_rintf(x) : 0u; }
CUDA_FN unsigned __float2uint_rz(float x) { return x > 0.0f ? x >= 4294967296.0f ? 0xffffffffu : (unsigned)x : 0u; }
CUDA_FN float __int2float_rn(int x) { return (float)x; }
CUDA_FN float __uint2float_rn(unsigned x) { return (float)x; }
CUDA_FN int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
CUDA_FN unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
CUDA_FN float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
CUDA_FN float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
CUDA_FN int __mulhi(int x, int y) { return (int)((long)x * y >> 32); }
CUDA_FN unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)((unsigned long)x * y >> 32); }
CUDA_FN int __popc(unsigned x) { return __builtin_popcount(x); }
CUDA_FN int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
CUDA_FN int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
CUDA_FN int __ffs(int x) { return __builtin_ffs(x); }
CUDA_FN unsigned __brev(unsigned x) { return __builtin_bitreverse32(x); }
CUDA_FN unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long both = (unsigned long)y << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned s = selector >> 4 * i & 15, byte = (unsigned)(both >> 8 * (s & 7)) & 255;
    result |= (s & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return result;
}
CUDA_FN unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) { return (unsigned)(((unsigned long)high << 32 | low) << (n & 31) >> 32); }
CUDA_FN unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) { return (unsigned)(((unsigned long)high << 32 | low) >> (n & 31)); }
CUDA_FN int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
  return c;
}
CUDA_FN unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 4; i++) c += (unsigned)(unsigned char)(a >> 8 * i) * (unsigned char)(b >> 8 * i);
  return c;
}
CUDA_FN int __dp4a(char4 a, char4 b, int c) { return __dp4a(__builtin_bit_cast(int, a), __builtin_bit_cast(int, b), c); }
CUDA_FN unsigned __dp4a(uchar4 a, uchar4 b, unsigned c) { return __dp4a(__builtin_bit_cast(unsigned, a), __builtin_bit_cast(unsigned, b), c); }

template <class T> CUDA_FN T __ldg(const T* p) { return *p; }
template <class T> CUDA_FN T __ldca(const T* p) { return *p; }
template <class T> CUDA_FN T __ldcg(const T* p) { return *p; }
template <class T> CUDA_FN T __ldcs(const T* p) { return *p; }
template <class T> CUDA_FN T __ldlu(const T* p) { return *p; }
template <class T> CUDA_FN T __ldcv(const T* p) { return *(const volatile T*)p; }
template <class T> CUDA_FN void __stcg(T* p, T x) { *p = x; }
template <class T> CUDA_FN void __stcs(T* p, T x) { *p = x; }
template <class T> CUDA_FN void __stwb(T* p, T x) { *p = x; }
template <class T> CUDA_FN void __stwt(T* p, T x) { *p = x; }
