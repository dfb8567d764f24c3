// The two steps of decode attention over a cache of floats: scores of a chunk, and its values summed. weight: of each head and position its score, then 2 to the
// power of what it is above the largest; top: of each head, how far the chunk's largest score is below that, as a power of 2.

typedef f32 f32x4 __attribute__((ext_vector_type(4)));
typedef f32 f32x8 __attribute__((ext_vector_type(8)));

#define HB (HEADS <= 3 ? HEADS : HEADS % 3 == 0 ? 3 : HEADS % 2 == 0 ? 2 : 3)  // heads that share a key or value once it is widened
#define BAND (LANES == 8 && HB > 1 ? 4 : 8)  // vectors of the result that are summed in registers at a time

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

typedef struct { f32 values[HEADS * HEAD_DIM]; } queries;

INLINE void take_queries(queries* to, const f32* q) {
  for (int i = 0; i < HEADS * VEC; i++) STORE(to->values + LANES * i, LOAD(vf, q + LANES * i) * SCALE);
}

INLINE void score(const queries* query, const CACHE* keys, const CACHE* values, int count, long ahead, int is_first, f32 weight[HEADS][CHUNK]) {
  for (int p = 0; p < CHUNK; p += 4) {
    const CACHE* row[4];  // positions that do not count repeat the last one
    UNROLL for (int i = 0; i < 4 * CACHE_ROW; i += CACHE_LINE) PREFETCH(keys + p * CACHE_ROW + ahead + i);
    // the first values have no chunk before them that would fetch them
    if (is_first) UNROLL for (int i = 0; i < 4 * CACHE_ROW; i += CACHE_LINE) PREFETCH(values + p * CACHE_ROW + i);
    UNROLL for (int j = 0; j < 4; j++) row[j] = keys + (p + j < count ? p + j : count - 1) * CACHE_ROW;
    for (int h = 0; h < HEADS; h += HB) {
      vf dots[HB][4];
      UNROLL for (int i = 0; i < HB * 4; i++) dots[i / 4][i % 4] = SPLAT(0);
      UNROLL for (int d = 0; d < VEC; d++)
        UNROLL for (int j = 0; j < 4; j++) {
          vf x = widen(row[j], d);
          UNROLL for (int g = 0; g < HB; g++) dots[g][j] += x * LOAD(vf, query->values + (h + g < HEADS ? h + g : h) * HEAD_DIM + LANES * d);
        }
      UNROLL for (int g = 0; g < HB; g++)
        if (h + g < HEADS) STORE(weight[h + g] + p, sum_each(dots[g][0], dots[g][1], dots[g][2], dots[g][3]));
    }
  }
}

INLINE void add_values(vf* sum, const CACHE* values, int hidden, int count, long ahead, f32 weight[HEADS][CHUNK], const f32* top) {
  for (int h = 0; h < HEADS; h += HB)
    UNROLL for (int band = 0; band < VEC; band += BAND) {
      vf acc[HB][BAND];
      UNROLL for (int i = 0; i < HB * BAND; i++)
        if (h + i / BAND < HEADS && band + i % BAND < VEC) acc[i / BAND][i % BAND] = sum[(h + i / BAND) * VEC + band + i % BAND];
      for (int p = 0; p < count; p++) {
        if (h == 0) UNROLL for (int i = 0; i < BAND * LANES; i += CACHE_LINE) PREFETCH(values + p * CACHE_ROW + ahead + band * LANES + i);
        UNROLL for (int d = 0; d < BAND && band + d < VEC; d++) {
          vf x = widen(values + p * CACHE_ROW, band + d);
          UNROLL for (int g = 0; g < HB; g++) acc[g][d] += x * weight[h + g < HEADS ? h + g : h][p];
        }
      }
      UNROLL for (int i = 0; i < HB * BAND; i++)
        if (h + i / BAND < HEADS && band + i % BAND < VEC) sum[(h + i / BAND) * VEC + band + i % BAND] = acc[i / BAND][i % BAND];
    }
}

// the sum of one head, in its order
INLINE void store_sum(f32* to, const vf* sum, f32 divisor) {
  for (int d = 0; d < VEC; d++) STORE(to + LANES * d, divisor == 1.0f ? sum[d] : sum[d] / divisor);
}
