// RoPE at positions[t] on queries and keys in place. Where BACK, its transpose on their gradients, and the gradients of keys and values summed over
// the query heads of a group: from dk, dv (TOKENS, KV_HEADS * HEADS, HEAD_DIM) to k, v (TOKENS, KV_HEADS, HEAD_DIM).

INLINE vf cosines(const f32* angles) {
  const vf a = LOAD(vf, angles);
#if LANES == 16
  return __builtin_shufflevector(a, a, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14);
#else
  return __builtin_shufflevector(a, a, 0, 0, 2, 2, 4, 4, 6, 6);
#endif
}

INLINE vf turn(vf x, const f32* angles) {
  // cos and sin of a pair stand side by side; what is turned back is turned the other way
  return BACK ? 2.0f * x * cosines(angles) - rotate(x, angles) : rotate(x, angles);
}

WIDE_VECTORS void ENTRY(f32* restrict q, f32* restrict k,
#if BACK
           f32* restrict v, const f32* restrict dk, const f32* restrict dv,
#endif
           const i32* restrict positions, const f32* restrict rope, long core_id) {
  for (long t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    const f32* angles = rope + (long)positions[t] * HEAD_DIM;
    f32* queries = q + t * KV_HEADS * HEADS * HEAD_DIM;
    for (int h = 0; h < KV_HEADS * HEADS; h++)
      for (int d = 0; d < HEAD_DIM; d += LANES) STORE(queries + h * HEAD_DIM + d, turn(LOAD(vf, queries + h * HEAD_DIM + d), angles + d));
    for (int kv = 0; kv < KV_HEADS; kv++)
      for (int d = 0; d < HEAD_DIM; d += LANES) {
        const long at = (t * KV_HEADS + kv) * HEAD_DIM + d;
#if BACK
        vf keys = SPLAT(0), values = SPLAT(0);
        for (int h = 0; h < HEADS; h++) {
          keys += LOAD(vf, dk + ((t * KV_HEADS + kv) * HEADS + h) * HEAD_DIM + d);
          values += LOAD(vf, dv + ((t * KV_HEADS + kv) * HEADS + h) * HEAD_DIM + d);
        }
        STORE(v + at, values);
#else
        const vf keys = LOAD(vf, k + at);
#endif
        STORE(k + at, turn(keys, angles + d));
      }
  }
}
