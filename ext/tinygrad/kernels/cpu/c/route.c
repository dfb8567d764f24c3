// The USED likeliest of EXPERTS experts by the router's logits, and their shares: a softmax over all of them, scaled to a sum of 1 where NORMALIZE.
// Of equal ones the first.

void ENTRY(i32* restrict ids, f32* restrict shares, const f32* restrict logits, long core_id) {
  for (long t = 0; t < TOKENS; t++) {
    const f32* row = logits + t * EXPERTS;
    f32 chances[EXPERTS], best = row[0], total = 0.0f, chosen = 0.0f;
    for (int e = 1; e < EXPERTS; e++) best = row[e] > best ? row[e] : best;
    for (int e = 0; e < EXPERTS; e++) total += chances[e] = vexp(SPLAT(row[e] - best))[0];
    for (int k = 0; k < USED; k++) {
      int top = 0;
      for (int e = 1; e < EXPERTS; e++) top = chances[e] > chances[top] ? e : top;
      ids[t * USED + k] = top;
      chosen += shares[t * USED + k] = chances[top] / total;
      chances[top] = -1.0f;
    }
    if (NORMALIZE)
      for (int k = 0; k < USED; k++) shares[t * USED + k] /= chosen;
  }
}
