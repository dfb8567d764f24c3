// RMSNorm of rows.

WIDE_VECTORS void ENTRY(f32* restrict out, const f32* restrict x, const f32* restrict norm, long core_id) {
  for (long t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) norm_row(x + t * COLS, norm, EPS, COLS, out + t * COLS);
}
