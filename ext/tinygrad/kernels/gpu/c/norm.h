// RMSNorm (arXiv 1910.07467) of one row of COLS floats, and what a product takes of it, by a whole work-group.

// x, four columns from `col` on, normed where there is a norm; zeros beyond the end
INLINE float4 normed4(const GLOBAL float* x, const GLOBAL float* norm, float inverse, int col) {
#if COLS % 4
  float v[4];
  UNROLL for (int i = 0; i < 4; i++) v[i] = col + i < COLS ? x[col + i] * inverse * (NORM ? norm[col + i] : 1.0f) : 0.0f;
  return make_float4(v[0], v[1], v[2], v[3]);
#else
  if (col >= COLS) return splat4(0.0f);
#if NORM
  return load4(x, col) * inverse * load4(norm, col);
#else
  return load4(x, col);
#endif
#endif
}

// 1 / rms(x)
INLINE float inverse_rms(const GLOBAL float* x, LOCAL float* scratch) {
  float squares = 0;
#if COLS % 4
  for (int i = item_id(); i < COLS; i += ITEMS) squares += x[i] * x[i];
#else
  for (int i = 4 * item_id(); i < COLS; i += 4 * ITEMS) {
    const float4 v = load4(x, i);
    squares += dot4(v, v);
  }
#endif
  return 1.0f / sqrt(group_sum(squares, scratch) / COLS + EPS);
}

// Eight neighbouring items share a block of 32 columns. SPACE is where the results go: LOCAL or GLOBAL. Ends with everything written and visible.
#define QUANTIZE_ROW(NAME, SPACE)                                                                                                                 \
  INLINE void NAME(const GLOBAL float* x, const GLOBAL float* norm, SPACE int* quants, SPACE float* scales, SPACE float* floats, LOCAL float* scratch) { \
    const float inverse = NORM ? inverse_rms(x, scratch) : 1.0f;                                                                                  \
    for (int first = 0; first < COLS; first += 4 * ITEMS) {                                                                                       \
      const int col = first + 4 * item_id();                                                                                                      \
      const float4 v = normed4(x, norm, inverse, col);                                                                                            \
      if (FLOAT_INPUT) {                                                                                                                          \
        if (col < COLS) floats[col] = v.x;                                                                                                        \
        if (col + 1 < COLS) floats[col + 1] = v.y;                                                                                                \
        if (col + 2 < COLS) floats[col + 2] = v.z;                                                                                                \
        if (col + 3 < COLS) floats[col + 3] = v.w;                                                                                                \
      }                                                                                                                                           \
      if (INT_INPUT) {                                                                                                                            \
        const float peak = largest_of_8(magnitude(v), scratch);                                                                                   \
        if (col < COLS) quants[col / 4] = quantize4(v, peak);                                                                                     \
        if (col < COLS && col % 32 == 0) scales[col / 32] = peak / 127.0f;                                                                        \
      }                                                                                                                                           \
    }                                                                                                                                             \
    sync_group();                                                                                                                                 \
  }
