// Products for one token. A work-group takes a tile of SLOTS groups of 16 rows; SPLITS items share a row, each takes every SPLITS-th block of 32
// columns. A kernel says which group of which weight a slot is: PART_OF(slot), GROUP_OF(slot).

#define TILE_TOKENS 1
#define TILE_ROWS (GROUP_ROWS * SLOTS)
#define SHARED LOCAL
#define SPLITS (LOCAL / TILE_ROWS)

#define MULTIPLY                                                                                                                     \
  const int item = get_local_id(0), r = item % GROUP_ROWS, slot = item / GROUP_ROWS % SLOTS;                                         \
  float sum = 0;                                                                                                                     \
  for (int b = item / TILE_ROWS; b < (COLS + 31) / 32; b += SPLITS) sum += BLOCK_OF(PART_OF(slot), GROUP_OF(slot), b, r);            \
  shared[item] = sum;                                                                                                                \
  barrier(CLK_LOCAL_MEM_FENCE);                                                                                                      \
  sum = 0;                                                                                                                           \
  if (item < TILE_ROWS)                                                                                                              \
    for (int s = 0; s < SPLITS; s++) sum += shared[s * TILE_ROWS + item];                                                            \
  barrier(CLK_LOCAL_MEM_FENCE);                                                                                                      \
  if (item < TILE_ROWS) shared[item] = sum * inverse;

// 1 / rms(x), arXiv 1910.07467; every work-group computes it anew, which is cheaper than a launch
#if NORM
#define NORM_PARAM const __global float *restrict norm,
#define PREPARE const float inverse = inverse_rms(x, shared);
INLINE float inverse_rms(const __global float* x, __local float* shared) {
  float squares = 0;
  for (int i = get_local_id(0); i < COLS; i += LOCAL) squares += x[i] * x[i];
  return 1.0f / sqrt(group_sum(squares, shared) / COLS + EPS);
}
#else
#define NORM_PARAM
#define PREPARE const float inverse = 1;
#endif
