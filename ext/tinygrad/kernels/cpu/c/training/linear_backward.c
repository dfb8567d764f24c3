// dx = dy @ w, added to what is in dx where ADD: the product with the transpose of the weights that linear.c multiplies with. w is (OUT_ROWS, COLS) in
// its packed format; 32 of its columns and PANEL_ROWS of its rows at a time become floats, which all tokens are multiplied with.
// Sums run over the rows in their order, whatever the number of tasks.

#define WIDE (LANES == 16 ? 8 : 4)  // columns whose sums are in registers together
#define PANEL_ROWS 256

WIDE_VECTORS void ENTRY(f32* restrict dx, const f32* restrict dy, const u8* restrict w, long core_id) {
  const long blocks = (COLS + 31) / 32, tiles = TOKENS / TILE;
  for (long block = blocks * core_id / TASKS; block < blocks * (core_id + 1) / TASKS; block++) {
    f32 panel[32 * PANEL_STRIDE] __attribute__((aligned(64)));
    f32 sums[TOKENS * 32] __attribute__((aligned(64)));  // tile by tile, column by column
    for (long i = 0; i < TOKENS * 32; i += LANES) STORE(sums + i, SPLAT(0));
    for (long first = 0; first < PADDED_ROWS; first += PANEL_ROWS) {
      const int rows = PADDED_ROWS - first < PANEL_ROWS ? PADDED_ROWS - first : PANEL_ROWS;
      for (int r = 0; r < rows; r += 16) COLUMNS(w, (first + r) / 16, block, panel + PANEL(0, r));
      for (long tile = 0; tile < tiles; tile++) {
        const f32* grads = dy + (tile * PADDED_ROWS + first) * TILE;
        for (int c = 0; c < 32; c += WIDE) {
          f32* at = sums + (tile * 32 + c) * TILE;
          vf acc[WIDE][2];
          UNROLL for (int j = 0; j < WIDE; j++)
            UNROLL for (int i = 0; i < 2; i++) acc[j][i] = LOAD(vf, at + j * TILE + i * LANES);
          for (int r = 0; r < rows; r++) {
            const vf g0 = LOAD(vf, grads + r * TILE), g1 = LOAD(vf, grads + r * TILE + LANES);
            UNROLL for (int j = 0; j < WIDE; j++) {
              const f32 x = panel[PANEL(c + j, r)];
              acc[j][0] += g0 * x;
              acc[j][1] += g1 * x;
            }
          }
          UNROLL for (int j = 0; j < WIDE; j++)
            UNROLL for (int i = 0; i < 2; i++) STORE(at + j * TILE + i * LANES, acc[j][i]);
        }
      }
    }
    for (long t = 0; t < TOKENS; t += LANES)
      for (int c = 0; c < 32; c += LANES) {
        const f32* from = sums + (t / TILE * 32 + c) * TILE + t % TILE;
        f32* to = dx + t * COLS + 32 * block + c;
        vf square[LANES];
        UNROLL for (int i = 0; i < LANES; i++) square[i] = LOAD(vf, from + i * TILE);
        transpose(square);
        const int cols = COLS - 32 * block - c;
        for (int i = 0; i < LANES; i++) {
          if (cols >= LANES) STORE(to + (long)i * COLS, ADD ? LOAD(vf, to + (long)i * COLS) + square[i] : square[i]);
          else
            for (int j = 0; j < cols; j++) to[(long)i * COLS + j] = ADD ? to[(long)i * COLS + j] + square[i][j] : square[i][j];
        }
      }
  }
}
