// The functions of the product's cuda_ptx.h and mma_ptx.h, by what the PTX ISA says of their instructions.
#pragma once
#define CUDA_PTX_H

CUDA_FN float f16_to_float(unsigned short bits) { return (float)__builtin_bit_cast(_Float16, bits); }
CUDA_FN unsigned short float_to_f16(float x) { return __builtin_bit_cast(unsigned short, (_Float16)x); }
CUDA_FN unsigned pack_f16x2(float low, float high) { return (unsigned)float_to_f16(low) | (unsigned)float_to_f16(high) << 16; }
CUDA_FN uint4 load_once(const uint4* p) { return *p; }
CUDA_FN uint2 load_scales(const uint2* p) { return *p; }
CUDA_FN unsigned load_scales8(const unsigned* p) { return *p; }
CUDA_FN void prefetch_line(const unsigned char*) {}

// ---- mma.m16n8kK: c (16 x 8) += a (16 x K) * b (K x 8). Of the lanes of a warp, group = lane / 4 and pair = lane % 4 say what each holds
template <class Sum> struct CudaMma {
  Sum* c;
  const unsigned *a, *b;
};
// Element is what a register of 32 bits holds N of; Exact adds the products of a sum without rounding, or nearly so
template <class Sum, class Element, class Exact, int K> static void cuda_complete_mma(CudaThread** lanes, unsigned) {
  constexpr int N = 4 / sizeof(Element);
  Element a[16][K], b[K][8];
  for (int lane = 0; lane < 32; lane++) {
    const CudaMma<Sum>* own = (const CudaMma<Sum>*)lanes[lane]->operand;
    const int group = lane / 4, pair = lane % 4;
    for (int i = 0; i < 4; i++)  // registers of a: rows group and group + 8, then the second half of the columns
      __builtin_memcpy(&a[group + i % 2 * 8][pair * N + i / 2 * K / 2], &own->a[i], 4);
    for (int i = 0; i < 2; i++) {
      Element column[N];
      __builtin_memcpy(column, &own->b[i], 4);
      for (int j = 0; j < N; j++) b[pair * N + i * K / 2 + j][group] = column[j];
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
    Sum* c = ((const CudaMma<Sum>*)lanes[lane]->operand)->c;
    for (int i = 0; i < 4; i++) c[i] = (Sum)((Exact)c[i] + sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
  }
}
CUDA_FN void mma_f16_m16n8k16(float* c, const unsigned* a, const unsigned* b, int line = __builtin_LINE()) {
  CudaMma<float> operand = {c, a, b};
  cuda_warp(0xffffffffu, cuda_complete_mma<float, _Float16, double, 16>, &operand, "mma_f16_m16n8k16", line);
}
CUDA_FN void mma_s8_m16n8k32(int* c, const unsigned* a, const unsigned* b, int line = __builtin_LINE()) {
  CudaMma<int> operand = {c, a, b};
  cuda_warp(0xffffffffu, cuda_complete_mma<int, signed char, int, 32>, &operand, "mma_s8_m16n8k32", line);
}
