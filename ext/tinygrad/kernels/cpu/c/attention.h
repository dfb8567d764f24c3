// Shared by the attention kernels: HEADS query heads attend to each of KV_HEADS, HEAD_DIM long, in a cache of CACHE_ROWS positions.
// SCALE holds the logarithm of e to base 2, so that the softmax takes powers of 2. WINDOW: a token sees itself and WINDOW - 1 before it; 0: all.
// Where CAPPED, SCALE is the scores' own and they become LOG2E * SOFTCAP * tanh(score / SOFTCAP).

#define HIDDEN_SCORE (-1e30f)  // stands for -inf without its NaNs
#define VEC (HEAD_DIM / LANES)

#if CAPPED
INLINE vf capped(vf score) { return vtanh(score / SOFTCAP) * (1.4426950408889634f * SOFTCAP); }
#else
INLINE vf capped(vf score) { return score; }
#endif

// CHUNK rows of the cache as float32, `count` of them real and the others zero; a float32 cache is read where it lies
INLINE const f32* cache_rows(const CACHE* cache, int first, int count, f32* scratch) {
  const CACHE* from = cache + (long)first * CACHE_ROW;
  if (sizeof(CACHE) == 4 && count == CHUNK) return (const f32*)from;
  for (int i = 0; i < count; i++)
    UNROLL for (int d = 0; d < VEC; d++) STORE(scratch + i * HEAD_DIM + LANES * d, widen(from + i * CACHE_ROW, d));
  for (int i = count * VEC; i < CHUNK * VEC; i++) STORE(scratch + LANES * i, SPLAT(0));
  return scratch;
}
