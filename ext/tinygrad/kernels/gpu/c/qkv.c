// q, k, v = norm(x) @ w.T; q and k are turned by RoPE, k and v are stored in the cache where the tokens stand (place.h). A bias is added first
// where BIAS.

#include "cache.h"
#include "place.h"

#if BIAS
#define BIAS_PARAM const GLOBAL float *RESTRICT bias,
#define BIASED(x, i) ((x) + bias[first_bias + (i)])
#else
#define BIAS_PARAM
#define BIASED(x, i) (x)
#endif

#define PART_OF(slot) part
#define GROUP_OF(slot) (tile * SLOTS + (slot))
#define TILES(rows) (((rows) + TILE_ROWS - 1) / TILE_ROWS)
#define Q_TILES TILES(Q_HEADS * HEAD_DIM)
#define KV_TILES TILES(KV_HEADS * HEAD_DIM)

// where a head's row of a token is in the cache
#define ROW_AT(t, row) ((((long)SLOT_OF(t) * KV_HEADS + (row) / HEAD_DIM) * CACHE_ROWS + POSITION_OF(t)) * CACHE_ROW)

#if QUANTISED
// values go back among the sums, and to the cache once all of a tile, which has whole blocks, are there
#define KEEP(x, t, row, at) shared[at] = x
#undef FINISH
#define FINISH(first)                                                                                                        \
  sync_group();                                                                                                              \
  for (int i = item; i < SUM_TOKENS * TILE_ROWS / 4; i += ITEMS) {                                                           \
    const int of = i / (TILE_ROWS / 4), in_tile = i % (TILE_ROWS / 4) * 4, t = token + (first) + of, row = tile * TILE_ROWS + in_tile; \
    if (part > 0 && t < TOKENS && row < rows && IS_THERE(t))                                                                 \
      store4_of_block((part == 1 ? cache_k : cache_v) + ROW_AT(t, row), row % HEAD_DIM, shared + of * SUM_PITCH + in_tile / CACHE_BLOCK * CACHE_BLOCK); \
  }
#else
#define KEEP(x, t, row, at) STORE(x, part == 1 ? cache_k : cache_v, ROW_AT(t, row) + (row) % HEAD_DIM)
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT q, GLOBAL CACHE* RESTRICT cache_k, GLOBAL CACHE* RESTRICT cache_v, const GLOBAL float* RESTRICT x,
             NORM_PARAM const GLOBAL uchar* RESTRICT w0, const GLOBAL uchar* RESTRICT w1, const GLOBAL uchar* RESTRICT w2 CHANGES,
             const GLOBAL float* RESTRICT rope, BIAS_PARAM PLACE_PARAM) {
  const int any_tile = group_id(1), part = any_tile < Q_TILES ? 0 : any_tile < Q_TILES + KV_TILES ? 1 : 2;
  const int tile = any_tile - (part == 0 ? 0 : part == 1 ? Q_TILES : Q_TILES + KV_TILES);
  const int first_bias = (part == 0 ? 0 : part == 1 ? Q_HEADS : Q_HEADS + KV_HEADS) * HEAD_DIM;
  // EMIT takes a pair of rows, which turn together
  PRODUCT((part == 0 ? Q_HEADS : KV_HEADS) * HEAD_DIM, TILE_ROWS / 2,
    const int pair = row % (TILE_ROWS / 2);
    const int even_row = row + tile * (TILE_ROWS / 2) + pair;
    const int even_at = at + pair;
    if (even_row < rows) {
      const GLOBAL float* turn = rope + (long)POSITION_OF(t) * HEAD_DIM + even_row % HEAD_DIM;
      const float even = BIASED(shared[even_at], even_row);
      const float odd = BIASED(shared[even_at + 1], even_row + 1);
      const float turned_even = even * turn[0] - odd * turn[1];
      const float turned_odd = odd * turn[0] + even * turn[1];
      if (part == 0) {
        q[(long)t * Q_HEADS * HEAD_DIM + even_row] = turned_even;
        q[(long)t * Q_HEADS * HEAD_DIM + even_row + 1] = turned_odd;
      } else if (IS_THERE(t)) {
        KEEP(part == 1 ? turned_even : even, t, even_row, even_at);
        KEEP(part == 1 ? turned_odd : odd, t, even_row + 1, even_at + 1);
      }
    }
  )
}
