// The body of every product: the sums of tile `tile`, each divided by its token's rms where there is a norm, go to shared[t * TILE_ROWS + row in
// tile]; then EMIT runs for each of the EMITTED rows that a tile has of the output, with t, row and `at`, where its sum is.

#define KERNEL __kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void

#define PRODUCT(rows_of_it, EMITTED, EMIT)                                                     \
  __local float shared[SHARED];                                                                \
  const int rows = rows_of_it, token = get_group_id(1) * TILE_TOKENS;                          \
  PREPARE                                                                                      \
  MULTIPLY                                                                                     \
  barrier(CLK_LOCAL_MEM_FENCE);                                                                \
  for (int i = item; i < TILE_TOKENS * (EMITTED); i += LOCAL) {                                \
    const int t = token + i / (EMITTED), row = tile * (EMITTED) + i % (EMITTED);               \
    const int at = i / (EMITTED) * TILE_ROWS + i % (EMITTED);                                  \
    if (t < TOKENS && row < rows) { EMIT }                                                     \
  }
