// Loads of weights and caches as inline PTX. They are volatile, for their order: the compiler would otherwise move each to where its value is used, and an item
// would have one load in flight instead of several. What is read once is the first to leave the caches (.cs); scales, and rows whose bytes share sectors with
// their neighbours', stay.

INLINE uint4 load_once(const GLOBAL uint4* p) {
  uint4 x;
  asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(p));
  return x;
}
INLINE uint2 load_cached8(const GLOBAL uint2* p) {
  uint2 x;
  asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(x.x), "=r"(x.y) : "l"(p));
  return x;
}
INLINE f16 load_cached2(const GLOBAL f16* p) {
  f16 x;
  asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(x) : "l"(p));
  return x;
}
INLINE uint load_cached4(const GLOBAL uint* p) {
  uint x;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(x) : "l"(p));
  return x;
}
