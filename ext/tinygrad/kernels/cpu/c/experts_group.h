// TOKENS pairs of one expert, from place p on, times a group of rows of its weights; included once per size with SIZED(name), TILE_0 and TILE_1 defined.

INLINE void SIZED(multiply)(f32* out, int p, const i32* pairs, const f32* shares, long group, const u8* w, const u8* up, const u8* x0, const u8* x1) {
  for (long tile = group * (GROUP_ROWS / TILE_ROWS); tile < (group + 1) * (GROUP_ROWS / TILE_ROWS); tile++) {
    vf acc[TOKENS * VECTORS];
    TILE_0(w, tile, OUT_ROWS, x0, acc);
#if GATED
    vf ups[TOKENS * VECTORS];
    TILE_1(up, tile, OUT_ROWS, x1, ups);
#endif
    for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        const int row = ROW(tile, v, OUT_ROWS);
#if GATED
        STORE(out + (long)(p + t) * OUT_ROWS + row, ACTIVATION(acc[t * VECTORS + v]) * ups[t * VECTORS + v]);
#else
        f32* to = out + (long)(pairs[p + t] / USED) * OUT_ROWS + row;
        STORE(to, LOAD(vf, to) + shares[pairs[p + t]] * acc[t * VECTORS + v]);
#endif
      }
  }
}
