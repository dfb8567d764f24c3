// The splits of attend_decode.c put together, in their order.

void ENTRY(f32* restrict out, const f32* restrict partial, long core_id) {
  for (int head = TOKENS * KV_HEADS * HEADS * core_id / TASKS; head < TOKENS * KV_HEADS * HEADS * (core_id + 1) / TASKS; head++) {
    const f32* from = partial + (head / HEADS * SPLITS * HEADS + head % HEADS) * (HEAD_DIM + 2);
    const long step = HEADS * (HEAD_DIM + 2);
    f32 best = HIDDEN_SCORE, total = 0;
    for (int s = 0; s < SPLITS; s++) best = from[s * step + HEAD_DIM] > best ? from[s * step + HEAD_DIM] : best;
    vf sum[VEC];
    UNROLL for (int d = 0; d < VEC; d++) sum[d] = SPLAT(0);
    for (int s = 0; s < SPLITS; s++) {
      vf share = vexp2(SPLAT(from[s * step + HEAD_DIM] - best));
      total += share[0] * from[s * step + HEAD_DIM + 1];
      UNROLL for (int d = 0; d < VEC; d++) sum[d] += share * LOAD(vf, from + s * step + LANES * d);
    }
    UNROLL for (int d = 0; d < VEC; d++) STORE(out + head * HEAD_DIM + LANES * d, sum[d] / total);
  }
}
