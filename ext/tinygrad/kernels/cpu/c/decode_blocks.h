// The two steps of decode attention over a cache of 8-bit blocks, in integers: keys and values become 16-bit ones, and a query, or the weights of a chunk,
// are 16-bit ones with one scale. Products are exact; what is rounded is 1 / 65534 of the largest entry of a query, and of the largest weight of a
// chunk. See decode_floats.h for what the functions take.

#define HB (HEADS <= 3 ? HEADS : HEADS % 3 == 0 ? 3 : HEADS % 2 == 0 ? 2 : 3)  // heads that share a key or value once it is widened
#define WIDE (2 * LANES)                                                       // 16-bit integers of a vector
#define PIECES (HEAD_DIM / WIDE)                                               // vectors of a row
#define IN_BLOCK (CACHE_BLOCK / WIDE)                                          // vectors of a block
#define BLOCKS (HEAD_DIM / CACHE_BLOCK)
#define BAND (LANES == 16 && PIECES % 2 == 0 ? 2 : 1)  // pieces of the result that are summed in registers at a time
#define LARGEST 32767.0f

#if LANES == 16
#define QUADS_EACH(j) (j), (j), (j), (j), 4 + (j), 4 + (j), 4 + (j), 4 + (j), 8 + (j), 8 + (j), 8 + (j), 8 + (j), 12 + (j), 12 + (j), 12 + (j), 12 + (j)
#define FOUR_TIMES(x) __builtin_shufflevector(x, x, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3)
#define ONES(a, b, i) __builtin_shufflevector(a, b, i, 16 + i, 1 + i, 17 + i, 4 + i, 20 + i, 5 + i, 21 + i, 8 + i, 24 + i, 9 + i, 25 + i, 12 + i, 28 + i, 13 + i, 29 + i)
#define TWOS(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 16 + i, 17 + i, 4 + i, 5 + i, 20 + i, 21 + i, 8 + i, 9 + i, 24 + i, 25 + i, 12 + i, 13 + i, 28 + i, 29 + i)
#define PAIRS4(i) i, 32 + i, 1 + i, 33 + i, 2 + i, 34 + i, 3 + i, 35 + i
#define PAIRS(a, b, i) __builtin_shufflevector(a, b, PAIRS4(i), PAIRS4(8 + i), PAIRS4(16 + i), PAIRS4(24 + i))
#define IN_ORDER(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 16 + i, 17 + i, 18 + i, 19 + i, 4 + i, 5 + i, 6 + i, 7 + i, 20 + i, 21 + i, 22 + i, 23 + i)
#define EVENS(a, b, i) __builtin_shufflevector(a, b, i, 2 + i, 4 + i, 6 + i, 8 + i, 10 + i, 12 + i, 14 + i, 16 + i, 18 + i, 20 + i, 22 + i, 24 + i, 26 + i, 28 + i, 30 + i)
#define HALVES(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 4 + i, 5 + i, 6 + i, 7 + i, 16 + i, 17 + i, 18 + i, 19 + i, 20 + i, 21 + i, 22 + i, 23 + i)
#define QUARTERS(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 8 + i, 9 + i, 10 + i, 11 + i, 16 + i, 17 + i, 18 + i, 19 + i, 24 + i, 25 + i, 26 + i, 27 + i)
#else
#define EVENS(a, b, i) __builtin_shufflevector(a, b, i, 2 + i, 4 + i, 6 + i, 8 + i, 10 + i, 12 + i, 14 + i)
#define HALVES(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 8 + i, 9 + i, 10 + i, 11 + i)
#define QUADS_EACH(j) (j), (j), (j), (j), 4 + (j), 4 + (j), 4 + (j), 4 + (j)
#define FOUR_TIMES(x) __builtin_shufflevector(x, x, 0, 1, 2, 3, 0, 1, 2, 3)
#define ONES(a, b, i) __builtin_shufflevector(a, b, i, 8 + i, 1 + i, 9 + i, 4 + i, 12 + i, 5 + i, 13 + i)
#define TWOS(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 8 + i, 9 + i, 4 + i, 5 + i, 12 + i, 13 + i)
#define PAIRS4(i) i, 16 + i, 1 + i, 17 + i, 2 + i, 18 + i, 3 + i, 19 + i
#define PAIRS(a, b, i) __builtin_shufflevector(a, b, PAIRS4(i), PAIRS4(8 + i))
#define IN_ORDER(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 8 + i, 9 + i, 10 + i, 11 + i)
#endif

// to the nearest integer, of which the low bits are kept
INLINE vsh to_16_bits(vf x) { return __builtin_convertvector(BITS_AS(vi, x + 12582912.0f), vsh); }
INLINE vs widened(const CACHE* row, int piece) { return __builtin_convertvector(LOAD(vsp, row + WIDE * piece), vs); }

typedef struct {
  vs pairs[HEADS][PIECES][4];  // of each quarter of a vector the j-th pair, four times: what four rows side by side are multiplied with
  f32 step[HEADS];
} queries;

INLINE void take_queries(queries* to, const f32* q) {
  for (int h = 0; h < HEADS; h++, q += HEAD_DIM) {
    vf peak = vabs(LOAD(vf, q));
    for (int d = LANES; d < HEAD_DIM; d += LANES) peak = vmax(peak, vabs(LOAD(vf, q + d)));
    const f32 most = max_lanes(peak), inverse = most > 0 ? LARGEST / most : 0.0f;
    to->step[h] = most * (SCALE / LARGEST);
    for (int c = 0; c < PIECES; c++) {
      i16 integers[WIDE];
      UNROLL for (int i = 0; i < WIDE; i += LANES) STORE(integers + i, to_16_bits(LOAD(vf, q + WIDE * c + i) * inverse));
      const vi pairs = LOAD(vi, integers);
      to->pairs[h][c][0] = BITS_AS(vs, __builtin_shufflevector(pairs, pairs, QUADS_EACH(0)));
      to->pairs[h][c][1] = BITS_AS(vs, __builtin_shufflevector(pairs, pairs, QUADS_EACH(1)));
      to->pairs[h][c][2] = BITS_AS(vs, __builtin_shufflevector(pairs, pairs, QUADS_EACH(2)));
      to->pairs[h][c][3] = BITS_AS(vs, __builtin_shufflevector(pairs, pairs, QUADS_EACH(3)));
    }
  }
}

// A chunk of rows where they lie, or, where not all of them count, copied and filled up with zeros.
INLINE const CACHE* whole_chunk(const CACHE* rows, int count, CACHE* scratch) {
  if (count == CHUNK) return rows;
  for (int i = 0; i < count * CACHE_ROW; i++) scratch[i] = rows[i];
  for (int i = count * CACHE_ROW; i < CHUNK * CACHE_ROW; i++) scratch[i] = 0;
  return scratch;
}

// the scales of a chunk, block by block
INLINE void take_scales(const CACHE* rows, f32 scales[BLOCKS][CHUNK]) {
  u16 halves[CHUNK * BLOCKS];
  UNROLL for (int p = 0; p < CHUNK; p++) __builtin_memcpy(halves + p * BLOCKS, rows + p * CACHE_ROW + HEAD_DIM, 2 * BLOCKS);
#if BLOCKS == 1
  UNROLL for (int p = 0; p < CHUNK; p += LANES) STORE(scales[0] + p, load_half(halves + p));
#elif BLOCKS == 2
  UNROLL for (int p = 0; p < CHUNK; p += LANES) {
    const vf a = load_half(halves + 2 * p), b = load_half(halves + 2 * p + LANES);
    STORE(scales[0] + p, EVENS(a, b, 0));
    STORE(scales[1] + p, EVENS(a, b, 1));
  }
#else
  f32 all[CHUNK * BLOCKS];
  for (int i = 0; i < CHUNK * BLOCKS; i += LANES) STORE(all + i, load_half(halves + i));
  UNROLL for (int b = 0; b < BLOCKS; b++)
    for (int p = 0; p < CHUNK; p++) scales[b][p] = all[p * BLOCKS + b];
#endif
}

// quarters of four rows to the same pair of all four, pair by pair
INLINE void transpose(vs* rows) {
  const vi a = BITS_AS(vi, rows[0]), b = BITS_AS(vi, rows[1]), c = BITS_AS(vi, rows[2]), d = BITS_AS(vi, rows[3]);
  const vi ab = ONES(a, b, 0), cd = ONES(c, d, 0), ab2 = ONES(a, b, 2), cd2 = ONES(c, d, 2);
  rows[0] = BITS_AS(vs, TWOS(ab, cd, 0)), rows[1] = BITS_AS(vs, TWOS(ab, cd, 2));
  rows[2] = BITS_AS(vs, TWOS(ab2, cd2, 0)), rows[3] = BITS_AS(vs, TWOS(ab2, cd2, 2));
}

// the quarters of LANES / 4 vectors summed: four sums of each, in their order
INLINE vf sum_quarters(const vf* x) {
#if LANES == 16
  const vf ab = HALVES(x[0], x[1], 0) + HALVES(x[0], x[1], 8), cd = HALVES(x[2], x[3], 0) + HALVES(x[2], x[3], 8);
  return QUARTERS(ab, cd, 0) + QUARTERS(ab, cd, 4);
#else
  return HALVES(x[0], x[1], 0) + HALVES(x[0], x[1], 4);
#endif
}

INLINE void score(const queries* query, const CACHE* keys, int count, following next, vf weight[HEADS][CHUNK / LANES]) {
  f32 scales[BLOCKS][CHUNK];
  CACHE scratch[CHUNK * CACHE_ROW];
  const CACHE* rows = whole_chunk(keys, count, scratch);
  take_scales(rows, scales);
  for (int p = 0; p < count; p += LANES, rows += LANES * CACHE_ROW) {
    fetch(keys + p * CACHE_ROW + distance_to_next(next, p), LANES * CACHE_ROW);
    for (int h = 0; h < HEADS; h += HB) {
      vf dots[HB][LANES / 4];
      UNROLL for (int four = 0; four < LANES / 4; four++)
        UNROLL for (int b = 0; b < BLOCKS; b++) {
          vi acc[HB];
          UNROLL for (int c = b * IN_BLOCK; c < (b + 1) * IN_BLOCK; c++) {
            vs x[4];
            UNROLL for (int j = 0; j < 4; j++) x[j] = widened(rows + (4 * four + j) * CACHE_ROW, c);
            transpose(x);
            UNROLL for (int j = 0; j < 4; j++)
              UNROLL for (int g = 0; g < HB; g++) {
                const vs y = query->pairs[h + g < HEADS ? h + g : h][c][j];
                acc[g] = c == b * IN_BLOCK && j == 0 ? mul2(x[j], y) : dot2(acc[g], x[j], y);
              }
          }
          const f32x4 four_scales = LOAD(f32x4, scales[b] + p + 4 * four);
          UNROLL for (int g = 0; g < HB; g++) {
            const vf product = TO_FLOAT(acc[g]) * FOUR_TIMES(four_scales);
            dots[g][four] = b == 0 ? product : dots[g][four] + product;
          }
        }
      UNROLL for (int g = 0; g < HB; g++)
        if (h + g < HEADS) weight[h + g][p / LANES] = sum_quarters(dots[g]) * query->step[h + g];
    }
  }
}

INLINE void add_values(vf* sum, const CACHE* values, int hidden, int count, following next, vf weight[HEADS][CHUNK / LANES], const f32* top) {
  f32 scales[BLOCKS][CHUNK], most[BLOCKS];
  CACHE scratch[CHUNK * CACHE_ROW];
  const CACHE* rows = whole_chunk(values, count, scratch);
  take_scales(rows, scales);
  UNROLL for (int b = 0; b < BLOCKS; b++) {
    if (WINDOW) for (int p = 0; p < hidden; p++) scales[b][p] = 0;  // what is not seen, and may be gone, decides no step
    vf peak = LOAD(vf, scales[b]);
    UNROLL for (int p = LANES; p < CHUNK; p += LANES) peak = vmax(peak, LOAD(vf, scales[b] + p));
    most[b] = max_lanes(peak);
    const f32 inverse = most[b] > 0 ? LARGEST / most[b] : 0.0f;
    UNROLL for (int p = 0; p < CHUNK; p += LANES) STORE(scales[b] + p, LOAD(vf, scales[b] + p) * inverse);
  }
  for (int h = 0; h < HEADS; h += HB) {
    i16 integers[HB][BLOCKS][CHUNK];  // weights times scales
    f32 largest[HB];                  // of the weights
    UNROLL for (int g = 0; g < HB; g++) {
      const int head = h + g < HEADS ? h + g : h;
      largest[g] = vexp2(SPLAT(top[head]))[0];
      const f32 inverse = 1.0f / largest[g];
      UNROLL for (int p = 0; p < CHUNK; p += LANES) {
        const vf w = weight[head][p / LANES] * inverse;
        UNROLL for (int b = 0; b < BLOCKS; b++) STORE(integers[g][b] + p, to_16_bits(w * LOAD(vf, scales[b] + p)));
      }
    }
    UNROLL for (int band = 0; band < PIECES; band += BAND) {
      vi acc[HB][BAND][2];
      UNROLL for (int i = 0; i < 2 * HB * BAND; i++) acc[i / (2 * BAND)][i / 2 % BAND][i % 2] = SPLATI(0);
      for (int p = 0; p < count; p += 2) {
        if (h == 0 && band == 0) fetch(values + p * CACHE_ROW + distance_to_next(next, p), 2 * CACHE_ROW);
        UNROLL for (int c = 0; c < BAND; c++) {
          const vs x = widened(rows + p * CACHE_ROW, band + c), y = widened(rows + (p + 1) * CACHE_ROW, band + c);
          const vs low = PAIRS(x, y, 0), high = PAIRS(x, y, 4);
          UNROLL for (int g = 0; g < HB; g++) {
            const vs two = BITS_AS(vs, SPLATI(LOAD(i32, integers[g][(band + c) / IN_BLOCK] + p)));
            acc[g][c][0] = dot2(acc[g][c][0], low, two);
            acc[g][c][1] = dot2(acc[g][c][1], high, two);
          }
        }
      }
      UNROLL for (int i = 0; i < 2 * HB * BAND; i++) {
        const int g = i / (2 * BAND), c = i / 2 % BAND;
        vf* to = sum + (h + g) * VEC + 2 * (band + c) + i % 2;
        if (h + g < HEADS) *to += TO_FLOAT(acc[g][c][i % 2]) * (largest[g] * most[(band + c) / IN_BLOCK] * (1 / LARGEST));
      }
    }
  }
}

INLINE void store_sum(f32* to, const vf* sum, f32 divisor) {
  for (int c = 0; c < VEC; c += 2) {
    const vf low = sum[c] / divisor, high = sum[c + 1] / divisor;
    STORE(to + LANES * c, IN_ORDER(low, high, 0));
    STORE(to + LANES * (c + 1), IN_ORDER(low, high, LANES / 2));
  }
}
