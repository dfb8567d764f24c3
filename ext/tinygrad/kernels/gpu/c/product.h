// The body of every product: the sums of tile `tile`, each divided by its token's rms where the norm did not come first, go to shared[t * TILE_ROWS + row in
// tile]; then EMIT runs for each of the EMITTED rows that a tile has of the output, with t, row and `at`, where its sum is.

#define PRODUCT(rows_of_it, EMITTED, EMIT)                                                     \
  LOCAL_ARRAY(float, shared, SHARED_FLOATS);                                                   \
  const int rows = rows_of_it, token = group_id(1) * TILE_TOKENS;                              \
  MULTIPLY                                                                                     \
  sync_group();                                                                                \
  for (int i = item; i < TILE_TOKENS * (EMITTED); i += ITEMS) {                                \
    const int t = token + i / (EMITTED), row = tile * (EMITTED) + i % (EMITTED);               \
    const int at = i / (EMITTED) * TILE_ROWS + i % (EMITTED);                                  \
    if (t < TOKENS && row < rows) { EMIT }                                                     \
  }
