// Attention of one token with an online softmax (arXiv 2205.14135): work-group (kv head and HEADS of its query heads, split) takes a stretch of the
// positions. HEAD_DIM / 4 items share a position, each four dimensions of it, so keys and values are read in whole rows.

#define WIDTH (HEAD_DIM / 4)     // items that share a position
#define ABREAST (LOCAL / WIDTH)  // positions side by side
#define STEPS 2
#define CHUNK (ABREAST * STEPS)
#define DOTS (HEADS * CHUNK * (WIDTH + 1))
#define SUMS (ABREAST * (HEAD_DIM + 1))

__kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void ENTRY(__global float* restrict partial, const __global float* restrict q,
                                                                       const __global CACHE* restrict k, const __global CACHE* restrict v, int start_pos) {
  __local float parts[DOTS > SUMS ? DOTS : SUMS], scores[HEADS * CHUNK];
  const int item = get_local_id(0), lane = item % WIDTH, at = item / WIDTH, split = get_group_id(1);
  const int head = get_group_id(0) * HEADS, n = start_pos + 1, chunks = (n + CHUNK - 1) / CHUNK;
  const int begin = chunks * split / SPLITS * CHUNK, end = min(n, chunks * (split + 1) / SPLITS * CHUNK);
  const long cache = (long)(head / HEADS_PER_KV) * CACHE_ROWS * HEAD_DIM + 4 * lane;
  float4 query[HEADS], sum[HEADS];
  float best[HEADS], total[HEADS];
  for (int h = 0; h < HEADS; h++) {
    query[h] = load4(q, (long)(head + h) * HEAD_DIM + 4 * lane) * SCALE;
    sum[h] = (float4)(0.0f), best[h] = HIDDEN, total[h] = 0;
  }
  for (int first = begin; first < end; first += CHUNK) {
    for (int step = 0; step < STEPS; step++) {
      const int i = step * ABREAST + at, p = first + i;
      const float4 key = p < end ? LOAD4(k, cache + (long)p * HEAD_DIM) : (float4)(0.0f);
      for (int h = 0; h < HEADS; h++) parts[(h * CHUNK + i) * (WIDTH + 1) + lane] = dot(key, query[h]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < HEADS * CHUNK; i += LOCAL) {
      float score = 0;
      for (int l = 0; l < WIDTH; l++) score += parts[i * (WIDTH + 1) + l];
      scores[i] = first + i % CHUNK < end ? score : HIDDEN;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int h = 0; h < HEADS; h++) {
      float now = best[h];
      for (int i = 0; i < CHUNK; i++) now = max(now, scores[h * CHUNK + i]);
      const float keep = exp2(best[h] - now);
      sum[h] *= keep, total[h] *= keep, best[h] = now;
    }
    for (int step = 0; step < STEPS; step++) {
      const int i = step * ABREAST + at, p = first + i;
      const float4 value = p < end ? LOAD4(v, cache + (long)p * HEAD_DIM) : (float4)(0.0f);
      for (int h = 0; h < HEADS; h++) {
        const float weight = exp2(scores[h * CHUNK + i] - best[h]);
        sum[h] += weight * value, total[h] += weight;
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  // what stands side by side is summed
  for (int h = 0; h < HEADS; h++) {
    __local float* mine = parts + at * (HEAD_DIM + 1);
    vstore4(sum[h], 0, mine + 4 * lane);
    if (lane == 0) mine[HEAD_DIM] = total[h];
    barrier(CLK_LOCAL_MEM_FENCE);
    __global float* to = partial + ((long)(head + h) * SPLITS + split) * (HEAD_DIM + 2);
    for (int d = item; d <= HEAD_DIM; d += LOCAL) {
      float all = 0;
      for (int i = 0; i < ABREAST; i++) all += parts[i * (HEAD_DIM + 1) + d];
      to[d] = all;
    }
    if (item == 0) to[HEAD_DIM + 1] = best[h];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
}
