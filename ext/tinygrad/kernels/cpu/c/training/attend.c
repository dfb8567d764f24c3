// Causal attention of TOKENS tokens that see no further back than first[t], so that several samples stand in one row. LANES queries of a head lie in
// the lanes. stats keeps, for each token and head, the largest score (in powers of 2) and one over the sum of the softmax, for attend_backward.c.

#define HIDDEN_SCORE (-1e30f)
#define QUERY_HEADS (HEADS * KV_HEADS)

WIDE_VECTORS void ENTRY(f32* restrict out, f32* restrict stats, const f32* restrict q, const f32* restrict k, const f32* restrict v, const i32* restrict first, long core_id) {
  const long h = core_id % QUERY_HEADS, split = core_id / QUERY_HEADS, kv = h / HEADS;
  for (long t0 = split * LANES; t0 < TOKENS; t0 += SPLITS * LANES) {  // blocks go round, because late ones see more
    vf query[HEAD_DIM], score[TOKENS], best = SPLAT(HIDDEN_SCORE), total = SPLAT(0);
    vi from, self;
    UNROLL for (int i = 0; i < LANES; i++) {
      from[i] = first[t0 + i], self[i] = t0 + i;
      for (int d = 0; d < HEAD_DIM; d++) ((f32*)query)[d * LANES + i] = q[((t0 + i) * QUERY_HEADS + h) * HEAD_DIM + d] * (SCALE * 1.44269504f);
    }
    const int begin = first[t0], end = t0 + LANES;
    for (int j = begin; j < end; j += 4) {
      vf dots[4] = {SPLAT(0), SPLAT(0), SPLAT(0), SPLAT(0)};
      const f32* key[4];  // keys too many repeat the last one
      UNROLL for (int i = 0; i < 4; i++) key[i] = k + ((long)(j + i < end ? j + i : end - 1) * KV_HEADS + kv) * HEAD_DIM;
      for (int d = 0; d < HEAD_DIM; d++)
        UNROLL for (int i = 0; i < 4; i++) dots[i] += query[d] * key[i][d];
      UNROLL for (int i = 0; i < 4; i++)
        if (j + i < end) {
          const vi at = SPLATI(j + i);
          score[j + i] = ((at >= from) & (at <= self)) ? dots[i] : SPLAT(HIDDEN_SCORE);
          best = vmax(best, score[j + i]);
        }
    }
    for (int j = begin; j < end; j++) total += score[j] = vexp2(score[j] - best);  // a hidden score gives 2^-126
    const vf inverse = 1.0f / total;
    for (int d = 0; d < HEAD_DIM; d += 8) {
      vf sum[8];
      UNROLL for (int i = 0; i < 8; i++) sum[i] = SPLAT(0);
      for (int j = begin; j < end; j++) {
        const f32* value = v + ((long)j * KV_HEADS + kv) * HEAD_DIM + d;
        UNROLL for (int i = 0; i < 8; i++) sum[i] += score[j] * value[i];
      }
      UNROLL for (int i = 0; i < 8; i++) {
        sum[i] *= inverse;
        for (int t = 0; t < LANES; t++) out[((t0 + t) * QUERY_HEADS + h) * HEAD_DIM + d + i] = sum[i][t];
      }
    }
    for (int t = 0; t < LANES; t++) {
      f32* kept = stats + ((t0 + t) * QUERY_HEADS + h) * 2;
      kept[0] = best[t], kept[1] = inverse[t];
    }
  }
}
