// The splits of attend_split.c combined: a work-group takes a query head of a token. out is a buffer of activations (activations.h).

#define OUT_WORDS (HEAD_DIM % 32 ? HEADS_IN_ALL * HEAD_DIM : ACTIVATION_WORDS(HEADS_IN_ALL * HEAD_DIM))
#define STATE (HEAD_DIM + 2)  // of a split: weighted sum of the values, sum of the weights, largest score

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT partial) {
  LOCAL_ARRAY(float, values, HEAD_DIM);
  const int head = group_id(0), t = group_id(1);
  const GLOBAL float* p = partial + (long)(t * HEADS_IN_ALL + head) * SPLITS * STATE;
  out += (long)t * OUT_WORDS;
  float best = HIDDEN;
  for (int s = 0; s < SPLITS; s++) best = max(best, p[s * STATE + HEAD_DIM + 1]);
  for (int d = item_id(); d < HEAD_DIM; d += ITEMS) {
    float sum = 0, total = 0;
    for (int s = 0; s < SPLITS; s++) {
      const float weight = exp2(p[s * STATE + HEAD_DIM + 1] - best);
      sum += weight * p[s * STATE + d], total += weight * p[s * STATE + HEAD_DIM];
    }
    values[d] = sum / total;
    out[(long)head * HEAD_DIM + d] = sum / total;
  }
  sync_group();
#if HEAD_DIM % 32 == 0
  quantize_values(values, head * HEAD_DIM, HEAD_DIM, HEADS_IN_ALL * HEAD_DIM, out);
#endif
}
