// The two steps of decode attention over a cache of floats: scores of a chunk, and its values summed. weight: of each head and position its score, then 2 to the
// power of what it is above the largest; top: of each head, how far the chunk's largest score is below that, as a power of 2.

#define HB (HEADS <= 3 ? HEADS : HEADS % 3 == 0 ? 3 : HEADS % 2 == 0 ? 2 : 3)  // heads that share a key or value once it is widened
#define BAND (LANES == 8 && HB > 1 ? 4 : 8)  // vectors of the result that are summed in registers at a time

// Sums over the lanes of LANES vectors, by a transposing tree: sum_four leaves four lanes (LANES 16) or two for each of four vectors, sum_fours makes of
// LANES / 4 such results the LANES sums, in the order of the vectors. i: where the lanes begin that a shuffle takes of its first vector.
#if LANES == 16
#define HALVES(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 4 + i, 5 + i, 6 + i, 7 + i, 16 + i, 17 + i, 18 + i, 19 + i, 20 + i, 21 + i, 22 + i, 23 + i)
#define PAIRS(a, b, i) __builtin_shufflevector(a, b, i, 2 + i, 16 + i, 18 + i, 4 + i, 6 + i, 20 + i, 22 + i, 8 + i, 10 + i, 24 + i, 26 + i, 12 + i, 14 + i, 28 + i, 30 + i)
#define WHOLE(a, b, i) __builtin_shufflevector(a, b, i, 8 + i, 1 + i, 9 + i, 2 + i, 10 + i, 3 + i, 11 + i, 16 + i, 24 + i, 17 + i, 25 + i, 18 + i, 26 + i, 19 + i, 27 + i)
INLINE vf sum_four(const vf* x) {
  const vf ab = HALVES(x[0], x[1], 0) + HALVES(x[0], x[1], 8), cd = HALVES(x[2], x[3], 0) + HALVES(x[2], x[3], 8);
  return PAIRS(ab, cd, 0) + PAIRS(ab, cd, 1);
}
INLINE vf sum_fours(const vf* x) {
  const vf low = PAIRS(x[0], x[1], 0) + PAIRS(x[0], x[1], 1), high = PAIRS(x[2], x[3], 0) + PAIRS(x[2], x[3], 1);
  return WHOLE(low, high, 0) + WHOLE(low, high, 4);
}
#else
#define PAIRS(a, b, i) __builtin_shufflevector(a, b, i, 2 + i, 8 + i, 10 + i, 4 + i, 6 + i, 12 + i, 14 + i)
#define WHOLE(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 8 + i, 9 + i, 10 + i, 11 + i)
INLINE vf sum_four(const vf* x) {
  const vf ab = PAIRS(x[0], x[1], 0) + PAIRS(x[0], x[1], 1), cd = PAIRS(x[2], x[3], 0) + PAIRS(x[2], x[3], 1);
  return PAIRS(ab, cd, 0) + PAIRS(ab, cd, 1);
}
INLINE vf sum_fours(const vf* x) { return WHOLE(x[0], x[1], 0) + WHOLE(x[0], x[1], 4); }
#endif

// Where registers do not hold the sums of four rows and the queries, too, the compiler would mix the steps of an unrolled loop and spill the sums.
#if HB * (VEC + 4) > (LANES == 16 ? 28 : 12)
#define EACH_VECTOR _Pragma("clang loop unroll(disable)")
#else
#define EACH_VECTOR UNROLL
#endif

typedef struct { f32 values[HEADS * HEAD_DIM]; } queries;

INLINE void take_queries(queries* to, const f32* q) {
  for (int i = 0; i < HEADS * VEC; i++) STORE(to->values + LANES * i, LOAD(vf, q + LANES * i) * SCALE);
}

// fours[h * CHUNK / 4] = sum_four of each query times four rows
INLINE void multiply_four(const queries* query, const CACHE* const* row, vf* fours) {
  for (int h = 0; h < HEADS; h += HB) {
    vf dots[HB][4];
    UNROLL for (int i = 0; i < HB * 4; i++) dots[i / 4][i % 4] = SPLAT(0);
    EACH_VECTOR for (int d = 0; d < VEC; d++)
      UNROLL for (int j = 0; j < 4; j++) {
        vf x = widen(row[j], d);
        UNROLL for (int g = 0; g < HB; g++) dots[g][j] += x * LOAD(vf, query->values + (h + g < HEADS ? h + g : h) * HEAD_DIM + LANES * d);
      }
    UNROLL for (int g = 0; g < HB; g++)
      if (h + g < HEADS) fours[(h + g) * (CHUNK / 4)] = sum_four(dots[g]);
  }
}

INLINE void score(const queries* query, const CACHE* keys, int count, following next, vf weight[HEADS][CHUNK / LANES]) {
  vf fours[HEADS * (CHUNK / 4)];
  const int whole = count / 4 * 4;
  for (int p = 0; p < whole; p += 4) {
    const CACHE* rows = keys + p * CACHE_ROW;
    fetch(rows + distance_to_next(next, p), 4 * CACHE_ROW);
    const CACHE* const row[4] = {rows, rows + CACHE_ROW, rows + 2 * CACHE_ROW, rows + 3 * CACHE_ROW};
    multiply_four(query, row, fours + p / 4);
  }
  if (whole < count) {  // the last row stands for those that are missing
    const CACHE *rows = keys + whole * CACHE_ROW, *last = keys + (count - 1) * CACHE_ROW;
    fetch(rows + distance_to_next(next, whole), 4 * CACHE_ROW);
    const CACHE* const row[4] = {rows, whole + 1 < count ? rows + CACHE_ROW : last, whole + 2 < count ? rows + 2 * CACHE_ROW : last, last};
    multiply_four(query, row, fours + whole / 4);
  }
  for (int p = (count + 3) / 4; p < CHUNK / 4; p++)
    for (int h = 0; h < HEADS; h++) fours[h * (CHUNK / 4) + p] = SPLAT(0);
  for (int h = 0; h < HEADS; h++)
    UNROLL for (int i = 0; i < CHUNK / LANES; i++) weight[h][i] = sum_fours(fours + h * (CHUNK / 4) + i * (LANES / 4));
}

INLINE void add_values(vf* sum, const CACHE* values, int hidden, int count, following next, vf weight[HEADS][CHUNK / LANES], const f32* top) {
  for (int h = 0; h < HEADS; h += HB)
    UNROLL for (int band = 0; band < VEC; band += BAND) {
      vf acc[HB][BAND];
      UNROLL for (int i = 0; i < HB * BAND; i++)
        if (h + i / BAND < HEADS && band + i % BAND < VEC) acc[i / BAND][i % BAND] = sum[(h + i / BAND) * VEC + band + i % BAND];
      for (int p = 0, end; p < count; p = end) {  // rows with one distance to what comes after them
        const long ahead = distance_to_next(next, p);
        end = p < next.left && next.left < count ? next.left : count;
        for (int i = p; i < end; i++) {
          const CACHE* row = values + i * CACHE_ROW + band * LANES;
          if (h == 0) fetch(row + ahead, (VEC - band < BAND ? VEC - band : BAND) * LANES);
          UNROLL for (int d = 0; d < BAND && band + d < VEC; d++) {
            vf x = widen(row, d);
            UNROLL for (int g = 0; g < HB; g++) acc[g][d] += x * ((const f32*)weight[h + g < HEADS ? h + g : h])[i];
          }
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
