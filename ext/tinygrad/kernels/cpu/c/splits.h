// What attend_decode.c leaves of a split, head by head: its unnormed result, its largest score and its sum; and how splits become one result.
#define PART (HEAD_DIM + 2)

// parts: those of one head, HEADS * PART apart, in their order
INLINE void combine_splits(f32* out, const f32* parts) {
  const long step = HEADS * PART;
  f32 best = HIDDEN_SCORE, total = 0;
  for (int s = 0; s < SPLITS; s++) best = parts[s * step + HEAD_DIM] > best ? parts[s * step + HEAD_DIM] : best;
  vf sum[VEC];
  UNROLL for (int d = 0; d < VEC; d++) sum[d] = SPLAT(0);
  for (int s = 0; s < SPLITS; s++) {
    vf share = vexp2(SPLAT(parts[s * step + HEAD_DIM] - best));
    total += share[0] * parts[s * step + HEAD_DIM + 1];
    UNROLL for (int d = 0; d < VEC; d++) sum[d] += share * LOAD(vf, parts + s * step + LANES * d);
  }
  UNROLL for (int d = 0; d < VEC; d++) STORE(out + LANES * d, sum[d] / total);
}
