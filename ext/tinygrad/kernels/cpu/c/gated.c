// out = silu(norm(x) @ gate.TOKENS) * (norm(x) @ up.TOKENS)

void ENTRY(f32* restrict out, INPUTS, const u8* restrict gate, const u8* restrict up, long core_id) {
  PREPARE
  for (long tile = SHARE(core_id, TILES(OUT_ROWS), TASKS); tile < SHARE(core_id + 1, TILES(OUT_ROWS), TASKS); tile++) {
    vf gates[TOKENS * VECTORS], ups[TOKENS * VECTORS];
    TILE_0(gate, tile, INPUT_0, gates);
    TILE_1(up, tile, INPUT_1, ups);
    for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < VECTORS; v++)
        store_rows(out + (long)t * OUT_ROWS, silu(gates[t * VECTORS + v]) * ups[t * VECTORS + v], tile * TILE_ROWS + v * LANES, OUT_ROWS);
  }
}
