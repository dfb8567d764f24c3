// Activations in the form the weight tiles read. For integer weights: int8 in blocks of 32 columns, quantised as llama.cpp does (amax / 127,
// round to nearest even). Blocks of T tokens lie side by side, so that one block of weights streams past all tokens:
//   block b: T x 32 bytes | T scales (f32) | T scale * sum (f32) | T sums of the first 16 columns (i32) | T of the last 16
// For float weights: float32 rows as they are.

#define ACT_BLOCK 48  // bytes a token takes in a block
#define ACT_BYTES(T, cols) ((T) * ((cols) / 32) * ACT_BLOCK)

INLINE const i8* act_quants(const u8* block, int T, int t) { return (const i8*)block + 32 * t; }
INLINE f32 act_scale(const u8* block, int T, int t) { return ((const f32*)(block + 32 * T))[t]; }
INLINE f32 act_total(const u8* block, int T, int t) { return ((const f32*)(block + 36 * T))[t]; }
INLINE i32 act_sum(const u8* block, int T, int t, int half) { return ((const i32*)(block + (40 + 4 * half) * T))[t]; }

// one block of 32 floats of token t
INLINE void quantize_block(const f32* x, u8* block, int T, int t) {
  vf v[32 / LANES], peak = SPLAT(0);
  UNROLL for (int i = 0; i < 32 / LANES; i++) {
    v[i] = LOAD(vf, x + LANES * i);
    peak = vmax(peak, vabs(v[i]));
  }
  const f32 amax = max_lanes(peak), inverse = amax ? 127.0f / amax : 0.0f, scale = amax / 127.0f;
  i32 sums[2];
  vi half = 0;
  UNROLL for (int i = 0; i < 32 / LANES; i++) {
    vf scaled = v[i] * inverse;
    // adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low bits
    vi q = (vi)(scaled + 12582912.0f) - 0x4b400000;
    STORE(block + 32 * t + LANES * i, __builtin_convertvector(q, vsq));
    half = i % (16 / LANES) ? half + q : q;
    if (i % (16 / LANES) == 16 / LANES - 1) sums[i / (16 / LANES)] = sum_lanes_int(half);
  }
  ((f32*)(block + 32 * T))[t] = scale;
  ((f32*)(block + 36 * T))[t] = scale * (f32)(sums[0] + sums[1]);
  ((i32*)(block + 40 * T))[t] = sums[0];
  ((i32*)(block + 44 * T))[t] = sums[1];
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

// token t of T: row x, normed where there is a norm, to integer blocks
INLINE void quantize_row(const f32* x, const f32* norm, f32 eps, int n, u8* acts, int T, int t) {
  const f32 r = norm ? inverse_rms(x, n, eps) : 1.0f;
  for (int b = 0; b < n / 32; b++) {
    f32 normed[32];
    if (norm)
      UNROLL for (int i = 0; i < 32; i += LANES) STORE(normed + i, LOAD(vf, x + 32 * b + i) * r * LOAD(vf, norm + 32 * b + i));
    quantize_block(norm ? normed : x + 32 * b, acts + (long)b * T * ACT_BLOCK, T, t);
  }
}

INLINE void norm_row(const f32* x, const f32* norm, f32 eps, int n, f32* out) {
  const f32 r = inverse_rms(x, n, eps);
  for (int i = 0; i < n; i++) out[i] = x[i] * r * norm[i];
}
