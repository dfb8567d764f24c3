// The experts' products, for PAIRS = tokens times USED pairs of a token and an expert that it uses; ids by pair. A task takes some tiles of every
// expert, so that a tile is read once for all pairs that need it, and an expert that none needs is not read.
// GATED: out (PAIRS, OUT_ROWS) = ACTIVATION(x @ gate.T) * (x @ up.T), x by token. Otherwise out (tokens, OUT_ROWS) = residual + the sum over a
// token's pairs of share * (x @ down.T), x by pair.

#define EXPERT_GROUPS ((OUT_ROWS + GROUP_ROWS - 1) / GROUP_ROWS)

void ENTRY(f32* restrict out, INPUTS, const u8* restrict w,
#if GATED
           const u8* restrict up, const i32* restrict ids,
#else
           const i32* restrict ids, const f32* restrict shares, const f32* restrict residual,
#endif
           long core_id) {
  const long first = SHARE(core_id, TILES(OUT_ROWS), SPLIT), last = SHARE(core_id + 1, TILES(OUT_ROWS), SPLIT);
#if !GATED
  for (long t = 0; t < PAIRS / USED; t++)
    for (long i = first * TILE_ROWS; i < last * TILE_ROWS && i < OUT_ROWS; i++) out[t * OUT_ROWS + i] = residual[t * OUT_ROWS + i];
#endif
  for (long e = 0; e < EXPERTS; e++) {
    int used = 0;
    for (int p = 0; p < PAIRS; p++) used |= ids[p] == e;
    if (!used) continue;
    for (long tile = first; tile < last; tile++)
      for (int p = 0; p < PAIRS; p++) {
        if (ids[p] != e) continue;
        const u8* x0 = INPUT_0 + (GATED ? p / USED : p) * (long)INPUT_ROW_0;
        vf acc[VECTORS];
        TILE_0(w + e * (long)EXPERT_BYTES_0, tile, OUT_ROWS, x0, acc);
#if GATED
        const u8* x1 = INPUT_1 + p / USED * (long)INPUT_ROW_1;
        vf ups[VECTORS];
        TILE_1(up + e * (long)EXPERT_BYTES_1, tile, OUT_ROWS, x1, ups);
        UNROLL for (int v = 0; v < VECTORS; v++)
          store_rows(out + (long)p * OUT_ROWS, ACTIVATION(acc[v]) * ups[v], tile * TILE_ROWS + v * LANES, OUT_ROWS);
#else
        f32* to = out + (long)(p / USED) * OUT_ROWS;
        UNROLL for (int v = 0; v < VECTORS; v++) {
          const int row = tile * TILE_ROWS + v * LANES;
          store_rows(to, load_rows(to, row, OUT_ROWS) + shares[p] * acc[v], row, OUT_ROWS);
        }
#endif
      }
  }
}
