// Rows of the embedding by token id; an id outside the vocabulary gives zeros. Times SCALE where SCALED.

void ENTRY(f32* restrict out, const i32* restrict ids, const u8* restrict w, long core_id) {
  for (int t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    f32* to = out + (long)t * COLS;
    if (ids[t] >= 0 && ids[t] < OUT_ROWS) ROW_0(w, ids[t], to);
    else
      for (int c = 0; c < COLS; c++) to[c] = 0;
#if SCALED
    for (int c = 0; c < COLS; c++) to[c] *= SCALE;
#endif
  }
}
