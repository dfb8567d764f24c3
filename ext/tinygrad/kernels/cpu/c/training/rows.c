// Rows of a matrix of COLS columns: out[t] = x[rows[t]], or, where SCATTER, out[rows[t]] += x[t] by one task.

WIDE_VECTORS void ENTRY(f32* restrict out, const f32* restrict x, const i32* restrict rows, long core_id) {
  for (long t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++)
    for (int c = 0; c < COLS; c++) {
      if (SCATTER) out[(long)rows[t] * COLS + c] += x[t * COLS + c];
      else out[t * COLS + c] = x[(long)rows[t] * COLS + c];
    }
}
