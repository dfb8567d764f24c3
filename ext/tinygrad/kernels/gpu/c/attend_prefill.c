// Attention of many tokens with an online softmax (arXiv 2205.14135): a work-group takes a query head and QUERIES tokens, eight items share a
// token; keys, then values, of CHUNK positions at a time lie in local memory.

#include "cache.h"
#include "scores.h"

#define WIDTH 8  // items that share a token
#define PITCH (HEAD_DIM + 1)
#define DIMS ((HEAD_DIM + WIDTH - 1) / WIDTH)

// rows first … first + CHUNK - 1 of a cache, zeros from `end` on: what lies there was never written
INLINE void fetch(LOCAL float* to, const GLOBAL CACHE* from, int first, int end) {
  for (int i = item_id(); i < CHUNK * HEAD_DIM / 4; i += ITEMS) {
    const int p = i / (HEAD_DIM / 4), d = i % (HEAD_DIM / 4) * 4;
    const float4 x = first + p < end ? row4(from + (long)(first + p) * CACHE_ROW, d) : splat4(0.0f);
    LOCAL float* row = to + p * PITCH + d;
    row[0] = x.x, row[1] = x.y, row[2] = x.z, row[3] = x.w;
  }
}

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT q,
                                                                       const GLOBAL CACHE* RESTRICT k, const GLOBAL CACHE* RESTRICT v, int start_pos) {
  LOCAL_ARRAY(float, queries, QUERIES * PITCH);
  LOCAL_ARRAY(float, rows, CHUNK * PITCH);
  LOCAL_ARRAY(float, weights, QUERIES * (CHUNK + 1));
  const int item = item_id(), lane = item % WIDTH, t = item / WIDTH, head = group_id(0), token = group_id(1) * QUERIES;
  const int end = start_pos + min(token + QUERIES, TOKENS);  // positions that the last of these tokens sees
  const int sees = min(start_pos + token + t + 1, end), from = FIRST_SEEN(start_pos + token + t + 1);
  k += (long)(head / HEADS_PER_KV) * CACHE_ROWS * CACHE_ROW;
  v += (long)(head / HEADS_PER_KV) * CACHE_ROWS * CACHE_ROW;
  for (int i = item; i < QUERIES * HEAD_DIM; i += ITEMS) {
    const int row = i / HEAD_DIM, d = i % HEAD_DIM;
    queries[row * PITCH + d] = token + row < TOKENS ? q[((long)(token + row) * QUERY_HEADS + head) * HEAD_DIM + d] * SCALE : 0.0f;
  }
  float sum[DIMS], best = HIDDEN, total = 0;
  for (int i = 0; i < DIMS; i++) sum[i] = 0;
  for (int first = FIRST_SEEN(start_pos + token + 1) / CHUNK * CHUNK; first < end; first += CHUNK) {
    fetch(rows, k, first, end);
    sync_group();
    for (int i = lane; i < CHUNK; i += WIDTH) {
      float score = 0;
      for (int d = 0; d < HEAD_DIM; d++) score += queries[t * PITCH + d] * rows[i * PITCH + d];
      weights[t * (CHUNK + 1) + i] = first + i < sees && first + i >= from ? capped(score) : HIDDEN;
    }
    sync_group();
    fetch(rows, v, first, end);
    float now = best;
    for (int i = 0; i < CHUNK; i++) now = max(now, weights[t * (CHUNK + 1) + i]);
    const float keep = exp2(best - now);
    best = now, total *= keep;
    for (int i = 0; i < DIMS; i++) sum[i] *= keep;
    sync_group();
    for (int i = 0; i < CHUNK; i++) {
      const float weight = first + i < sees && first + i >= from ? exp2(weights[t * (CHUNK + 1) + i] - best) : 0.0f;
      total += weight;
      for (int j = 0; j < DIMS; j++)
        if (HEAD_DIM % WIDTH == 0 || lane + WIDTH * j < HEAD_DIM) sum[j] += weight * rows[i * PITCH + lane + WIDTH * j];
    }
    sync_group();
  }
  if (token + t < TOKENS)
    for (int j = 0; j < DIMS; j++)
      if (lane + WIDTH * j < HEAD_DIM) out[((long)(token + t) * QUERY_HEADS + head) * HEAD_DIM + lane + WIDTH * j] = sum[j] / total;
}
