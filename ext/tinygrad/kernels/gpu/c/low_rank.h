// Low-rank changes of products: y becomes gain * y + B (A x). A is (rank, COLS), B lies as weights do: 16 rows of a group side by side, for each of
// its columns. A rank is a multiple of 4. What A x gives is float32 and called narrow here; narrow.c sums it in one order, whatever the number of tokens.

#if CHANGE_HALF
#define CHANGE f16
#define CHANGE_AT(p, i) f16_to_float((p)[i])
#define LOAD_CHANGE4(p, i) load4_f16(p, i)
#else
#define CHANGE float
#define CHANGE_AT(p, i) (p)[i]
#define LOAD_CHANGE4(p, i) load4(p, i)
#endif

// s + a . b in one order: a compiler that contracts a sum of products may do it otherwise for another number of tokens
INLINE float add_dot4(float s, float4 a, float4 b) { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, s)))); }

// The sums of a row for `tokens` tokens, `pitch` apart; every `step`th of them from `t` on is changed. `narrow` is the first token's, `stride` before the next one's.
INLINE void change_row(LOCAL float* sums, int pitch, int t, int step, int tokens, const GLOBAL CHANGE* b, int rank, const GLOBAL float* narrow, int stride,
                       float gain, int row) {
  b += (long)(row / GROUP_ROWS) * rank * GROUP_ROWS + row % GROUP_ROWS;
  for (int j = 0; j < rank; j += 4) {
    const float4 of_b = make_float4(CHANGE_AT(b, j * GROUP_ROWS), CHANGE_AT(b, (j + 1) * GROUP_ROWS), CHANGE_AT(b, (j + 2) * GROUP_ROWS),
                                    CHANGE_AT(b, (j + 3) * GROUP_ROWS));
    for (int i = t; i < tokens; i += step) {
      const float y = j ? sums[i * pitch] : sums[i * pitch] * gain;
      sums[i * pitch] = add_dot4(y, load4(narrow, (long)i * stride + j), of_b);
    }
  }
}
