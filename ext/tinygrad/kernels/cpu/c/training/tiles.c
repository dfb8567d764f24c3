// Gradients (TOKENS, OUT_ROWS) in tiles; see tiles.h. A task takes some rows of 32 tokens.

WIDE_VECTORS void ENTRY(f32* restrict out, const f32* restrict dy, long core_id) {
  const long from = PADDED_ROWS / 16 * (core_id % SPLIT) / SPLIT * 16, to = PADDED_ROWS / 16 * (core_id % SPLIT + 1) / SPLIT * 16;
  for (long first = core_id / SPLIT * 32; first < core_id / SPLIT * 32 + 32; first += LANES) {
    const f32* rows = dy + first * OUT_ROWS;
    f32* at = out + first / TILE * TILE * PADDED_ROWS + first % TILE;
    for (long n = from; n < to; n += LANES) {
      if (n + LANES <= OUT_ROWS) {
        vf square[LANES];
        UNROLL for (int t = 0; t < LANES; t++) square[t] = LOAD(vf, rows + t * OUT_ROWS + n);
        transpose(square);
        UNROLL for (int i = 0; i < LANES; i++) STORE(at + (n + i) * TILE, square[i]);
      } else
        for (int i = 0; i < LANES; i++)
          for (int t = 0; t < LANES; t++) at[(n + i) * TILE + t] = n + i < OUT_ROWS ? rows[t * OUT_ROWS + n + i] : 0.0f;
    }
  }
}
