// Rows of floats, normed where NORM, as a buffer of activations (activations.h), by a work-group each; where GATHERED, those that `rows` names

QUANTIZE_ROW(quantize_row, GLOBAL)

#if NORM
#define NORM_PARAM , const GLOBAL float* RESTRICT norm
#define WEIGHTS norm
#else
#define NORM_PARAM
#define WEIGHTS x
#endif

#if GATHERED
#define ROWS_PARAM , const GLOBAL int* RESTRICT rows
#define ROW max(rows[group_id(0)], 0)
#else
#define ROWS_PARAM
#define ROW group_id(0)
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x NORM_PARAM ROWS_PARAM) {
  LOCAL_ARRAY(float, scratch, ITEMS);
  GLOBAL float* to = out + (long)group_id(0) * ACTIVATION_WORDS(COLS);
  quantize_row(x + (long)ROW * COLS, WEIGHTS, (GLOBAL int*)(to + COLS), (GLOBAL float*)(to + COLS + COLS / 4), to, scratch);
}
