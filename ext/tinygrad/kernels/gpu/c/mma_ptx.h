// The matrix instruction of NVIDIA's cards as inline PTX (PTX ISA, mma.m16n8k16), which their OpenCL takes as well as CUDA C.

// -> two halves as their bits
INLINE uint pack_f16x2(float low, float high) {
#if PTX >= 80
  uint bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  return (uint)float_to_f16(low) | (uint)float_to_f16(high) << 16;
#endif
}

INLINE uint2 pack4_f16(float4 x) { return make_uint2(pack_f16x2(x.x, x.y), pack_f16x2(x.z, x.w)); }

// the first halves of two words, and the second ones
INLINE uint low_halves(uint a, uint b) { return (a & 0xffff) | b << 16; }
INLINE uint high_halves(uint a, uint b) { return a >> 16 | (b & 0xffff0000u); }

// c (16 x 8) += a (16 x 16, by rows) * b (16 x 8, by columns): halves with float sums. With group = lane / 4 and pair = lane % 4, an item of 32 holds
//   of a: row group, columns 2 pair and 2 pair + 1; the same of row group + 8; then both of columns 8 further on
//   of b: rows 2 pair and 2 pair + 1 of column group; then rows 8 further on
//   of c: row group, columns 2 pair and 2 pair + 1; the same of row group + 8
INLINE void mma_m16n8k16(float* c, uint a0, uint a1, uint a2, uint a3, uint b0, uint b1) {
#if PTX >= 80
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a2), "r"(a3), "r"(b1));
#endif
}
