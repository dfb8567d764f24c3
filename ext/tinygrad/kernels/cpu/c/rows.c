// Activations of the experts' pairs, place by place, in the groups that route.c made: normed where NORM, then int8 blocks of a group or, where FLOAT_INPUT, float32.
// x is by token where GATHERED, else by place. ROWS of the places are made: of one token, which all of its experts read, one.

void ENTRY(u8* restrict out, const f32* restrict x,
#if NORM
           const f32* restrict norm,
#endif
           const i32* restrict places, long core_id) {
#if !NORM
  const f32* norm = 0;
#endif
  const i32 *pairs = places, *firsts = places + PAIRS, *sizes = places + 2 * PAIRS;
  for (long p = ROWS * core_id / TASKS; p < ROWS * (core_id + 1) / TASKS; p++) {
    const f32* row = x + (GATHERED ? pairs[p] / USED : p) * COLS;
    if (!FLOAT_INPUT) quantize_row(row, norm, EPS, COLS, out + firsts[p] * PLACE_BYTES, sizes[p], p - firsts[p]);
    else if (NORM) norm_row(row, norm, EPS, COLS, (f32*)(out + p * PLACE_BYTES));
    else
      for (int c = 0; c < COLS; c++) ((f32*)(out + p * PLACE_BYTES))[c] = row[c];
  }
}
