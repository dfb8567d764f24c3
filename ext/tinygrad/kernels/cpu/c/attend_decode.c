// Attention of one token, or of each of TOKENS by itself where they stand in places of their own: task (token, kv head, split) takes its stretch of the positions chunk by chunk with an online softmax (arXiv 2205.14135) and
// leaves its maximum, its sum and its unnormed result to attend_combine.c. Which chunk goes where depends on nothing but the position.

typedef f32 f32x4 __attribute__((ext_vector_type(4)));
typedef f32 f32x8 __attribute__((ext_vector_type(8)));

#define HB (HEADS <= 3 ? HEADS : HEADS % 3 == 0 ? 3 : HEADS % 2 == 0 ? 2 : 3)  // heads that share a key or value once it is widened
#define BAND (LANES == 8 && HB > 1 ? 4 : 8)                                    // vectors of the result that are summed in registers at a time

INLINE f32x8 fold(vf x) {
#if LANES == 16
  return x.lo + x.hi;
#else
  return x;
#endif
}

// the sums over the lanes of four vectors, by a transposing tree
INLINE f32x4 sum_each(vf s0, vf s1, vf s2, vf s3) {
  f32x8 a = fold(s0), b = fold(s1), c = fold(s2), d = fold(s3);
  f32x8 ab = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  f32x8 cd = __builtin_shufflevector(c, d, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(c, d, 1, 9, 3, 11, 5, 13, 7, 15);
  f32x8 all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
  return all.lo + all.hi;
}

INLINE vf widen(const CACHE* p) { return sizeof(CACHE) == 2 ? load_half(p) : LOAD(vf, p); }

void ENTRY(f32* restrict partial, const f32* restrict q, const CACHE* restrict k, const CACHE* restrict v, PLACE, long core_id) {
  const long t = core_id / (KV_HEADS * SPLITS), kv = core_id / SPLITS % KV_HEADS, split = core_id % SPLITS;
  const int n = POSITION(t) + 1, from = WINDOW && n > WINDOW ? n - WINDOW : 0;  // the first position that is seen
  const int before = from / CHUNK, chunks = (n + CHUNK - 1) / CHUNK - before;
  const int begin = (before + chunks * split / SPLITS) * CHUNK, end = (before + chunks * (split + 1) / SPLITS) * CHUNK;
  k += SLOT(t) + kv * CACHE_ROWS * HEAD_DIM;
  v += SLOT(t) + kv * CACHE_ROWS * HEAD_DIM;
  q += t * KV_HEADS * HEADS * HEAD_DIM;
  partial += t * KV_HEADS * HEADS * (SPLITS == 1 ? HEAD_DIM : SPLITS * (HEAD_DIM + 2));
  f32 query[HEADS * HEAD_DIM], best[HEADS], total[HEADS];
  vf sum[HEADS * VEC];
  for (int i = 0; i < HEADS * VEC; i++) {
    STORE(query + LANES * i, LOAD(vf, q + kv * HEADS * HEAD_DIM + LANES * i) * SCALE);
    sum[i] = SPLAT(0);
  }
  for (int h = 0; h < HEADS; h++) best[h] = HIDDEN_SCORE, total[h] = !IS_THERE(t);  // a token that is not there sums nothing, and becomes zeros

  for (int first = begin; first < end; first += CHUNK) {
    const int count = n - first < CHUNK ? n - first : CHUNK;
    const CACHE *keys = k + (long)first * HEAD_DIM, *values = v + (long)first * HEAD_DIM;
    f32 weight[HEADS][CHUNK];
    const long ahead = first + CHUNK < n ? CHUNK * HEAD_DIM : 0;  // where there is nothing, what is here is fetched again, at no cost
    for (int p = 0; p < CHUNK; p += 4) {
      const CACHE* row[4];  // positions that do not count repeat the last one
      UNROLL for (int i = 0; i < 4 * HEAD_DIM; i += 64 / (int)sizeof(CACHE)) PREFETCH(keys + p * HEAD_DIM + ahead + i);
      // the first values have no chunk before them that would fetch them
      if (first == begin) UNROLL for (int i = 0; i < 4 * HEAD_DIM; i += 64 / (int)sizeof(CACHE)) PREFETCH(values + p * HEAD_DIM + i);
      UNROLL for (int j = 0; j < 4; j++) row[j] = keys + (p + j < count ? p + j : count - 1) * HEAD_DIM;
      for (int h = 0; h < HEADS; h += HB) {
        vf dots[HB][4];
        UNROLL for (int i = 0; i < HB * 4; i++) dots[i / 4][i % 4] = SPLAT(0);
        UNROLL for (int d = 0; d < VEC; d++)
          UNROLL for (int j = 0; j < 4; j++) {
            vf x = widen(row[j] + LANES * d);
            UNROLL for (int g = 0; g < HB; g++) dots[g][j] += x * LOAD(vf, query + (h + g < HEADS ? h + g : h) * HEAD_DIM + LANES * d);
          }
        UNROLL for (int g = 0; g < HB; g++)
          if (h + g < HEADS) STORE(weight[h + g] + p, sum_each(dots[g][0], dots[g][1], dots[g][2], dots[g][3]));
      }
    }
    for (int h = 0; h < HEADS; h++) {
      if (CAPPED) UNROLL for (int p = 0; p < CHUNK; p += LANES) STORE(weight[h] + p, capped(LOAD(vf, weight[h] + p)));
      for (int p = count; p < CHUNK; p++) weight[h][p] = HIDDEN_SCORE;
      if (WINDOW) for (int p = 0; first + p < from; p++) weight[h][p] = HIDDEN_SCORE;
      vf peak = LOAD(vf, weight[h]), share = SPLAT(0);
      UNROLL for (int p = LANES; p < CHUNK; p += LANES) peak = vmax(peak, LOAD(vf, weight[h] + p));
      const f32 top = max_lanes(peak), now = top > best[h] ? top : best[h];
      UNROLL for (int p = 0; p < CHUNK; p += LANES) {
        vf e = vexp2(LOAD(vf, weight[h] + p) - now);
        share += e;
        STORE(weight[h] + p, e);
      }
      const f32 keep = vexp2(SPLAT(best[h] - now))[0];
      total[h] = total[h] * keep + sum_lanes(share);
      best[h] = now;
      if (keep != 1.0f) UNROLL for (int d = 0; d < VEC; d++) sum[h * VEC + d] *= keep;
    }
    for (int h = 0; h < HEADS; h += HB)
      UNROLL for (int band = 0; band < VEC; band += BAND) {
        vf acc[HB][BAND];
        UNROLL for (int i = 0; i < HB * BAND; i++)
          if (h + i / BAND < HEADS && band + i % BAND < VEC) acc[i / BAND][i % BAND] = sum[(h + i / BAND) * VEC + band + i % BAND];
        for (int p = 0; p < count; p++) {
          if (h == 0) UNROLL for (int i = 0; i < BAND * LANES; i += 64 / (int)sizeof(CACHE)) PREFETCH(values + p * HEAD_DIM + ahead + band * LANES + i);
          UNROLL for (int d = 0; d < BAND && band + d < VEC; d++) {
            vf x = widen(values + p * HEAD_DIM + LANES * (band + d));
            UNROLL for (int g = 0; g < HB; g++) acc[g][d] += x * weight[h + g < HEADS ? h + g : h][p];
          }
        }
        UNROLL for (int i = 0; i < HB * BAND; i++)
          if (h + i / BAND < HEADS && band + i % BAND < VEC) sum[(h + i / BAND) * VEC + band + i % BAND] = acc[i / BAND][i % BAND];
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
