// q, k, v = norm(x) @ w.TOKENS, a bias added where BIAS; q and k are turned by RoPE, k and v are stored in the cache rows
// where the tokens stand (place.h). A task has whole blocks of 8-bit integers where the cache is made of those, and keeps their floats until all are there.

#define UNIT (QUANTISED ? CACHE_BLOCK / TILE_ROWS : GROUP_TILES)  // tiles that stay together

void ENTRY(f32* restrict q, CACHE* restrict cache_k, CACHE* restrict cache_v, INPUTS, const u8* restrict wq, const u8* restrict wk,
           const u8* restrict wv, const f32* restrict rope,
#if BIAS
           const f32* restrict bias,
#endif
           CHANGES PLACE, long core_id) {
  PREPARE
  NARROW_PARTS
#if SPANS > 1
  q += SPAN_START * Q_HEADS * HEAD_DIM, start_pos += SPAN_START;
#endif
  const long q_tiles = TILES(Q_HEADS * HEAD_DIM), kv_tiles = TILES(KV_HEADS * HEAD_DIM), tiles = q_tiles + 2 * kv_tiles;
#if QUANTISED
  f32 blocks[TOKENS][STREAMS][CACHE_BLOCK];
#endif
  for (long i = FIRST_TILE(core_id, tiles, UNIT); i < END_TILE(core_id, tiles, UNIT); i++) {
    const int part = i < q_tiles ? 0 : i < q_tiles + kv_tiles ? 1 : 2;
    const long tile = i - (part == 0 ? 0 : part == 1 ? q_tiles : q_tiles + kv_tiles);
    const int rows = (part == 0 ? Q_HEADS : KV_HEADS) * HEAD_DIM;
    vf acc[TOKENS * VECTORS];
    PROJECT(part, tile, rows, acc);
    ADAPT_PART(part, acc, tile)
    for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < VECTORS && IS_THERE(t); v++) {
        const int row = ROW(tile, v, rows), head = row / HEAD_DIM, in_head = row % HEAD_DIM;
        if (STREAMS > 1 && row >= rows) continue;
        const long position = POSITION(t);
        vf x = acc[t * VECTORS + v];
#if BIAS
        x += LOAD(vf, bias + (part == 0 ? 0 : part == 1 ? Q_HEADS : Q_HEADS + KV_HEADS) * HEAD_DIM + row);
#endif
        if (part < 2) x = rotate(x, rope + position * HEAD_DIM + in_head);
        CACHE* to = (part == 1 ? cache_k : cache_v) + SLOT(t) + ((long)head * CACHE_ROWS + position) * CACHE_ROW;
        if (part == 0) STORE(q + (long)t * Q_HEADS * HEAD_DIM + row, x);
#if QUANTISED
        else {
          f32* block = blocks[t][v / TILE_VECTORS];
          STORE(block + row % CACHE_BLOCK, x);
          if (row % CACHE_BLOCK == CACHE_BLOCK - LANES) store_block(to, in_head / CACHE_BLOCK, block);
        }
#else
        else store_cache(to + in_head, x);
#endif
      }
  }
}
