// Products for one token, or for a few (TOKENS), each of which is summed as it would be alone. A work-group takes SLOTS groups of 16 rows of TILE_TOKENS tokens;
// each group is shared by SPLITS warps of 32 items, which take pairs of blocks of 32 columns in turn and have LOADS of them in flight. A kernel says which
// group of which weight a slot is: PART_OF(slot), GROUP_OF(slot).
//
// Activations come in two forms: int8 with a scale for every 32 columns (amax / 127, rounded to nearest even, as llama.cpp does) for integer weights, floats for
// float weights. With NORM (one token alone) every work-group makes them itself, in local memory: cheaper than a launch, and the first weights are fetched
// meanwhile. Without, they come from a buffer (activations.h).

#define TILE_ROWS (GROUP_ROWS * SLOTS)
#define WARPS (ITEMS / 32)
#define SPLITS (WARPS / SLOTS)

#if NORM
#define INPUT_SPACE LOCAL
#define INPUT_WORDS 0  // between two tokens
#define NORM_PARAM const GLOBAL float *RESTRICT norm,
#define DECLARE_INPUT                                  \
  LOCAL_ARRAY(int, x_quants, INT_INPUT ? COLS / 4 : 1); \
  LOCAL_ARRAY(float, x_scales, INT_INPUT ? COLS / 32 : 1); \
  LOCAL_ARRAY(float, x_floats, FLOAT_INPUT ? COLS : 1);
#define PREPARE                                                              \
  prefetch_group(WEIGHTS_OF(PART_OF(0), GROUP_OF(0)));                       \
  norm_and_quantize(x, norm, x_quants, x_scales, x_floats, scratch);
#else
#define INPUT_SPACE GLOBAL
#define INPUT_WORDS ACTIVATION_WORDS(COLS)
#define NORM_PARAM
#define DECLARE_INPUT                                                         \
  const GLOBAL float* x_floats = (const GLOBAL float*)x + (long)token * INPUT_WORDS; \
  const GLOBAL int* x_quants = activation_quants((const GLOBAL uchar*)x_floats);     \
  const GLOBAL float* x_scales = activation_scales((const GLOBAL uchar*)x_floats);
#define PREPARE
#endif
#define INPUT_PARAMS const INPUT_SPACE int *x_quants, const INPUT_SPACE float *x_scales, const INPUT_SPACE float *x_floats
#define INPUT x_quants, x_scales, x_floats

// where the warps of a work-group leave their sums, token by token: 16 rows by what could not be summed without local memory
#if HAS_SHUFFLE
#define PARTS 1
#else
#define PARTS 16
#endif
#define SHARED_FLOATS (TILE_TOKENS * TILE_ROWS)
#define SUM_PITCH TILE_ROWS
#define SUM_TOKENS TILE_TOKENS
#define EACH_STAGE ALL_AT_ONCE
#define GATHER(first)
#define TOKEN_SUMS (PARTS * GROUP_ROWS)
#define WARP_SUMS (TILE_TOKENS * TOKEN_SUMS)
#define SCRATCH (WARPS * WARP_SUMS > ITEMS ? WARPS * WARP_SUMS : ITEMS)

#define MULTIPLY                                                                                                             \
  LOCAL_ARRAY(float, scratch, SCRATCH);                                                                                      \
  DECLARE_INPUT                                                                                                              \
  const int item = item_id(), lane = item % 32, warp = item / 32, slot = warp % SLOTS;                                       \
  PREPARE                                                                                                                    \
  if (GROUP_OF(slot) * GROUP_ROWS < rows)                                                                                    \
    MULTIPLY_OF(PART_OF(slot), FIRST_GROUP + GROUP_OF(slot), warp / SLOTS, lane, scratch + warp * WARP_SUMS, INPUT);                       \
  sync_group();                                                                                                              \
  for (int i = item; i < SHARED_FLOATS; i += ITEMS) {                                                                        \
    const int of = i / TILE_ROWS, row_in_tile = i % TILE_ROWS;                                                               \
    const LOCAL float* sums = scratch + row_in_tile / GROUP_ROWS * WARP_SUMS + of * TOKEN_SUMS + row_in_tile % GROUP_ROWS;   \
    float sum = 0;                                                                                                           \
    for (int s = 0; s < SPLITS * PARTS; s++) sum += sums[s / PARTS * SLOTS * WARP_SUMS + s % PARTS * GROUP_ROWS];            \
    shared[i] = sum;                                                                                                         \
  }

// sums[r] of rows 4 (lane % 4) + r, summed over the eight lanes that share them
INLINE void put_sums4(const float* sums, int lane, LOCAL float* to) {
  UNROLL for (int r = 0; r < 4; r++) {
    float sum = sums[r];
#if HAS_SHUFFLE
    for (int mask = 4; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
    if (lane < 4) to[4 * lane + r] = sum;
#else
    to[lane / 4 * GROUP_ROWS + 4 * (lane % 4) + r] = sum;
    to[(8 + lane / 4) * GROUP_ROWS + 4 * (lane % 4) + r] = 0;
#endif
  }
}

// sums[r] of rows 8 (lane % 2) + r, summed over the sixteen lanes that share them
INLINE void put_sums8(const float* sums, int lane, LOCAL float* to) {
  UNROLL for (int r = 0; r < 8; r++) {
    float sum = sums[r];
#if HAS_SHUFFLE
    for (int mask = 2; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
    if (lane < 2) to[8 * lane + r] = sum;
#else
    to[lane / 2 * GROUP_ROWS + 8 * (lane % 2) + r] = sum;
#endif
  }
}

#if NORM
QUANTIZE_ROW(norm_and_quantize, LOCAL)

// ask for what the loop reads first
INLINE void prefetch_group(const GLOBAL uchar* group) {
  for (int i = 128 * item_id(); i < LOADS * SPLITS * 64 * GROUP_ROWS / 2; i += 128 * ITEMS) prefetch_line(group + i);
}
#endif
