// The PTX instructions that kernels use, by what the PTX ISA says of them; ptx.cpp makes calls of inline PTX.
#pragma once

template <class To, class From> CUDA_FN To cuda_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "an operand has another size than its instruction");
  return __builtin_bit_cast(To, x);
}

CUDA_FN void ptx_cvt_f32_f16(float& to, unsigned short x) { to = (float)cuda_bits<_Float16>(x); }
CUDA_FN void ptx_cvt_rn_f16_f32(unsigned short& to, float x) { to = cuda_bits<unsigned short>((_Float16)x); }
CUDA_FN void ptx_cvt_rn_f16x2_f32(unsigned& to, float high, float low) {
  unsigned short halves[2];
  ptx_cvt_rn_f16_f32(halves[0], low), ptx_cvt_rn_f16_f32(halves[1], high);
  __builtin_memcpy(&to, halves, 4);
}
CUDA_FN void ptx_ex2_approx_ftz_f32(float& to, float x) { to = __builtin_exp2f(x); }
CUDA_FN void ptx_ex2_approx_f32(float& to, float x) { to = __builtin_exp2f(x); }
CUDA_FN void ptx_prefetch_global_L2(unsigned long) {}
CUDA_FN void ptx_prefetch_global_L1(unsigned long) {}

// ---- loads of 2, 4, 8 and 16 bytes: an address must be aligned to all of them
CUDA_FN const unsigned* cuda_aligned(unsigned long address, unsigned long bytes) {
  if (address % bytes) cuda_self()->services->stop(cuda_self(), "loads from an address that is not aligned");
  return (const unsigned*)address;
}
#define PTX_LOADS(name)                                                                            \
  template <class T> CUDA_FN void name##_u16(T& x, unsigned long p) { x = cuda_bits<T>(*(const unsigned short*)cuda_aligned(p, 2)); } \
  template <class T> CUDA_FN void name##_u32(T& x, unsigned long p) { x = cuda_bits<T>(*cuda_aligned(p, 4)); } \
  template <class T> CUDA_FN void name##_v2_u32(T& x, T& y, unsigned long p) {                     \
    const unsigned* words = cuda_aligned(p, 8);                                                    \
    x = cuda_bits<T>(words[0]), y = cuda_bits<T>(words[1]);                                        \
  }                                                                                                \
  template <class T> CUDA_FN void name##_v4_u32(T& x, T& y, T& z, T& w, unsigned long p) {         \
    const unsigned* words = cuda_aligned(p, 16);                                                   \
    x = cuda_bits<T>(words[0]), y = cuda_bits<T>(words[1]);                                        \
    z = cuda_bits<T>(words[2]), w = cuda_bits<T>(words[3]);                                        \
  }
PTX_LOADS(ptx_ld_global) PTX_LOADS(ptx_ld_global_ca) PTX_LOADS(ptx_ld_global_cg) PTX_LOADS(ptx_ld_global_cs) PTX_LOADS(ptx_ld_global_lu)
PTX_LOADS(ptx_ld_global_nc) PTX_LOADS(ptx_ld_global_nc_L1__no_allocate) PTX_LOADS(ptx_ld_global_L1__no_allocate)
#undef PTX_LOADS

// ---- mma.m16n8kK: d (16 x 8) = a (16 x K) * b (K x 8) + c. Of a warp's lanes, group = lane / 4 and pair = lane % 4 say what each holds
template <class Sum, int N> struct CudaMma {
  Sum c[4];
  unsigned a[N], b[N / 2];
};
// Element is what a register holds several of; Exact adds products without rounding, or nearly so
template <class Sum, class Element, class Exact, int K> static void cuda_complete_mma(CudaThread** lanes, unsigned) {
  constexpr int EACH = 4 / sizeof(Element), REGISTERS = K / (4 * EACH) * 2, STEP = 4 * EACH;  // STEP columns by a register of each lane
  typedef CudaMma<Sum, REGISTERS> Operand;
  Element a[16][K], b[K][8];
  for (int lane = 0; lane < 32; lane++) {
    const Operand* own = (const Operand*)lanes[lane]->operand;
    const int group = lane / 4, pair = lane % 4;
    for (int i = 0; i < REGISTERS; i++)  // rows group and group + 8, then the next columns
      __builtin_memcpy(&a[group + i % 2 * 8][i / 2 * STEP + pair * EACH], &own->a[i], 4);
    for (int i = 0; i < REGISTERS / 2; i++) {
      Element column[EACH];
      __builtin_memcpy(column, &own->b[i], 4);
      for (int j = 0; j < EACH; j++) b[i * STEP + pair * EACH + j][group] = column[j];
    }
  }
  Exact sums[16][8] = {}, wide_b[K][8];
  for (int k = 0; k < K; k++)
    for (int n = 0; n < 8; n++) wide_b[k][n] = (Exact)b[k][n];
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < K; k++) {
      const Exact value = (Exact)a[m][k];
      for (int n = 0; n < 8; n++) sums[m][n] += value * wide_b[k][n];
    }
  for (int lane = 0; lane < 32; lane++) {
    Operand* own = (Operand*)lanes[lane]->operand;
    for (int i = 0; i < 4; i++)
      own->c[i] = (Sum)((Exact)own->c[i] + sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
  }
}
struct CudaBfloat {  // half of a float
  unsigned short bits;
  explicit operator double() const { return cuda_bits<float>((unsigned)bits << 16); }
};
struct CudaTf32 {  // a float of which the last 13 bits do not count
  unsigned bits;
  explicit operator double() const { return cuda_bits<float>(bits & 0xffffe000u); }
};

#define PTX_MMA4(name, Sum, Element, Exact, K)                                                                                       \
  template <class C, class A, class B>                                                                                               \
  CUDA_FN void name(C& d0, C& d1, C& d2, C& d3, A a0, A a1, A a2, A a3, B b0, B b1, C c0, C c1, C c2, C c3, int line = __builtin_LINE()) { \
    typedef unsigned u;                                                                                                              \
    CudaMma<Sum, 4> o = {{cuda_bits<Sum>(c0), cuda_bits<Sum>(c1), cuda_bits<Sum>(c2), cuda_bits<Sum>(c3)},                           \
                         {cuda_bits<u>(a0), cuda_bits<u>(a1), cuda_bits<u>(a2), cuda_bits<u>(a3)},                                   \
                         {cuda_bits<u>(b0), cuda_bits<u>(b1)}};                                                                      \
    cuda_warp(0xffffffffu, cuda_complete_mma<Sum, Element, Exact, K>, &o, #name, line);                                              \
    d0 = cuda_bits<C>(o.c[0]), d1 = cuda_bits<C>(o.c[1]), d2 = cuda_bits<C>(o.c[2]), d3 = cuda_bits<C>(o.c[3]);                      \
  }
PTX_MMA4(ptx_mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32, float, _Float16, double, 16)
PTX_MMA4(ptx_mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32, float, CudaBfloat, double, 16)
PTX_MMA4(ptx_mma_sync_aligned_m16n8k8_row_col_f32_tf32_tf32_f32, float, CudaTf32, double, 8)
PTX_MMA4(ptx_mma_sync_aligned_m16n8k32_row_col_s32_s8_s8_s32, int, signed char, int, 32)
#undef PTX_MMA4

template <class C, class A, class B>
CUDA_FN void ptx_mma_sync_aligned_m16n8k8_row_col_f32_f16_f16_f32(C& d0, C& d1, C& d2, C& d3, A a0, A a1, B b0, C c0, C c1, C c2, C c3,
                                                                  int line = __builtin_LINE()) {
  CudaMma<float, 2> o = {{cuda_bits<float>(c0), cuda_bits<float>(c1), cuda_bits<float>(c2), cuda_bits<float>(c3)},
                         {cuda_bits<unsigned>(a0), cuda_bits<unsigned>(a1)},
                         {cuda_bits<unsigned>(b0)}};
  cuda_warp(0xffffffffu, cuda_complete_mma<float, _Float16, double, 8>, &o, "mma.m16n8k8", line);
  d0 = cuda_bits<C>(o.c[0]), d1 = cuda_bits<C>(o.c[1]), d2 = cuda_bits<C>(o.c[2]), d3 = cuda_bits<C>(o.c[3]);
}
// sums are halves, two to a register
template <class C, class A, class B>
CUDA_FN void ptx_mma_sync_aligned_m16n8k16_row_col_f16_f16_f16_f16(C& d0, C& d1, A a0, A a1, A a2, A a3, B b0, B b1, C c0, C c1,
                                                                   int line = __builtin_LINE()) {
  CudaMma<_Float16, 4> o = {{}, {cuda_bits<unsigned>(a0), cuda_bits<unsigned>(a1), cuda_bits<unsigned>(a2), cuda_bits<unsigned>(a3)},
                            {cuda_bits<unsigned>(b0), cuda_bits<unsigned>(b1)}};
  __builtin_memcpy(o.c, &c0, 4), __builtin_memcpy(o.c + 2, &c1, 4);
  cuda_warp(0xffffffffu, cuda_complete_mma<_Float16, _Float16, double, 16>, &o, "mma.m16n8k16", line);
  __builtin_memcpy(&d0, o.c, 4), __builtin_memcpy(&d1, o.c + 2, 4);
}
