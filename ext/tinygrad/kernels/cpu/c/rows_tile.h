// The tile of a float weight format that is read as the file has it, row after row; included once per format with FORMAT(name) and KIND
// (0 float32, 1 float16, 2 bfloat16) defined. COLS is a multiple of 16, OUT_ROWS of GROUP_ROWS. Activations are float32 rows.

#define ROW_BYTES ((long)COLS * (KIND ? 2 : 4))
#define SIDE (TOKENS <= MOST_ROWS ? 1 : 4)  // rows that share a loaded activation; one token, or rows of a batch, read all rows as one stream
#define TOGETHER (TOKENS == 1 ? 1 : TOKENS <= MOST_ROWS ? LANES / 8 : LANES == 16 ? 4 : 2)  // tokens that share a loaded weight vector
#define CHAINS (TOKENS > MOST_ROWS || COLS % (2 * LANES) ? 1 : COLS % (8 * LANES) ? 2 : 8)  // independent sums, against the latency of an addition

INLINE vf FORMAT(load)(const u8* p) {
  if (KIND == 1) return load_half(p);
  if (KIND == 2) return BITS_AS(vf, __builtin_convertvector(LOAD(vhb, p), vi) << 16);
  return LOAD(vf, p);
}

INLINE void FORMAT(tile)(const u8* weights, long tile, int rows, const u8* acts, vf* acc) {
  for (int row = 0; row < TILE_ROWS; row += SIDE) {
    const u8* p = weights + (tile * TILE_ROWS + row) * ROW_BYTES;
    for (int token = 0; token < TOKENS; token += TOGETHER) {
      const f32* x = (const f32*)acts + (long)token * COLS;
      const int n = TOKENS - token;
      vf sums[CHAINS * SIDE * TOGETHER];
      UNROLL for (int i = 0; i < CHAINS * SIDE * TOGETHER; i++) sums[i] = SPLAT(0);
      for (int c = 0; c < COLS; c += CHAINS * LANES) {
        if (TOKENS == 1) UNROLL for (int line = 0; line < CHAINS * LANES * (KIND ? 2 : 4); line += 64) PREFETCH_WEIGHTS(p + c * (KIND ? 2 : 4), line);
        UNROLL for (int j = 0; j < CHAINS; j++)
          UNROLL for (int r = 0; r < SIDE; r++) {
            const vf w = FORMAT(load)(p + r * ROW_BYTES + (c + j * LANES) * (KIND ? 2 : 4));
            UNROLL for (int t = 0; t < TOGETHER; t++) sums[(j * SIDE + r) * TOGETHER + t] += w * LOAD(vf, x + (t < n ? t : 0) * COLS + c + j * LANES);
          }
      }
      UNROLL for (int r = 0; r < SIDE; r++)
        UNROLL for (int t = 0; t < TOGETHER; t++) {
          vf sum = sums[r * TOGETHER + t];
          UNROLL for (int j = 1; j < CHAINS; j++) sum += sums[(j * SIDE + r) * TOGETHER + t];
          if (t < n) STORE((f32*)acc + (token + t) * TILE_ROWS + row + r, sum_lanes(sum));
        }
    }
  }
}

INLINE void FORMAT(row)(const u8* weights, long row, f32* out) {
  for (int c = 0; c < COLS; c += LANES) STORE(out + c, FORMAT(load)(weights + row * ROW_BYTES + c * (KIND ? 2 : 4)));
}

#undef ROW_BYTES
#undef SIDE
#undef TOGETHER
#undef CHAINS
