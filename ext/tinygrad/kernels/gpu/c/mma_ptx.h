// The matrix instruction of NVIDIA's cards as inline PTX (PTX ISA, mma.m16n8k16), which their OpenCL takes as well as CUDA C.

// c (16 x 8) += a (16 x 16, by rows) * b (16 x 8, by columns): halves with float sums. Which item of 32 holds which entries: fragments.h
INLINE void mma_f16_m16n8k16(float* c, const uint* a, const uint* b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
