// Rows of the embedding by token id; an id outside the vocabulary gives zeros. Changed by A[id] B and a gain where RANK and GAIN. Times SCALE where
// SCALED.

void ENTRY(f32* restrict out, const i32* restrict ids, const u8* restrict w,
#if RANK
           const CHANGE* restrict a, const CHANGE* restrict b,
#endif
#if GAIN
           const f32* restrict gain,
#endif
           long core_id) {
  for (int t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    f32* to = out + (long)t * COLS;
    if (ids[t] >= 0 && ids[t] < OUT_ROWS) ROW_0(w, ids[t], to);
    else
      for (int c = 0; c < COLS; c++) to[c] = 0;
#if GAIN
    for (int c = 0; c < COLS; c++) to[c] *= gain[c];
#endif
#if RANK
    if (ids[t] >= 0 && ids[t] < OUT_ROWS)
      for (int j = 0; j < RANK; j++) {
        const f32 share = change_at(a + (long)ids[t] * RANK + j);
        for (int c = 0; c < COLS; c++) to[c] += share * change_at(b + (long)j * COLS + c);
      }
#endif
#if SCALED
    for (int c = 0; c < COLS; c++) to[c] *= SCALE;
#endif
  }
}
