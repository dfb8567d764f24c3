// The input of a product, four columns at a time: rows of x, times the norm's weights where there is a norm. What a norm divides by is one number
// per token and comes last.

#if NORM
#define INPUT_PARAMS const GLOBAL float *x, const GLOBAL float *norm
#define INPUT x, norm
#else
#define INPUT_PARAMS const GLOBAL float *x
#define INPUT x
#endif

INLINE float input1(INPUT_PARAMS, int col) {
#if NORM
  return COLS % 32 == 0 || col < COLS ? x[col] * norm[col] : 0.0f;
#else
  return COLS % 32 == 0 || col < COLS ? x[col] : 0.0f;
#endif
}

INLINE float4 input4(INPUT_PARAMS, int col) {
#if COLS % 32
  return make_float4(input1(INPUT, col), input1(INPUT, col + 1), input1(INPUT, col + 2), input1(INPUT, col + 3));
#elif NORM
  return load4(x, col) * load4(norm, col);
#else
  return load4(x, col);
#endif
}
