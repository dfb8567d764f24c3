// Rows of the embedding by token id, a work-group each; an id outside the vocabulary gives zeros
// where ADAPTED, a row of the table is W[i] * gain + A[i] B, A (OUT_ROWS, RANK) and B (RANK, COLS); without a gain where not GAIN
// (the bounds are decided where they are used: oclgrind mixes rows up where they are kept in a variable)

#if ADAPTED
#define CHANGE_PARAMS , const GLOBAL CHANGE *RESTRICT a, const GLOBAL CHANGE *RESTRICT b
#else
#define CHANGE_PARAMS
#endif
#if GAIN
#define GAIN_PARAM , const GLOBAL float* RESTRICT gain
#define GAINED(x, col) ((x) * gain[col])
#else
#define GAIN_PARAM
#define GAINED(x, col) (x)
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL int* RESTRICT ids, const GLOBAL uchar* RESTRICT w CHANGE_PARAMS GAIN_PARAM) {
  const int t = group_id(0), id = ids[t], known = id >= 0 && id < OUT_ROWS;
  const GLOBAL uchar* group = group_0(w, known ? id / GROUP_ROWS : 0);
  for (int i = item_id(); i < (COLS + 3) / 4; i += ITEMS) {
    const float4 x = weights4_0(group, i / 8, i % 8, known ? id % GROUP_ROWS : 0);
    const float values[4] = {x.x, x.y, x.z, x.w};
    for (int j = 0; j < 4 && 4 * i + j < COLS; j++) {
      const int col = 4 * i + j;
      float value = GAINED(values[j], col);
#if ADAPTED
      for (int r = 0; r < RANK; r++) value = fma(CHANGE_AT(a, (long)(known ? id : 0) * RANK + r), CHANGE_AT(b, (long)r * COLS + col), value);
#endif
      out[(long)t * COLS + col] = known ? value : 0.0f;
    }
  }
}
