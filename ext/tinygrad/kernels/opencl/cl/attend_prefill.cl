// Attention of many tokens with an online softmax (arXiv 2205.14135): a work-group takes a query head and QUERIES tokens, eight items share a
// token; keys, then values, of CHUNK positions at a time lie in local memory.

#define WIDTH 8  // items that share a token
#define PITCH (HEAD_DIM + 1)
#define DIMS ((HEAD_DIM + WIDTH - 1) / WIDTH)

// rows first … first + CHUNK - 1 of a cache, zeros from `end` on: what lies there was never written
INLINE void fetch(__local float* to, const __global CACHE* from, int first, int end) {
  for (int i = get_local_id(0); i < CHUNK * HEAD_DIM / 4; i += LOCAL) {
    const int p = i / (HEAD_DIM / 4), d = i % (HEAD_DIM / 4) * 4;
    const float4 x = first + p < end ? LOAD4(from, (long)(first + p) * HEAD_DIM + d) : (float4)(0.0f);
    __local float* row = to + p * PITCH + d;
    row[0] = x.x, row[1] = x.y, row[2] = x.z, row[3] = x.w;
  }
}

__kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void ENTRY(__global float* restrict out, const __global float* restrict q,
                                                                       const __global CACHE* restrict k, const __global CACHE* restrict v, int start_pos) {
  __local float queries[QUERIES * PITCH], rows[CHUNK * PITCH], weights[QUERIES * (CHUNK + 1)];
  const int item = get_local_id(0), lane = item % WIDTH, t = item / WIDTH, head = get_group_id(0), token = get_group_id(1) * QUERIES;
  const int end = start_pos + min(token + QUERIES, TOKENS);  // positions that the last of these tokens sees
  const int sees = min(start_pos + token + t + 1, end);
  k += (long)(head / HEADS_PER_KV) * CACHE_ROWS * HEAD_DIM;
  v += (long)(head / HEADS_PER_KV) * CACHE_ROWS * HEAD_DIM;
  for (int i = item; i < QUERIES * HEAD_DIM; i += LOCAL) {
    const int row = i / HEAD_DIM, d = i % HEAD_DIM;
    queries[row * PITCH + d] = token + row < TOKENS ? q[((long)(token + row) * QUERY_HEADS + head) * HEAD_DIM + d] * SCALE : 0.0f;
  }
  float sum[DIMS], best = HIDDEN, total = 0;
  for (int i = 0; i < DIMS; i++) sum[i] = 0;
  for (int first = 0; first < end; first += CHUNK) {
    fetch(rows, k, first, end);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = lane; i < CHUNK; i += WIDTH) {
      float score = 0;
      for (int d = 0; d < HEAD_DIM; d++) score += queries[t * PITCH + d] * rows[i * PITCH + d];
      weights[t * (CHUNK + 1) + i] = first + i < sees ? score : HIDDEN;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    fetch(rows, v, first, end);
    float now = best;
    for (int i = 0; i < CHUNK; i++) now = max(now, weights[t * (CHUNK + 1) + i]);
    const float keep = exp2(best - now);
    best = now, total *= keep;
    for (int i = 0; i < DIMS; i++) sum[i] *= keep;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < CHUNK; i++) {
      const float weight = first + i < sees ? exp2(weights[t * (CHUNK + 1) + i] - best) : 0.0f;
      total += weight;
      for (int j = 0; j < DIMS; j++)
        if (HEAD_DIM % WIDTH == 0 || lane + WIDTH * j < HEAD_DIM) sum[j] += weight * rows[i * PITCH + lane + WIDTH * j];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  if (token + t < TOKENS)
    for (int j = 0; j < DIMS; j++)
      if (lane + WIDTH * j < HEAD_DIM) out[((long)(token + t) * QUERY_HEADS + head) * HEAD_DIM + lane + WIDTH * j] = sum[j] / total;
}
