// Rows of x normed: RMSNorm added to a residual where RESIDUAL; LayerNorm (arXiv 1607.06450) where CENTRED, with a bias where BIAS.

void ENTRY(f32* restrict out, const f32* restrict x, const f32* restrict norm,
#if RESIDUAL
           const f32* restrict residual,
#endif
#if BIAS
           const f32* restrict bias,
#endif
           long core_id) {
  for (long t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    const f32* row = x + t * COLS;
    f32 mean = 0.0f;
#if CENTRED
    vf total = SPLAT(0);
    for (int c = 0; c + LANES <= COLS; c += LANES) total += LOAD(vf, row + c);
    mean = sum_lanes(total);
    for (int c = COLS / LANES * LANES; c < COLS; c++) mean += row[c];
    mean /= (f32)COLS;
#endif
    vf squares = SPLAT(0);
    for (int c = 0; c + LANES <= COLS; c += LANES) {
      const vf v = LOAD(vf, row + c) - mean;
      squares += v * v;
    }
    f32 sum = sum_lanes(squares);
    for (int c = COLS / LANES * LANES; c < COLS; c++) sum += (row[c] - mean) * (row[c] - mean);
    const f32 r = 1.0f / __builtin_sqrtf(sum / (f32)COLS + EPS);
    for (int c = 0; c < COLS; c++) {
      f32 value = (row[c] - mean) * r * norm[c];
#if BIAS
      value += bias[c];
#endif
#if RESIDUAL
      value += residual[t * COLS + c];
#endif
      out[t * COLS + c] = value;
    }
  }
}
