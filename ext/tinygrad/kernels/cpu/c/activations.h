// Activations in the form the weight tiles read. For integer weights: int8 in blocks of 32 columns, quantised as llama.cpp does (amax / 127,
// round to nearest even). Blocks of T tokens lie side by side, so that one block of weights streams past all tokens:
//   block b: T x 32 bytes | T scales (f32) | T scale * sum (f32) | T sums (i32) | T of the first 16 columns | T of the last 16, all negated
// For float weights: float32 rows as they are.
// A block takes a cache line more than 52 bytes a token: a multiple of a large power of two would put all of a token's into two sets of the L1 cache.

#define ACT_BLOCK(T) ((T) == 1 ? 52 : 52 * (T) + 64)  // activation_bytes of cpu_kernels.py

// what a kernel leaves that may leave such blocks for the product after it
#if INTEGER_OUT
#define OUT u8
#else
#define OUT f32
#endif

INLINE const i8* act_quants(const u8* block, int T, int t) { return (const i8*)block + 32 * t; }
INLINE f32 act_scale(const u8* block, int T, int t) { return ((const f32*)(block + 32 * T))[t]; }
INLINE f32 act_total(const u8* block, int T, int t) { return ((const f32*)(block + 36 * T))[t]; }
// the sum, negated, of the columns that a scale covers: set 0 of one, or set 0 or 1 of two; in all lanes, so that no general register is needed
INLINE vi act_negated_sum(const u8* block, int T, int t, int set, int sets) {
  return SPLATI(((const i32*)(block + (40 + (sets == 1 ? 0 : 4 + 4 * set)) * T))[t]);
}

// 1 / rms(x), arXiv 1910.07467
INLINE f32 inverse_rms(const f32* x, int n, f32 eps) {
  vf sums[4] = {SPLAT(0), SPLAT(0), SPLAT(0), SPLAT(0)};
  int i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    UNROLL for (int j = 0; j < 4; j++) {
      vf v = LOAD(vf, x + i + LANES * j);
      sums[j] += v * v;
    }
  f32 total = sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < n; i++) total += x[i] * x[i];
  return 1.0f / __builtin_sqrtf(total / (f32)n + eps);
}

typedef i32 i32x4 __attribute__((ext_vector_type(4)));
typedef i32 i32x32 __attribute__((ext_vector_type(32)));
typedef i8 i8x32 __attribute__((ext_vector_type(32)));

// the largest lane, or the sum of the lanes, of each of four vectors: a transposing tree
#define EACH(out, s, combine)                                                                                  \
  do {                                                                                                         \
    __typeof__((s)[0]) ab_ = combine(INTERLEAVED((s)[0], (s)[1], 0), INTERLEAVED((s)[0], (s)[1], 1));          \
    __typeof__((s)[0]) cd_ = combine(INTERLEAVED((s)[2], (s)[3], 0), INTERLEAVED((s)[2], (s)[3], 1));          \
    __typeof__((s)[0]) all_ = combine(PAIRED(ab_, cd_, 0), PAIRED(ab_, cd_, 2));                               \
    QUARTERS(out, all_, combine);                                                                              \
  } while (0)
#if LANES == 16
#define INTERLEAVED(a, b, i) \
  __builtin_shufflevector(a, b, i, 16 + i, 2 + i, 18 + i, 4 + i, 20 + i, 6 + i, 22 + i, 8 + i, 24 + i, 10 + i, 26 + i, 12 + i, 28 + i, 14 + i, 30 + i)
#define PAIRED(a, b, i) \
  __builtin_shufflevector(a, b, i, 1 + i, 16 + i, 17 + i, 4 + i, 5 + i, 20 + i, 21 + i, 8 + i, 9 + i, 24 + i, 25 + i, 12 + i, 13 + i, 28 + i, 29 + i)
#define QUARTERS(out, x, combine) (out) = combine(combine((x).lo.lo, (x).lo.hi), combine((x).hi.lo, (x).hi.hi))
#else
#define INTERLEAVED(a, b, i) __builtin_shufflevector(a, b, i, 8 + i, 2 + i, 10 + i, 4 + i, 12 + i, 6 + i, 14 + i)
#define PAIRED(a, b, i) __builtin_shufflevector(a, b, i, 1 + i, 8 + i, 9 + i, 4 + i, 5 + i, 12 + i, 13 + i)
#define QUARTERS(out, x, combine) (out) = combine((x).lo, (x).hi)
#endif

// Four blocks of 32 values to integers: token t[j] of the T whose blocks begin at to[j]. Four at a time, because reductions and divisions wait on themselves.
INLINE void quantize_blocks(const f32** values, u8** to, int T, const int* t) {
  vf peak[4];
  UNROLL for (int j = 0; j < 4; j++) {
    peak[j] = SPLAT(0);
    UNROLL for (int i = 0; i < 32; i += LANES) peak[j] = vmax(peak[j], vabs(LOAD(vf, values[j] + i)));
  }
  f32x4 amax;
  EACH(amax, peak, LARGER);
  const f32x4 inverse = amax > 0 ? 127.0f / amax : (f32x4)0.0f, scale = amax / 127.0f;
  vi halves[2][4];
  UNROLL for (int j = 0; j < 4; j++) {
    union { vi part[32 / LANES]; i32x32 all; } q;
    UNROLL for (int i = 0; i < 32 / LANES; i++) {
      // adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low bits: its byte is the result
      vf scaled = LOAD(vf, values[j] + LANES * i) * inverse[j];
      q.part[i] = BITS_AS(vi, scaled + 12582912.0f);
    }
    STORE(to[j] + 32 * t[j], __builtin_convertvector(q.all, i8x32));
    UNROLL for (int side = 0; side < 2; side++) {
      halves[side][j] = q.part[side * (16 / LANES)];
      if (LANES == 8) halves[side][j] += q.part[side * (16 / LANES) + 16 / LANES - 1];
    }
  }
  i32x4 low, high;
  EACH(low, halves[0], ADDED);
  EACH(high, halves[1], ADDED);
  low -= (i32)(16 * 0x4b400000u), high -= (i32)(16 * 0x4b400000u);
  const f32x4 total = scale * __builtin_convertvector(low + high, f32x4);
  UNROLL for (int j = 0; j < 4; j++) {
    ((f32*)(to[j] + 32 * T))[t[j]] = scale[j];
    ((f32*)(to[j] + 36 * T))[t[j]] = total[j];
    ((i32*)(to[j] + 40 * T))[t[j]] = -(low[j] + high[j]);
    ((i32*)(to[j] + 44 * T))[t[j]] = -low[j];
    ((i32*)(to[j] + 48 * T))[t[j]] = -high[j];
  }
}

// token t of T: row x, normed where there is a norm, to integer blocks
INLINE void quantize_row(const f32* x, const f32* norm, f32 eps, int n, u8* acts, int T, int t) {
  const f32 r = norm ? inverse_rms(x, n, eps) : 1.0f;
  const int blocks = n / 32, same[4] = {t, t, t, t};
  for (int first = 0; first < blocks; first += 4) {
    f32 normed[4][32];
    const f32* values[4];
    u8* to[4];
    UNROLL for (int j = 0; j < 4; j++) {
      const int at = first + j < blocks ? first + j : blocks - 1;  // blocks too many repeat the last one
      to[j] = acts + (long)at * ACT_BLOCK(T);
      UNROLL for (int i = 0; i < 32; i += LANES) {
        vf v = LOAD(vf, x + 32 * at + i);
        if (norm) v = v * r * LOAD(vf, norm + 32 * at + i);
        STORE(normed[j] + i, v);
      }
      values[j] = normed[j];
    }
    quantize_blocks(values, to, T, same);
  }
}

// one block of T tokens that lie one after another
INLINE void quantize_column(f32 (*values)[32], u8* to, int T) {
  u8* same[4] = {to, to, to, to};
  for (int first = 0; first < T; first += 4) {
    int at[4];
    UNROLL for (int j = 0; j < 4; j++) at[j] = first + j < T ? first + j : T - 1;  // tokens too many repeat the last one
    const f32* four[4] = {values[at[0]], values[at[1]], values[at[2]], values[at[3]]};
    quantize_blocks(four, same, T, at);
  }
}

INLINE void norm_row(const f32* x, const f32* norm, f32 eps, int n, f32* out) {
  const f32 r = inverse_rms(x, n, eps);
  for (int i = 0; i < n; i++) out[i] = x[i] * r * norm[i];
}
