// Attention of one token, or of each of TOKENS by itself where they stand in places of their own: the positions are cut into SPLITS stretches, which are
// walked chunk by chunk with an online softmax (arXiv 2205.14135) and put together. Task (token, kv head) takes all of its splits, or, where there are few
// such tasks (APART), task (token, kv head, split) one, which leaves its part to attend_combine.c. Which chunk goes where depends on nothing but the position.
// How scores and sums are made is in decode_floats.h or decode_blocks.h, by what the cache is made of.

// scores of the i-th LANES positions of a chunk, those hidden that do not count
INLINE vf seen(int i, int hidden, int count, vf scores) {
  i32 at[LANES];
  UNROLL for (int p = 0; p < LANES; p++) at[p] = i * LANES + p;
  const vi positions = LOAD(vi, at);
  return (WINDOW ? (positions >= hidden) & (positions < count) : positions < count) ? scores : SPLAT(HIDDEN_SCORE);
}

// the first position that the token at n - 1 sees
INLINE int first_seen(int n) { return WINDOW && n > WINDOW ? n - WINDOW : 0; }

// Chunks from `begin` to `end` of n positions, of which `first_values` says that nothing has fetched the first ones' values. next_task: how far behind
// k and v the rows lie that the next task begins with.
INLINE void attend_split(const queries* query, const CACHE* k, const CACHE* v, int begin, int end, int n, int first_values, long next_task, vf* sum, f32* best, f32* total) {
  const int from = first_seen(n), last = (n + 3) / 4 * 4, seen_rows = last - from / CHUNK * CHUNK, distance = seen_rows < CHUNK ? seen_rows : CHUNK;
  f32 top[HEADS];
  if (first_values && begin < end)
    for (int p = begin; p < begin + CHUNK && p < n; p++) fetch(v + (long)p * CACHE_ROW, CACHE_ROW);
  for (int first = begin; first < end; first += CHUNK) {
    const int count = n - first < CHUNK ? n - first : CHUNK, hidden = from - first;  // hidden: positions that are too old
    const CACHE *keys = k + (long)first * CACHE_ROW, *values = v + (long)first * CACHE_ROW;
    vf weight[HEADS][CHUNK / LANES];
    const following next = {last - distance - first, distance * CACHE_ROW, next_task + (distance - last) * (long)CACHE_ROW};
    score(query, keys, count, next, weight);
    for (int h = 0; h < HEADS; h++) {
      vf* w = weight[h];
      if (CAPPED) UNROLL for (int i = 0; i < CHUNK / LANES; i++) w[i] = capped(w[i]);
      if (count < CHUNK || (WINDOW && hidden > 0)) UNROLL for (int i = 0; i < CHUNK / LANES; i++) w[i] = seen(i, hidden, count, w[i]);
      vf peak = w[0], share = SPLAT(0);
      UNROLL for (int i = 1; i < CHUNK / LANES; i++) peak = vmax(peak, w[i]);
      top[h] = max_lanes(peak);
      const f32 now = top[h] > best[h] ? top[h] : best[h];
      UNROLL for (int i = 0; i < CHUNK / LANES; i++) {
        w[i] = vexp2(w[i] - now);
        share += w[i];
      }
      const f32 keep = vexp2(SPLAT(best[h] - now))[0];
      total[h] = total[h] * keep + sum_lanes(share);
      best[h] = now;
      top[h] -= now;
      UNROLL for (int d = 0; d < VEC; d++) sum[h * VEC + d] *= keep;
    }
    add_values(sum, values, hidden, count, next, weight, top);
  }
}

void ENTRY(f32* restrict out, const f32* restrict q, const CACHE* restrict k, const CACHE* restrict v, PLACE, long core_id) {
  const long task = APART ? core_id / SPLITS : core_id, t = task / KV_HEADS, place = SLOT(t) + task % KV_HEADS * CACHE_ROWS * CACHE_ROW;
  const int n = POSITION(t) + 1, before = first_seen(n) / CHUNK, chunks = (n + CHUNK - 1) / CHUNK - before;
  queries query;
  take_queries(&query, q + task * HEADS * HEAD_DIM);
  long next_task = (long)before * CHUNK * CACHE_ROW;  // where there is none, what is here is fetched again, at no cost
  if (task + 1 < TOKENS * KV_HEADS && IS_THERE((task + 1) / KV_HEADS)) {
    const long next = (task + 1) / KV_HEADS;
    next_task = SLOT(next) + (task + 1) % KV_HEADS * CACHE_ROWS * CACHE_ROW - place + (long)(first_seen(POSITION(next) + 1) / CHUNK * CHUNK) * CACHE_ROW;
  }
#if !APART && SPLITS > 1
  f32 parts[SPLITS * HEADS * PART];
#endif
  for (int split = APART ? core_id % SPLITS : 0, first = split; split < SPLITS && (!APART || split == first); split++) {
    const int begin = (before + chunks * split / SPLITS) * CHUNK, end = (before + chunks * (split + 1) / SPLITS) * CHUNK;
    f32 best[HEADS], total[HEADS];
    vf sum[HEADS * VEC];
    for (int i = 0; i < HEADS * VEC; i++) sum[i] = SPLAT(0);
    for (int h = 0; h < HEADS; h++) best[h] = HIDDEN_SCORE, total[h] = !IS_THERE(t);  // a token that is not there sums nothing, and becomes zeros
    attend_split(&query, k + place, v + place, begin, end, n, split == first, next_task, sum, best, total);
    for (int h = 0; h < HEADS; h++) {
#if SPLITS == 1
      store_sum(out + (task * HEADS + h) * HEAD_DIM, sum + h * VEC, total[h]);
#else
#if APART
      f32* to = out + ((task * SPLITS + split) * HEADS + h) * PART;
#else
      f32* to = parts + (split * HEADS + h) * PART;
#endif
      store_sum(to, sum + h * VEC, 1.0f);
      to[HEAD_DIM] = best[h];
      to[HEAD_DIM + 1] = total[h];
#endif
    }
  }
#if !APART && SPLITS > 1
  for (int h = 0; h < HEADS; h++) combine_splits(out + (task * HEADS + h) * HEAD_DIM, parts + h * PART);
#endif
}
