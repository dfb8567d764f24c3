// dx = the gradient of RMSNorm at x (TOKENS, COLS) for dy: with r = 1 / rms(x) and g = dy * norm, r * g - x * r^3 * mean(g * x); with a residual added
// where RESIDUAL.

WIDE_VECTORS void ENTRY(f32* restrict dx, const f32* restrict dy, const f32* restrict x, const f32* restrict norm,
#if RESIDUAL
           const f32* restrict residual,
#endif
           long core_id) {
  for (long t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    const f32 *row = x + t * COLS, *grad = dy + t * COLS;
    const f32 r = inverse_rms(row, COLS, EPS);
    vf sum = SPLAT(0);
    int c = 0;
    for (; c + LANES <= COLS; c += LANES) sum += LOAD(vf, row + c) * LOAD(vf, grad + c) * LOAD(vf, norm + c);
    f32 total = sum_lanes(sum);
    for (; c < COLS; c++) total += row[c] * grad[c] * norm[c];
    const f32 share = total / (f32)COLS * r * r * r;
    for (c = 0; c < COLS; c++) {
      f32 value = grad[c] * norm[c] * r - row[c] * share;
#if RESIDUAL
      value += residual[t * COLS + c];
#endif
      dx[t * COLS + c] = value;
    }
  }
}
