// q, k, v = norm(x) @ w.TOKENS; q and k are turned by RoPE, k and v are stored in the cache rows start_pos … start_pos + TOKENS - 1.

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

void ENTRY(f32* restrict q, CACHE* restrict cache_k, CACHE* restrict cache_v, INPUTS, const u8* restrict wq, const u8* restrict wk,
           const u8* restrict wv, const f32* restrict rope, long start_pos, long core_id) {
  PREPARE
  const long q_tiles = TILES(Q_HEADS * HEAD_DIM), kv_tiles = TILES(KV_HEADS * HEAD_DIM), tiles = q_tiles + 2 * kv_tiles;
  for (long i = SHARE(core_id, tiles, TASKS); i < SHARE(core_id + 1, tiles, TASKS); i++) {
    const int part = i < q_tiles ? 0 : i < q_tiles + kv_tiles ? 1 : 2;
    const long tile = i - (part == 0 ? 0 : part == 1 ? q_tiles : q_tiles + kv_tiles);
    vf acc[TOKENS * VECTORS];
    PROJECT(part, tile, acc);
    for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        const int row = tile * TILE_ROWS + v * LANES, head = row / HEAD_DIM, in_head = row % HEAD_DIM;
        const long position = start_pos + t, at = ((long)head * CACHE_ROWS + position) * HEAD_DIM + in_head;
        vf x = acc[t * VECTORS + v];
        if (part < 2) x = rotate(x, rope + position * HEAD_DIM + in_head);
        if (part == 0) STORE(q + (long)t * Q_HEADS * HEAD_DIM + row, x);
        else store_cache((part == 1 ? cache_k : cache_v) + at, x);
      }
  }
}
