// What CUDA C has no name for without its headers, as inline PTX (PTX ISA). The emulator of the tests brings functions of these names.

INLINE float f16_to_float(ushort bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

INLINE ushort float_to_f16(float x) {
  ushort bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

// have the 128 bytes around p brought into the second-level cache
INLINE void prefetch_line(const uchar* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
