// Rows of the embedding by token id, a work-group each; an id outside the vocabulary gives zeros

__kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void ENTRY(__global float* restrict out, const __global int* restrict ids, const __global uchar* restrict w) {
  const int t = get_group_id(0), id = ids[t], known = id >= 0 && id < OUT_ROWS;
  for (int i = get_local_id(0); i < (COLS + 3) / 4; i += LOCAL) {
    const float4 x = known ? weights4_0(group_0(w, id / GROUP_ROWS), i / 8, i % 8, id % GROUP_ROWS) : (float4)(0.0f);
    const float values[4] = {x.x, x.y, x.z, x.w};
    for (int j = 0; j < 4 && 4 * i + j < COLS; j++) out[(long)t * COLS + 4 * i + j] = values[j];
  }
}
