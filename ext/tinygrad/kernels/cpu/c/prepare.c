// Activations of TOKENS tokens for the matmul kernels: normed where NORM, then int8 blocks or, where FLOAT_INPUT, float32 rows.

void ENTRY(u8* restrict out, const f32* restrict x,
#if NORM
           const f32* restrict norm,
#endif
           long core_id) {
#if !NORM
  const f32* norm = 0;
#endif
  for (int t = TOKENS * SPANS * core_id / TASKS; t < TOKENS * SPANS * (core_id + 1) / TASKS; t++) {
    if (FLOAT_INPUT) norm_row(x + (long)t * COLS, norm, EPS, COLS, (f32*)out + (long)t * COLS);
    else quantize_row(x + (long)t * COLS, norm, EPS, COLS, out + t / TOKENS * (COLS / 32 * ACT_BLOCK(TOKENS)), TOKENS, t % TOKENS);
  }
}
