// Rows of the embedding by token id, a work-group each; an id outside the vocabulary gives zeros
// (the bounds are decided where they are used: oclgrind mixes rows up where they are kept in a variable)

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL int* RESTRICT ids, const GLOBAL uchar* RESTRICT w) {
  const int t = group_id(0), id = ids[t], known = id >= 0 && id < OUT_ROWS;
  const GLOBAL uchar* group = group_0(w, known ? id / GROUP_ROWS : 0);
  for (int i = item_id(); i < (COLS + 3) / 4; i += ITEMS) {
    const float4 x = weights4_0(group, i / 8, i % 8, known ? id % GROUP_ROWS : 0);
    const float values[4] = {x.x, x.y, x.z, x.w};
    for (int j = 0; j < 4 && 4 * i + j < COLS; j++) out[(long)t * COLS + 4 * i + j] = known ? values[j] : 0.0f;
  }
}
