// Attention of one token, or of each of TOKENS by itself where they stand in places of their own: task (token, kv head, split) takes its stretch of the
// positions chunk by chunk with an online softmax (arXiv 2205.14135) and leaves its maximum, its sum and its unnormed result to attend_combine.c. Which
// chunk goes where depends on nothing but the position. How scores and sums are made is in decode_floats.h or decode_blocks.h, by what the cache is made of.

void ENTRY(f32* restrict partial, const f32* restrict q, const CACHE* restrict k, const CACHE* restrict v, PLACE, long core_id) {
  const long t = core_id / (KV_HEADS * SPLITS), kv = core_id / SPLITS % KV_HEADS, split = core_id % SPLITS;
  const int n = POSITION(t) + 1, from = WINDOW && n > WINDOW ? n - WINDOW : 0;  // the first position that is seen
  const int before = from / CHUNK, chunks = (n + CHUNK - 1) / CHUNK - before;
  const int begin = (before + chunks * split / SPLITS) * CHUNK, end = (before + chunks * (split + 1) / SPLITS) * CHUNK;
  k += SLOT(t) + kv * CACHE_ROWS * CACHE_ROW;
  v += SLOT(t) + kv * CACHE_ROWS * CACHE_ROW;
  q += t * KV_HEADS * HEADS * HEAD_DIM;
  partial += t * KV_HEADS * HEADS * (SPLITS == 1 ? HEAD_DIM : SPLITS * (HEAD_DIM + 2));
  f32 best[HEADS], total[HEADS], top[HEADS];
  queries query;
  take_queries(&query, q + kv * HEADS * HEAD_DIM);
  vf sum[HEADS * VEC];
  for (int i = 0; i < HEADS * VEC; i++) sum[i] = SPLAT(0);
  for (int h = 0; h < HEADS; h++) best[h] = HIDDEN_SCORE, total[h] = !IS_THERE(t);  // a token that is not there sums nothing, and becomes zeros

  for (int first = begin; first < end; first += CHUNK) {
    const int count = n - first < CHUNK ? n - first : CHUNK, hidden = from - first;  // hidden: positions that are too old
    const CACHE *keys = k + (long)first * CACHE_ROW, *values = v + (long)first * CACHE_ROW;
    f32 weight[HEADS][CHUNK];
    const long ahead = first + CHUNK < n ? CHUNK * CACHE_ROW : 0;  // where there is nothing, what is here is fetched again, at no cost
    score(&query, keys, values, count, ahead, first == begin, weight);
    for (int h = 0; h < HEADS; h++) {
      if (CAPPED) UNROLL for (int p = 0; p < CHUNK; p += LANES) STORE(weight[h] + p, capped(LOAD(vf, weight[h] + p)));
      for (int p = count; p < CHUNK; p++) weight[h][p] = HIDDEN_SCORE;
      if (WINDOW) for (int p = 0; p < hidden; p++) weight[h][p] = HIDDEN_SCORE;
      vf peak = LOAD(vf, weight[h]), share = SPLAT(0);
      UNROLL for (int p = LANES; p < CHUNK; p += LANES) peak = vmax(peak, LOAD(vf, weight[h] + p));
      top[h] = max_lanes(peak);
      const f32 now = top[h] > best[h] ? top[h] : best[h];
      UNROLL for (int p = 0; p < CHUNK; p += LANES) {
        vf e = vexp2(LOAD(vf, weight[h] + p) - now);
        share += e;
        STORE(weight[h] + p, e);
      }
      const f32 keep = vexp2(SPLAT(best[h] - now))[0];
      total[h] = total[h] * keep + sum_lanes(share);
      best[h] = now;
      top[h] -= now;
      if (keep != 1.0f) UNROLL for (int d = 0; d < VEC; d++) sum[h * VEC + d] *= keep;
    }
    add_values(sum, values, hidden, count, ahead, weight, top);
  }
  for (int h = 0; h < HEADS; h++) {
#if SPLITS == 1
    store_sum(partial + (kv * HEADS + h) * HEAD_DIM, sum + h * VEC, total[h]);
#else
    f32* to = partial + ((kv * SPLITS + split) * HEADS + h) * (HEAD_DIM + 2);
    store_sum(to, sum + h * VEC, 1.0f);
    to[HEAD_DIM] = best[h];
    to[HEAD_DIM + 1] = total[h];
#endif
  }
}
