// q, k, v = norm(x) @ w.T; q and k are turned by RoPE, k and v are stored in the cache where the tokens stand (place.h). A bias is added first
// where BIAS.

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

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT q, GLOBAL CACHE* RESTRICT cache_k, GLOBAL CACHE* RESTRICT cache_v, const GLOBAL float* RESTRICT x,
             NORM_PARAM const GLOBAL uchar* RESTRICT w0, const GLOBAL uchar* RESTRICT w1, const GLOBAL uchar* RESTRICT w2 CHANGES,
             const GLOBAL float* RESTRICT rope, BIAS_PARAM PLACE_PARAM) {
  const int any_tile = group_id(1), part = any_tile < Q_TILES ? 0 : any_tile < Q_TILES + KV_TILES ? 1 : 2;
  const int tile = any_tile - (part == 0 ? 0 : part == 1 ? Q_TILES : Q_TILES + KV_TILES);
  const int first_bias = (part == 0 ? 0 : part == 1 ? Q_HEADS : Q_HEADS + KV_HEADS) * HEAD_DIM;
  PRODUCT((part == 0 ? Q_HEADS : KV_HEADS) * HEAD_DIM, TILE_ROWS,
    const int in_head = row % HEAD_DIM;
    const long position = POSITION_OF(t);
    const long to = (((long)SLOT_OF(t) * KV_HEADS + row / HEAD_DIM) * CACHE_ROWS + position) * HEAD_DIM + in_head;
    const GLOBAL float* turn = rope + position * HEAD_DIM + in_head / 2 * 2;
    const float other = BIASED(shared[at ^ 1], row ^ 1); /* of an adjacent pair */
    const float own = BIASED(shared[at], row);
    const float turned = own * turn[0] + (row % 2 ? other : -other) * turn[1];
    if (part == 0) q[(long)t * Q_HEADS * HEAD_DIM + row] = turned;
    else if (IS_THERE(t)) {
      if (part == 1) STORE(turned, cache_k, to);
      else STORE(own, cache_v, to);
    }
  )
}
