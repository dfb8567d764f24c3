// Rows of floats, normed where NORM, as a buffer of activations (activations.h), by a work-group each

QUANTIZE_ROW(quantize_row, GLOBAL)

#if NORM
#define NORM_PARAM , const GLOBAL float* RESTRICT norm
#define WEIGHTS norm
#else
#define NORM_PARAM
#define WEIGHTS x
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x NORM_PARAM) {
  LOCAL_ARRAY(float, scratch, ITEMS);
  GLOBAL float* to = out + (long)group_id(0) * ACTIVATION_WORDS(COLS);
  quantize_row(x + (long)group_id(0) * COLS, WEIGHTS, (GLOBAL int*)(to + COLS), (GLOBAL float*)(to + COLS + COLS / 4), to, scratch);
}
