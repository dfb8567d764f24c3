// Shared by the attention kernels: HEADS query heads attend to each of KV_HEADS, HEAD_DIM long, in a cache of CACHE_ROWS positions.

#define HIDDEN_SCORE (-1e30f)  // stands for -inf without its NaNs
#define VEC (HEAD_DIM / LANES)

// rows of the cache as float32; a float32 cache is read where it lies
INLINE const f32* cache_rows(const CACHE* cache, int first, int count, f32* scratch) {
  const CACHE* from = cache + (long)first * HEAD_DIM;
  if (sizeof(CACHE) == 4) return (const f32*)from;
  for (int i = 0; i < count * VEC; i++) STORE(scratch + LANES * i, load_half(from + LANES * i));
  return scratch;
}
