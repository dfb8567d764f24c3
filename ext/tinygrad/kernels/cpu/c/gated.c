// out = ACTIVATION(norm(x) @ gate.TOKENS) * (norm(x) @ up.TOKENS), a bias (the gate's, then the other's) added to both products where BIAS; float32 rows,
// or, where INTEGER_OUT, the blocks that the next product reads (activations.h): a task has whole blocks then.

#define UNIT (INTEGER_OUT ? 32 / TILE_ROWS : GROUP_TILES)  // tiles that stay together
// Tiles of one matrix before as many of the other: a processor that reads ahead by itself begins anew with each change.
#define IN_TURN (PLAIN_READ ? 8 : 1)

void ENTRY(OUT* restrict out, INPUTS, const u8* restrict gate, const u8* restrict up,
#if BIAS
           const f32* restrict bias,
#endif
           CHANGES long core_id) {
  PREPARE
  NARROW_0
  NARROW_1
  out += INTEGER_OUT ? SPAN_START / TOKENS * (OUT_ROWS / 32 * ACT_BLOCK(TOKENS)) : SPAN_START * OUT_ROWS;
#if INTEGER_OUT
  f32 block[TOKENS][32];
#endif
  const long end = END_TILE(core_id, TILES(OUT_ROWS), UNIT);
  vf gates_of[IN_TURN][TOKENS * VECTORS], ups_of[IN_TURN][TOKENS * VECTORS];
  for (long tile = FIRST_TILE(core_id, TILES(OUT_ROWS), UNIT), first = tile; tile < end; tile++) {
    const long place = (tile - first) % IN_TURN;
    if (place == 0) {
      const long n = end - tile < IN_TURN ? end - tile : IN_TURN;
      for (long i = 0; i < n; i++) TILE_0(gate, tile + i, OUT_ROWS, INPUT_0, gates_of[i]);
      for (long i = 0; i < n; i++) TILE_1(up, tile + i, OUT_ROWS, INPUT_1, ups_of[i]);
    }
    vf *gates = gates_of[place], *ups = ups_of[place];
    ADAPT_0(gates, tile)
    ADAPT_1(ups, tile)
    for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        const int row = ROW(tile, v, OUT_ROWS);
#if BIAS
        gates[t * VECTORS + v] += load_rows(bias, row, OUT_ROWS);
        ups[t * VECTORS + v] += load_rows(bias + OUT_ROWS, row, OUT_ROWS);
#endif
        const vf y = ACTIVATION(gates[t * VECTORS + v]) * ups[t * VECTORS + v];
#if INTEGER_OUT
        STORE(block[t] + row % 32, y);
#else
        store_rows(out + (long)t * OUT_ROWS, y, row, OUT_ROWS);
#endif
      }
#if INTEGER_OUT
    if (tile % UNIT == UNIT - 1) quantize_column(block, out + tile / UNIT * ACT_BLOCK(TOKENS), TOKENS);
#endif
  }
}
