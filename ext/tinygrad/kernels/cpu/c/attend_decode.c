// Attention of one token: task (kv head, split) takes every SPLITS-th chunk of positions with an online softmax (arXiv 2205.14135) and leaves its
// maximum, its sum and its unnormed result to attend_combine.c. Which chunk goes where depends on nothing but the position.

typedef f32 f32x8 __attribute__((ext_vector_type(8)));

INLINE f32x8 fold(vf x) {
#if LANES == 16
  return x.lo + x.hi;
#else
  return x;
#endif
}

// the sums over the lanes of eight vectors, by a transposing tree
INLINE f32x8 sum_each(const vf* s) {
  f32x8 a[8], b[4], c[2];
  UNROLL for (int i = 0; i < 8; i++) a[i] = fold(s[i]);
  UNROLL for (int i = 0; i < 4; i++)
    b[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(a[2 * i], a[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  UNROLL for (int i = 0; i < 2; i++)
    c[i] = __builtin_shufflevector(b[2 * i], b[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(b[2 * i], b[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  return __builtin_shufflevector(c[0], c[1], 0, 1, 2, 3, 8, 9, 10, 11) + __builtin_shufflevector(c[0], c[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

#define BAND (VEC < 8 ? VEC : 8)  // vectors of the result that are summed in registers at a time

void ENTRY(f32* restrict partial, const f32* restrict q, const CACHE* restrict k, const CACHE* restrict v, long start_pos, long core_id) {
  const long kv = core_id / SPLITS, split = core_id % SPLITS;
  const int n = start_pos + 1;
  k += kv * CACHE_ROWS * HEAD_DIM;
  v += kv * CACHE_ROWS * HEAD_DIM;
  f32 query[HEADS * HEAD_DIM], best[HEADS], total[HEADS];
  vf sum[HEADS * VEC];
  for (int i = 0; i < HEADS * VEC; i++) {
    STORE(query + LANES * i, LOAD(vf, q + kv * HEADS * HEAD_DIM + LANES * i) * SCALE);
    sum[i] = SPLAT(0);
  }
  for (int h = 0; h < HEADS; h++) best[h] = HIDDEN_SCORE, total[h] = 0;

  for (int first = split * CHUNK; first < n; first += SPLITS * CHUNK) {
    const int count = n - first < CHUNK ? n - first : CHUNK;
    f32 scratch[CHUNK * HEAD_DIM], weight[HEADS][CHUNK], keep[HEADS];
    const f32* rows = cache_rows(k, first, count, scratch);
    for (int h = 0; h < HEADS; h++) {
      for (int p = 0; p < CHUNK; p += 8) {
        vf dots[8];
        UNROLL for (int j = 0; j < 8; j++) dots[j] = SPLAT(0);
        UNROLL for (int d = 0; d < VEC; d++) {
          vf x = LOAD(vf, query + h * HEAD_DIM + LANES * d);
          // positions that do not count repeat the last one
          UNROLL for (int j = 0; j < 8; j++) dots[j] += x * LOAD(vf, rows + (p + j < count ? p + j : count - 1) * HEAD_DIM + LANES * d);
        }
        STORE(weight[h] + p, sum_each(dots));
      }
      for (int p = count; p < CHUNK; p++) weight[h][p] = HIDDEN_SCORE;
      vf peak = LOAD(vf, weight[h]), share = SPLAT(0);
      for (int p = LANES; p < CHUNK; p += LANES) peak = vmax(peak, LOAD(vf, weight[h] + p));
      const f32 top = max_lanes(peak), now = top > best[h] ? top : best[h];
      for (int p = 0; p < CHUNK; p += LANES) {
        vf e = vexp(LOAD(vf, weight[h] + p) - now);
        share += e;
        STORE(weight[h] + p, e);
      }
      keep[h] = vexp(SPLAT(best[h] - now))[0];
      total[h] = total[h] * keep[h] + sum_lanes(share);
      best[h] = now;
    }
    rows = cache_rows(v, first, count, scratch);
    for (int h = 0; h < HEADS; h++)
      UNROLL for (int band = 0; band < VEC; band += BAND) {
        vf acc[BAND];
        UNROLL for (int d = 0; d < BAND && band + d < VEC; d++) acc[d] = sum[h * VEC + band + d] * keep[h];
        for (int p = 0; p < count; p++)
          UNROLL for (int d = 0; d < BAND && band + d < VEC; d++) acc[d] += weight[h][p] * LOAD(vf, rows + p * HEAD_DIM + LANES * (band + d));
        UNROLL for (int d = 0; d < BAND && band + d < VEC; d++) sum[h * VEC + band + d] = acc[d];
      }
  }
  for (int h = 0; h < HEADS; h++) {
#if SPLITS == 1
    for (int d = 0; d < VEC; d++) STORE(partial + (kv * HEADS + h) * HEAD_DIM + LANES * d, sum[h * VEC + d] / total[h]);
#else
    f32* to = partial + ((kv * SPLITS + split) * HEADS + h) * (HEAD_DIM + 2);
    for (int d = 0; d < VEC; d++) STORE(to + LANES * d, sum[h * VEC + d]);
    to[HEAD_DIM] = best[h];
    to[HEAD_DIM + 1] = total[h];
#endif
  }
}
