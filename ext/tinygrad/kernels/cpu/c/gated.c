// out = ACTIVATION(norm(x) @ gate.TOKENS) * (norm(x) @ up.TOKENS), a bias (the gate's, then the other's) added to both products where BIAS.

void ENTRY(f32* restrict out, INPUTS, const u8* restrict gate, const u8* restrict up,
#if BIAS
           const f32* restrict bias,
#endif
           CHANGES long core_id) {
  PREPARE
  NARROW_0
  NARROW_1
  for (long tile = SHARE(FIRST_TASK(core_id), TILES(OUT_ROWS), TASKS); tile < SHARE(END_TASK(core_id), TILES(OUT_ROWS), TASKS); tile++) {
    vf gates[TOKENS * VECTORS], ups[TOKENS * VECTORS];
    TILE_0(gate, tile, OUT_ROWS, INPUT_0, gates);
    TILE_1(up, tile, OUT_ROWS, INPUT_1, ups);
    ADAPT_0(gates, tile)
    ADAPT_1(ups, tile)
    for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        const int row = ROW(tile, v, OUT_ROWS);
#if BIAS
        gates[t * VECTORS + v] += load_rows(bias, row, OUT_ROWS);
        ups[t * VECTORS + v] += load_rows(bias + OUT_ROWS, row, OUT_ROWS);
#endif
        store_rows(out + (long)t * OUT_ROWS, ACTIVATION(gates[t * VECTORS + v]) * ups[t * VECTORS + v], row, OUT_ROWS);
      }
  }
}
