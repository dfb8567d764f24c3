// One row of floats as a buffer of activations (activations.h), by one work-group

QUANTIZE_ROW(quantize_row, GLOBAL)

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x) {
  LOCAL_ARRAY(float, scratch, ITEMS);
  quantize_row(x, x, (GLOBAL int*)(out + COLS), (GLOBAL float*)(out + COLS + COLS / 4), out, scratch);
}
