// 1 / rms(x) of each token, a work-group each; arXiv 1910.07467

__kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void ENTRY(__global float* restrict out, const __global float* restrict x) {
  __local float scratch[LOCAL];
  x += (long)get_group_id(0) * COLS;
  float squares = 0;
  for (int i = get_local_id(0); i < COLS; i += LOCAL) squares += x[i] * x[i];
  squares = group_sum(squares, scratch);
  if (get_local_id(0) == 0) out[get_group_id(0)] = 1.0f / sqrt(squares / COLS + EPS);
}
