// RoPE on a vector of a head, and what is stored in the cache (cache.h).

// eight or sixteen rows of a head as adjacent pairs; angles: cos and sin of each pair
INLINE vf rotate(vf x, const f32* angles) {
  vf a = LOAD(vf, angles);
#if LANES == 16
  vf cosine = __builtin_shufflevector(a, a, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14);
  vf sine = __builtin_shufflevector(a, -a, 17, 1, 19, 3, 21, 5, 23, 7, 25, 9, 27, 11, 29, 13, 31, 15);
  vf swapped = __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#else
  vf cosine = __builtin_shufflevector(a, a, 0, 0, 2, 2, 4, 4, 6, 6);
  vf sine = __builtin_shufflevector(a, -a, 9, 1, 11, 3, 13, 5, 15, 7);
  vf swapped = __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6);
#endif
  return x * cosine + swapped * sine;
}

INLINE void store_cache(CACHE* at, vf x) {
  if (sizeof(CACHE) == 2) store_half(at, x);
  else STORE(at, x);
}

// a whole head
INLINE void store_row(CACHE* row, const f32* x) {
#if QUANTISED
  for (int block = 0; block < HEAD_DIM / CACHE_BLOCK; block++) store_block(row, block, x + CACHE_BLOCK * block);
#else
  for (int d = 0; d < HEAD_DIM; d += LANES) store_cache(row + d, LOAD(vf, x + d));
#endif
}
