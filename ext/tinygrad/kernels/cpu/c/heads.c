// Heads of queries and keys as projected, normed and turned by RoPE, and keys and values stored in the cache rows where the tokens
// stand (place.h). A bias is added first where BIAS. norm: RMSNorm's weights of the queries, then of the keys; PER_HEAD: HEAD_DIM each, and every
// head is normed by itself; otherwise all heads of a token together.

INLINE vf projected(const f32* from, const f32* bias, long i) {
  vf x = LOAD(vf, from + i);
#if BIAS
  x += LOAD(vf, bias + i);
#endif
  return x;
}

INLINE f32 inverse_rms_of(const f32* from, const f32* bias, long n) {
  vf sum = SPLAT(0);
  for (long i = 0; i < n; i += LANES) {
    const vf x = projected(from, bias, i);
    sum += x * x;
  }
  return 1.0f / __builtin_sqrtf(sum_lanes(sum) / (f32)n + EPS);
}

// n heads of one token to `to` or the cache; bias and norm are those of the first head
INLINE void turned(const f32* from, const f32* bias, const f32* norm, int n, const f32* angles, f32* to, CACHE* cache) {
  f32 r = PER_HEAD ? 0.0f : inverse_rms_of(from, bias, n * HEAD_DIM);
  for (int h = 0; h < n; h++) {
    const f32* own = norm + (PER_HEAD ? 0 : h * HEAD_DIM);
    if (PER_HEAD) r = inverse_rms_of(from + h * HEAD_DIM, bias + h * HEAD_DIM, HEAD_DIM);
    f32 head[HEAD_DIM];
    for (int d = 0; d < HEAD_DIM; d += LANES) {
      const vf x = rotate(projected(from, bias, h * HEAD_DIM + d) * r * LOAD(vf, own + d), angles + d);
      STORE((to ? to + h * HEAD_DIM : head) + d, x);
    }
    if (!to) store_row(cache + (long)h * CACHE_ROWS * CACHE_ROW, head);
  }
}

void ENTRY(f32* restrict q, CACHE* restrict cache_k, CACHE* restrict cache_v, const f32* restrict from_q, const f32* restrict from_k,
           const f32* restrict from_v, const f32* restrict rope, const f32* restrict norm,
#if BIAS
           const f32* restrict bias,
#endif
           PLACE, long core_id) {
#if !BIAS
  const f32* bias = norm;  // is not read, and C leaves undefined what an offset from 0 is
#endif
  const long q_rows = Q_HEADS * HEAD_DIM, kv_rows = KV_HEADS * HEAD_DIM;
  const f32* k_norm = norm + (PER_HEAD ? HEAD_DIM : q_rows);
  for (long t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    if (!IS_THERE(t)) continue;
    const f32* angles = rope + POSITION(t) * HEAD_DIM;
    CACHE *k = cache_k + SLOT(t) + POSITION(t) * CACHE_ROW, *v = cache_v + SLOT(t) + POSITION(t) * CACHE_ROW;
    turned(from_q + t * q_rows, bias, norm, Q_HEADS, angles, q + t * q_rows, 0);
    turned(from_k + t * kv_rows, bias + q_rows, k_norm, KV_HEADS, angles, 0, k);
    for (long h = 0; h < KV_HEADS; h++) {
      f32 head[HEAD_DIM];
      for (long d = 0; d < HEAD_DIM; d += LANES) STORE(head + d, projected(from_v + t * kv_rows, bias + q_rows + kv_rows, h * HEAD_DIM + d));
      store_row(v + h * CACHE_ROWS * CACHE_ROW, head);
    }
  }
}
