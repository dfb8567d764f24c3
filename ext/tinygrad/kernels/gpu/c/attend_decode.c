// Attention of one token, or of each of several that stand where place.h says, with an online softmax (arXiv 2205.14135): a work-group takes HEADS query heads of one kv head and a stretch of the positions (a
// split). LANES items share a position, eight dimensions of it each, so that an item reads 16 bytes of a half-precision cache, 8 and a scale of one of 8-bit blocks. Every warp of 32 items keeps
// a softmax of its own; the warps of a work-group are combined in local memory, the splits by whichever work-group is the last to arrive.
//
// out is a buffer of activations (activations.h) of HEADS_IN_ALL * HEAD_DIM columns. counters: zero before and after, one for each group of heads of a token.

#include "cache.h"
#include "place.h"
#include "scores.h"

#define LANES (HEAD_DIM / 8)
#define ABREAST (32 / LANES)  // positions side by side in a warp
#define WARPS (ITEMS / 32)
#define STATE (HEAD_DIM + 2)  // of a head: weighted sum of the values, sum of the weights, largest score
#define GROUPS (HEADS_IN_ALL / HEADS)
#define OUT_WORDS (HEAD_DIM % 32 ? HEADS_IN_ALL * HEAD_DIM : ACTIVATION_WORDS(HEADS_IN_ALL * HEAD_DIM))

typedef struct { float4 low, high; } Eight;

INLINE Eight load8(const GLOBAL CACHE* row, int d) {
  Eight x;
#if QUANTISED
#if HEAD_DIM % 128
  const uint low = load_cached4((const GLOBAL uint*)(row + d)), high = load_cached4((const GLOBAL uint*)(row + d) + 1);
#else
  const uint2 bytes = load_cached8((const GLOBAL uint2*)(row + d));
  const uint low = bytes.x, high = bytes.y;
#endif
  const float scale = f16_to_float(load_cached2(scale_of(row, d)));
  x.low = signed_bytes(low) * scale, x.high = signed_bytes(high) * scale;
#elif CACHE_HALF
  const uint4 bits = load_once((const GLOBAL uint4*)(row + d));
  x.low = make_float4(f16_to_float((f16)(bits.x & 0xffff)), f16_to_float((f16)(bits.x >> 16)), f16_to_float((f16)(bits.y & 0xffff)), f16_to_float((f16)(bits.y >> 16)));
  x.high = make_float4(f16_to_float((f16)(bits.z & 0xffff)), f16_to_float((f16)(bits.z >> 16)), f16_to_float((f16)(bits.w & 0xffff)), f16_to_float((f16)(bits.w >> 16)));
#else
  x.low = load4(row, d), x.high = load4(row, d + 4);
#endif
  return x;
}

// the sum of `x` over the LANES items that share a position
INLINE float sum_lanes(float x) {
  for (int mask = 1; mask < LANES; mask *= 2) x += shuffle_xor(x, mask);
  return x;
}

KERNEL(ITEMS) ENTRY(GLOBAL float* out, GLOBAL float* partial, GLOBAL int* counters, const GLOBAL float* RESTRICT q,
                    const GLOBAL CACHE* RESTRICT k, const GLOBAL CACHE* RESTRICT v, PLACE_PARAM) {
  LOCAL_ARRAY(float, states, WARPS * HEADS * STATE);
  LOCAL_ARRAY(int, last, 1);
  const int item = item_id(), lane = item % LANES, at = item % 32 / LANES, warp = item / 32, split = group_id(1), t = group_id(2);
  const int group = t * GROUPS + group_id(0), head = group_id(0) * HEADS, n = POSITION_OF(t) + 1, from = FIRST_SEEN(n);
  const int steps = (n - from + WARPS * ABREAST - 1) / (WARPS * ABREAST);  // of a whole work-group
  const int begin = steps * split / SPLITS, end = steps * (split + 1) / SPLITS;
  const long cache = ((long)SLOT_OF(t) * (HEADS_IN_ALL / HEADS_PER_KV) + head / HEADS_PER_KV) * CACHE_ROWS * CACHE_ROW;
  q += (long)t * HEADS_IN_ALL * HEAD_DIM, out += (long)t * OUT_WORDS, partial += (long)t * HEADS_IN_ALL * SPLITS * STATE;
  Eight query[HEADS], sum[HEADS];
  float best[HEADS], total[HEADS];
  UNROLL for (int h = 0; h < HEADS; h++) {
    query[h].low = load4(q, (long)(head + h) * HEAD_DIM + 8 * lane) * SCALE;
    query[h].high = load4(q, (long)(head + h) * HEAD_DIM + 8 * lane + 4) * SCALE;
    sum[h].low = sum[h].high = splat4(0.0f), best[h] = HIDDEN, total[h] = 0;
  }
  for (int first = begin; first < end; first += STEPS) {
    Eight key[STEPS], value[STEPS];
    UNROLL for (int s = 0; s < STEPS; s++) {
      // beyond the end the newest position again, whose weight is then zero: no branch keeps loads from being in flight together
      const long row = cache + (long)min(from + ((first + s) * WARPS + warp) * ABREAST + at, n - 1) * CACHE_ROW;
      key[s] = load8(k + row, 8 * lane), value[s] = load8(v + row, 8 * lane);
    }
    UNROLL for (int h = 0; h < HEADS; h++) {
      float score[STEPS], now = best[h];
      UNROLL for (int s = 0; s < STEPS; s++) {
        score[s] = capped(sum_lanes(dot4(key[s].low, query[h].low) + dot4(key[s].high, query[h].high)));
        if (first + s >= end || from + ((first + s) * WARPS + warp) * ABREAST + at >= n) score[s] = HIDDEN;
        now = max(now, score[s]);
      }
      const float keep = exp2(best[h] - now);
      best[h] = now, total[h] *= keep;
      sum[h].low *= keep, sum[h].high *= keep;
      UNROLL for (int s = 0; s < STEPS; s++) {
        const float weight = score[s] <= HIDDEN ? 0.0f : exp2(score[s] - now);
        total[h] += weight;
        sum[h].low += value[s].low * weight, sum[h].high += value[s].high * weight;
      }
    }
  }
  // the positions side by side of a warp, then its state in local memory
  UNROLL for (int h = 0; h < HEADS; h++) {
    float now = best[h];
    for (int mask = LANES; mask < 32; mask *= 2) now = max(now, shuffle_xor(now, mask));
    const float keep = exp2(best[h] - now);
    float mine[9] = {sum[h].low.x, sum[h].low.y, sum[h].low.z, sum[h].low.w, sum[h].high.x, sum[h].high.y, sum[h].high.z, sum[h].high.w, total[h]};
    LOCAL float* to = states + (warp * HEADS + h) * STATE;
    UNROLL for (int i = 0; i < 9; i++) {
      mine[i] *= keep;
      for (int mask = LANES; mask < 32; mask *= 2) mine[i] += shuffle_xor(mine[i], mask);
      if (at == 0 && i < 8) to[8 * lane + i] = mine[i];
    }
    if (at == 0 && lane == 0) to[HEAD_DIM] = mine[8], to[HEAD_DIM + 1] = now;
  }
  sync_group();
  // the warps
  for (int i = item; i < HEADS * HEAD_DIM; i += ITEMS) {
    const int h = i / HEAD_DIM, d = i % HEAD_DIM;
    float now = HIDDEN, value = 0, weights = 0;
    for (int w = 0; w < WARPS; w++) now = max(now, states[(w * HEADS + h) * STATE + HEAD_DIM + 1]);
    for (int w = 0; w < WARPS; w++) {
      const LOCAL float* state = states + (w * HEADS + h) * STATE;
      const float weight = exp2(state[HEAD_DIM + 1] - now);
      value += weight * state[d], weights += weight * state[HEAD_DIM];
    }
    volatile GLOBAL float* to = partial + ((long)(head + h) * SPLITS + split) * STATE;
    to[d] = value;
    if (d == 0) to[HEAD_DIM] = weights, to[HEAD_DIM + 1] = now;
  }
  // the splits: what the others wrote is visible to the last
  publish_writes();
  sync_group();
  if (item == 0) last[0] = count_arrival(counters + group) == SPLITS - 1;
  sync_group();
  const int mine_is_last = last[0];
  if (mine_is_last) fence_global();
  for (int i = item; i < (mine_is_last ? HEADS * HEAD_DIM : 0); i += ITEMS) {
    const int h = i / HEAD_DIM, d = i % HEAD_DIM;
    const volatile GLOBAL float* from = partial + (long)(head + h) * SPLITS * STATE;
    float now = HIDDEN, value = 0, weights = 0;
    for (int s = 0; s < SPLITS; s++) now = max(now, from[s * STATE + HEAD_DIM + 1]);
    for (int s = 0; s < SPLITS; s++) {
      const float weight = exp2(from[s * STATE + HEAD_DIM + 1] - now);
      value += weight * from[s * STATE + d], weights += weight * from[s * STATE + HEAD_DIM];
    }
    value /= weights;
    out[(long)head * HEAD_DIM + i] = value;
    states[i] = value;
  }
  sync_group();
  if (!mine_is_last) return;
  if (item == 0) counters[group] = 0;
#if HEAD_DIM % 32 == 0
  quantize_values(states, head * HEAD_DIM, HEADS * HEAD_DIM, HEADS_IN_ALL * HEAD_DIM, out);
#endif
}
