// Products for many tokens. A work-group of 256 items takes a tile of SLOTS (4) groups of 16 rows and TILE_TOKENS (16, 32 or 64) tokens. Block by
// block of 32 columns it lays dequantised weights and inputs side by side in local memory; an item sums 4 rows x TILE_TOKENS / 16 tokens in
// registers. A kernel says which group of which weight a slot is: PART_OF(slot), GROUP_OF(slot).

#define TILE_ROWS (GROUP_ROWS * SLOTS)
#define ITEM_TOKENS (TILE_TOKENS / 16)
#define X_PITCH (TILE_TOKENS + 1)
#define SHARED_FLOATS (32 * TILE_ROWS + 32 * X_PITCH)
#define SUM_PITCH TILE_ROWS
#define SUM_TOKENS TILE_TOKENS
#define EACH_STAGE ALL_AT_ONCE
#define GATHER(first)

#define MULTIPLY                                                                                                                     \
  const int item = item_id(), row4 = item % 16 * 4, token0 = item / 16 * ITEM_TOKENS;                                          \
  LOCAL float *ws = shared, *xs = shared + 32 * TILE_ROWS;                                                                         \
  float4 sums[ITEM_TOKENS];                                                                                                          \
  for (int i = 0; i < ITEM_TOKENS; i++) sums[i] = splat4(0.0f);                                                                    \
  for (int b = 0; b < (COLS + 31) / 32; b++) {                                                                                       \
    for (int i = item; i < 8 * TILE_ROWS; i += ITEMS) {                                                                              \
      const int r = i % 16, c = i / 16 % 8, slot = i / 128, group = GROUP_OF(slot);                                                  \
      const float4 w = group * GROUP_ROWS < rows ? WEIGHTS4_OF(PART_OF(slot), group, b, c, r) : splat4(0.0f);                      \
      LOCAL float* to = ws + 4 * c * TILE_ROWS + slot * 16 + r;                                                                    \
      to[0] = w.x, to[TILE_ROWS] = w.y, to[2 * TILE_ROWS] = w.z, to[3 * TILE_ROWS] = w.w;                                            \
    }                                                                                                                                \
    for (int i = item; i < 8 * TILE_TOKENS; i += ITEMS) {                                                                            \
      const int c = i % 8, t = i / 8;                                                                                                \
      const float4 v = token + t < TOKENS ? input_of(INPUT, token + t, 32 * b + 4 * c) : splat4(0.0f);                             \
      LOCAL float* to = xs + 4 * c * X_PITCH + t;                                                                                  \
      to[0] = v.x, to[X_PITCH] = v.y, to[2 * X_PITCH] = v.z, to[3 * X_PITCH] = v.w;                                                  \
    }                                                                                                                                \
    sync_group();                                                                                                    \
    for (int k = 0; k < 32; k++) {                                                                                                   \
      const float4 w = load4_local(ws, k * TILE_ROWS + row4);                                                                         \
      for (int t = 0; t < ITEM_TOKENS; t++) sums[t] += w * xs[k * X_PITCH + token0 + t];                                              \
    }                                                                                                                                \
    sync_group();                                                                                                    \
  }                                                                                                                                  \
  for (int t = 0; t < ITEM_TOKENS; t++) store4_local(sums[t] * INVERSE(token + token0 + t), shared, (token0 + t) * TILE_ROWS + row4);

// what the norm divides each token by comes from rms.c
#if NORM
#define NORM_PARAM const GLOBAL float *RESTRICT norm, const GLOBAL float *RESTRICT inverse_of,
#define INVERSE(t) ((t) < TOKENS ? inverse_of[t] : 0.0f)
#else
#define NORM_PARAM
#define INVERSE(t) 1.0f
#endif

INLINE float4 input_of(INPUT_PARAMS, int t, int col) {
  x += (long)t * COLS;
  return input4(INPUT, col);
}
