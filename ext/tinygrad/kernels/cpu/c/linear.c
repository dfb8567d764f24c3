// out = x @ w.TOKENS, with a norm before it where NORM, a bias where BIAS, times SCALE where SCALED, a residual added where RESIDUAL, and capped
// at SOFTCAP by a tanh where CAPPED.

void ENTRY(f32* restrict out, INPUTS, const u8* restrict w,
#if RESIDUAL
           const f32* restrict residual,
#endif
#if BIAS
           const f32* restrict bias,
#endif
           CHANGES long core_id) {
  PREPARE
  NARROW_0
  out += SPAN_START * OUT_ROWS;
#if RESIDUAL
  residual += SPAN_START * OUT_ROWS;
#endif
  for (long tile = FIRST_TILE(core_id, TILES(OUT_ROWS), GROUP_TILES); tile < END_TILE(core_id, TILES(OUT_ROWS), GROUP_TILES); tile++) {
    vf acc[TOKENS * VECTORS];
    TILE_0(w, tile, OUT_ROWS, INPUT_0, acc);
    ADAPT_0(acc, tile)
    for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        const int row = ROW(tile, v, OUT_ROWS);
        const long at = (long)t * OUT_ROWS;
#if BIAS
        acc[t * VECTORS + v] += load_rows(bias, row, OUT_ROWS);
#endif
#if SCALED
        acc[t * VECTORS + v] *= SCALE;
#endif
#if RESIDUAL
        acc[t * VECTORS + v] += load_rows(residual + at, row, OUT_ROWS);
#endif
#if CAPPED
        acc[t * VECTORS + v] = vtanh(acc[t * VECTORS + v] / SOFTCAP) * SOFTCAP;
#endif
        store_rows(out + at, acc[t * VECTORS + v], row, OUT_ROWS);
      }
  }
}
