// 1 / rms(x) of each token, a work-group each; arXiv 1910.07467

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x) {
  LOCAL_ARRAY(float, scratch, ITEMS);
  x += (long)group_id(0) * COLS;
  float squares = 0;
  for (int i = item_id(); i < COLS; i += ITEMS) squares += x[i] * x[i];
  squares = group_sum(squares, scratch);
  if (item_id() == 0) out[group_id(0)] = 1.0f / sqrt(squares / COLS + EPS);
}
