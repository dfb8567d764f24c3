// Heads as projected: a bias first where BIAS, RMSNorm of queries and keys where NORMED (PER_HEAD: each by itself, otherwise all heads of a token together), RoPE,
// and keys and values stored in the cache where the tokens stand (place.h). A work-group takes a head of a token. norm: the queries' weights, then the keys'.

#include "cache.h"
#include "place.h"

#if BIAS
#define BIAS_PARAM const GLOBAL float *RESTRICT bias,
#define BIASED(x, i) ((x) + bias[i])
#else
#define BIAS_PARAM
#define BIASED(x, i) (x)
#endif
#if NORMED
#define WEIGHTS_PARAM const GLOBAL float *RESTRICT norm,
#else
#define WEIGHTS_PARAM
#endif

// blocks wait in local memory until all of their values are there
#if QUANTISED
#define KEEP(x, cache, d) values[d] = x
#else
#define KEEP(x, cache, d) STORE(x, cache, to + (d))
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT q, GLOBAL CACHE* RESTRICT cache_k, GLOBAL CACHE* RESTRICT cache_v, const GLOBAL float* RESTRICT from_q,
                    const GLOBAL float* RESTRICT from_k, const GLOBAL float* RESTRICT from_v, const GLOBAL float* RESTRICT rope, WEIGHTS_PARAM BIAS_PARAM PLACE_PARAM) {
  LOCAL_ARRAY(float, scratch, ITEMS);
#if QUANTISED
  LOCAL_ARRAY(float, values, HEAD_DIM);
#endif
  const int head_of_all = group_id(0), t = group_id(1), part = head_of_all < Q_HEADS ? 0 : head_of_all < Q_HEADS + KV_HEADS ? 1 : 2;
  const int first_head = part == 0 ? 0 : part == 1 ? Q_HEADS : Q_HEADS + KV_HEADS, head = head_of_all - first_head;
  const int heads = part == 0 ? Q_HEADS : KV_HEADS, first_bias = first_head * HEAD_DIM;
  const GLOBAL float* token = (part == 0 ? from_q : part == 1 ? from_k : from_v) + (long)t * heads * HEAD_DIM;
  float inverse = 1.0f;
#if NORMED
  const int begin = PER_HEAD ? head * HEAD_DIM : 0, end = PER_HEAD ? begin + HEAD_DIM : heads * HEAD_DIM;
  float squares = 0;
  for (int i = begin + item_id(); i < end; i += ITEMS) {
    const float x = BIASED(token[i], first_bias + i);
    squares += x * x;
  }
  const float sum = group_sum(squares, scratch);
  const GLOBAL float* weights = norm + (part == 0 ? 0 : PER_HEAD ? HEAD_DIM : Q_HEADS * HEAD_DIM) + (PER_HEAD ? 0 : head * HEAD_DIM);
  if (part < 2) inverse = 1.0f / sqrt(sum / (end - begin) + EPS);
#endif
  const long position = POSITION_OF(t), to = (((long)SLOT_OF(t) * KV_HEADS + head) * CACHE_ROWS + position) * CACHE_ROW;
  for (int d = 2 * item_id(); d < HEAD_DIM; d += 2 * ITEMS) {
    const int i = head * HEAD_DIM + d;
    float even = BIASED(token[i], first_bias + i) * inverse, odd = BIASED(token[i + 1], first_bias + i + 1) * inverse;
#if NORMED
    if (part < 2) even *= weights[d], odd *= weights[d + 1];
#endif
    const GLOBAL float* turn = rope + position * HEAD_DIM + d;
    const float turned_even = even * turn[0] - odd * turn[1], turned_odd = odd * turn[0] + even * turn[1];
    if (part == 0) {
      q[(long)t * Q_HEADS * HEAD_DIM + i] = turned_even;
      q[(long)t * Q_HEADS * HEAD_DIM + i + 1] = turned_odd;
    } else if (IS_THERE(t)) {
      if (part == 1) {
        KEEP(turned_even, cache_k, d);
        KEEP(turned_odd, cache_k, d + 1);
      } else {
        KEEP(even, cache_v, d);
        KEEP(odd, cache_v, d + 1);
      }
    }
  }
#if QUANTISED
  sync_group();
  for (int d = 4 * item_id(); d < HEAD_DIM; d += 4 * ITEMS)
    if (part > 0 && IS_THERE(t)) store4_of_block((part == 1 ? cache_k : cache_v) + to, d, values + d / CACHE_BLOCK * CACHE_BLOCK);
#endif
}
