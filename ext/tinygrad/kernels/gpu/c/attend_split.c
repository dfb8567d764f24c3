// attend_decode.c for devices without shuffles and for any head size that is a multiple of four. HEAD_DIM / 4 items share a position; scores are summed in
// local memory. The splits are combined by attend_combine.c.

#include "cache.h"
#include "place.h"
#include "scores.h"

#define WIDTH (HEAD_DIM / 4)     // items that share a position
#define ABREAST (ITEMS / WIDTH)  // positions side by side
#define STEPS 2
#define CHUNK (ABREAST * STEPS)
#define DOTS (HEADS * CHUNK * (WIDTH + 1))
#define SUMS (ABREAST * (HEAD_DIM + 1))

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT partial, const GLOBAL float* RESTRICT q,
                    const GLOBAL CACHE* RESTRICT k, const GLOBAL CACHE* RESTRICT v, PLACE_PARAM) {
  LOCAL_ARRAY(float, parts, DOTS > SUMS ? DOTS : SUMS);
  LOCAL_ARRAY(float, scores, HEADS * CHUNK);
  const int item = item_id(), lane = item % WIDTH, at = item / WIDTH, split = group_id(1), t = group_id(2);
  const int head = group_id(0) * HEADS, n = POSITION_OF(t) + 1, from = FIRST_SEEN(n), chunks = (n - from + CHUNK - 1) / CHUNK;
  const int begin = from + chunks * split / SPLITS * CHUNK, end = min(n, from + chunks * (split + 1) / SPLITS * CHUNK);
  const long cache = ((long)SLOT_OF(t) * (HEADS_IN_ALL / HEADS_PER_KV) + head / HEADS_PER_KV) * CACHE_ROWS * CACHE_ROW;
  q += (long)t * HEADS_IN_ALL * HEAD_DIM, partial += (long)t * HEADS_IN_ALL * SPLITS * (HEAD_DIM + 2);
  float4 query[HEADS], sum[HEADS];
  float best[HEADS], total[HEADS];
  for (int h = 0; h < HEADS; h++) {
    query[h] = load4(q, (long)(head + h) * HEAD_DIM + 4 * lane) * SCALE;
    sum[h] = splat4(0.0f), best[h] = HIDDEN, total[h] = 0;
  }
  for (int first = begin; first < end; first += CHUNK) {
    for (int step = 0; step < STEPS; step++) {
      const int i = step * ABREAST + at, p = first + i;
      const float4 key = p < end ? row4(k + cache + (long)p * CACHE_ROW, 4 * lane) : splat4(0.0f);
      for (int h = 0; h < HEADS; h++) parts[(h * CHUNK + i) * (WIDTH + 1) + lane] = dot4(key, query[h]);
    }
    sync_group();
    for (int i = item; i < HEADS * CHUNK; i += ITEMS) {
      float score = 0;
      for (int l = 0; l < WIDTH; l++) score += parts[i * (WIDTH + 1) + l];
      scores[i] = first + i % CHUNK < end ? capped(score) : HIDDEN;
    }
    sync_group();
    for (int h = 0; h < HEADS; h++) {
      float now = best[h];
      for (int i = 0; i < CHUNK; i++) now = max(now, scores[h * CHUNK + i]);
      const float keep = exp2(best[h] - now);
      sum[h] *= keep, total[h] *= keep, best[h] = now;
    }
    for (int step = 0; step < STEPS; step++) {
      const int i = step * ABREAST + at, p = first + i;
      const float4 value = p < end ? row4(v + cache + (long)p * CACHE_ROW, 4 * lane) : splat4(0.0f);
      for (int h = 0; h < HEADS; h++) {
        const float weight = exp2(scores[h * CHUNK + i] - best[h]);
        sum[h] += weight * value, total[h] += weight;
      }
    }
    sync_group();
  }
  // what stands side by side is summed
  for (int h = 0; h < HEADS; h++) {
    LOCAL float* mine = parts + at * (HEAD_DIM + 1);
    LOCAL float* to_lane = mine + 4 * lane;
    to_lane[0] = sum[h].x, to_lane[1] = sum[h].y, to_lane[2] = sum[h].z, to_lane[3] = sum[h].w;
    if (lane == 0) mine[HEAD_DIM] = total[h];
    sync_group();
    GLOBAL float* to = partial + ((long)(head + h) * SPLITS + split) * (HEAD_DIM + 2);
    for (int d = item; d <= HEAD_DIM; d += ITEMS) {
      float all = 0;
      for (int i = 0; i < ABREAST; i++) all += parts[i * (HEAD_DIM + 1) + d];
      to[d] = all;
    }
    if (item == 0) to[HEAD_DIM + 1] = best[h];
    sync_group();
  }
}
