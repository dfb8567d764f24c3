// Gradients of attend.c: of the queries, and for each query head of its keys and values, which heads.c sums. A task is a query head, so that each entry
// of keys and values is summed by one task, in the order of the queries.

#define QUERY_HEADS (HEADS * KV_HEADS)
#define VEC (HEAD_DIM / LANES)
#define BAND (VEC % 4 ? VEC % 2 ? 1 : 2 : 4)  // vectors of a key's or a value's gradient that are summed in registers together

WIDE_VECTORS void ENTRY(f32* restrict dq, f32* restrict dk, f32* restrict dv, const f32* restrict dout, const f32* restrict out, const f32* restrict stats,
           const f32* restrict q, const f32* restrict k, const f32* restrict v, const i32* restrict first, long core_id) {
  const long h = core_id, kv = h / HEADS, step = QUERY_HEADS * HEAD_DIM;
  dq += h * HEAD_DIM, dk += h * HEAD_DIM, dv += h * HEAD_DIM, dout += h * HEAD_DIM, out += h * HEAD_DIM, q += h * HEAD_DIM;
  for (long t = 0; t < TOKENS; t++)
    for (int d = 0; d < HEAD_DIM; d += LANES) STORE(dk + t * step + d, SPLAT(0)), STORE(dv + t * step + d, SPLAT(0));
  for (long t0 = 0; t0 < TOKENS; t0 += LANES) {
    vf query[HEAD_DIM], grad[HEAD_DIM], p[TOKENS], ds[TOKENS], best, inverse, mean = SPLAT(0);
    vi from, self;
    UNROLL for (int i = 0; i < LANES; i++) {
      from[i] = first[t0 + i], self[i] = t0 + i;
      best[i] = stats[((t0 + i) * QUERY_HEADS + h) * 2], inverse[i] = stats[((t0 + i) * QUERY_HEADS + h) * 2 + 1];
      vf dot = SPLAT(0);
      for (int d = 0; d < HEAD_DIM; d += LANES) dot += LOAD(vf, dout + (t0 + i) * step + d) * LOAD(vf, out + (t0 + i) * step + d);
      mean[i] = sum_lanes(dot);
      for (int d = 0; d < HEAD_DIM; d++) {
        ((f32*)query)[d * LANES + i] = q[(t0 + i) * step + d] * (SCALE * 1.44269504f);
        ((f32*)grad)[d * LANES + i] = dout[(t0 + i) * step + d];
      }
    }
    const int begin = first[t0], end = t0 + LANES;
    for (int j = begin; j < end; j += 4) {
      vf dots[4], slopes[4];
      const f32 *key[4], *value[4];  // those too many repeat the last one
      UNROLL for (int i = 0; i < 4; i++) {
        const long at = ((long)(j + i < end ? j + i : end - 1) * KV_HEADS + kv) * HEAD_DIM;
        key[i] = k + at, value[i] = v + at, dots[i] = slopes[i] = SPLAT(0);
      }
      for (int d = 0; d < HEAD_DIM; d++)
        UNROLL for (int i = 0; i < 4; i++) {
          dots[i] += query[d] * key[i][d];
          slopes[i] += grad[d] * value[i][d];
        }
      UNROLL for (int i = 0; i < 4; i++)
        if (j + i < end) {
          const vi at = SPLATI(j + i);
          const vf share = ((at >= from) & (at <= self)) ? vexp2(vmin(dots[i] - best, SPLAT(0))) * inverse : SPLAT(0);
          p[j + i] = share;
          ds[j + i] = share * (slopes[i] - mean) * SCALE;
        }
    }
    for (int d = 0; d < HEAD_DIM; d += 8) {
      vf sum[8];
      UNROLL for (int i = 0; i < 8; i++) sum[i] = SPLAT(0);
      for (int j = begin; j < end; j++) {
        const f32* key = k + ((long)j * KV_HEADS + kv) * HEAD_DIM + d;
        UNROLL for (int i = 0; i < 8; i++) sum[i] += ds[j] * key[i];
      }
      UNROLL for (int i = 0; i < 8; i++)
        for (int t = 0; t < LANES; t++) dq[(t0 + t) * step + d + i] = sum[i][t];
    }
    for (int j = begin; j < end; j++)
      UNROLL for (int band = 0; band < VEC; band += BAND) {
        vf keys[BAND], values[BAND];
        const long at = j * step + band * LANES;
        UNROLL for (int i = 0; i < BAND; i++) keys[i] = LOAD(vf, dk + at + i * LANES), values[i] = LOAD(vf, dv + at + i * LANES);
        for (int t = 0; t < LANES; t++) {
          const long row = (t0 + t) * step + band * LANES;
          const f32 slope = ((f32*)ds)[j * LANES + t], share = ((f32*)p)[j * LANES + t];
          UNROLL for (int i = 0; i < BAND; i++) {
            keys[i] += slope * LOAD(vf, q + row + i * LANES);
            values[i] += share * LOAD(vf, dout + row + i * LANES);
          }
        }
        UNROLL for (int i = 0; i < BAND; i++) STORE(dk + at + i * LANES, keys[i]), STORE(dv + at + i * LANES, values[i]);
      }
  }
}
