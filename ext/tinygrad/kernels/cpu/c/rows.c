// ROWS rows of activations, each by itself in the form that the weight tiles of one token read: normed where NORM, then int8 blocks or, where
// FLOAT_INPUT, float32.

void ENTRY(u8* restrict out, const f32* restrict x,
#if NORM
           const f32* restrict norm,
#endif
           long core_id) {
#if !NORM
  const f32* norm = 0;
#endif
  for (long t = ROWS * core_id / TASKS; t < ROWS * (core_id + 1) / TASKS; t++) {
    const f32* row = x + t * COLS;
    u8* to = out + t * (FLOAT_INPUT ? 4L * COLS : COLS / 32 * (long)ACT_BLOCK(1));
    if (!FLOAT_INPUT) quantize_row(row, norm, EPS, COLS, to, 1, 0);
    else if (NORM) norm_row(row, norm, EPS, COLS, (f32*)to);
    else
      for (int c = 0; c < COLS; c++) ((f32*)to)[c] = row[c];
  }
}
