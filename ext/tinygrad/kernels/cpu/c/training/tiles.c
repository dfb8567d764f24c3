// Gradients (TOKENS, OUT_ROWS) in tiles; see tiles.h. A task takes some rows of 32 tokens.

void ENTRY(f32* restrict out, const f32* restrict dy, long core_id) {
  const long from = PADDED_ROWS / 16 * (core_id % SPLIT) / SPLIT * 16, to = PADDED_ROWS / 16 * (core_id % SPLIT + 1) / SPLIT * 16;
  for (long first = core_id / SPLIT * 32; first < core_id / SPLIT * 32 + 32; first += TILE) {
    const f32* rows = dy + first * OUT_ROWS;
    f32* at = out + first * PADDED_ROWS;
    for (long n = from; n < to; n += 16)
      for (int t = 0; t < TILE; t++)
        for (int i = 0; i < 16; i++) at[(n + i) * TILE + t] = n + i < OUT_ROWS ? rows[t * OUT_ROWS + n + i] : 0.0f;
  }
}
