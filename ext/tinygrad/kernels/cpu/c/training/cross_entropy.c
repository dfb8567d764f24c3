// Logits (TOKENS, COLS) become their gradients, shares[t] * (softmax - 1 at targets[t]). parts keeps, of each token, the largest logit, the sum of the
// exponentials beside it and the target's logit, of which the loss follows: log(sum) + largest - target's.

WIDE_VECTORS void ENTRY(f32* restrict logits, f32* restrict parts, const i32* restrict targets, const f32* restrict shares, long core_id) {
  for (long t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    f32* row = logits + t * COLS;
    vf peak = SPLAT(-1e30f), sum = SPLAT(0);
    int c = 0;
    for (; c + LANES <= COLS; c += LANES) peak = vmax(peak, LOAD(vf, row + c));
    f32 best = max_lanes(peak);
    for (; c < COLS; c++) best = row[c] > best ? row[c] : best;
    const f32 at = row[targets[t]];
    for (c = 0; c + LANES <= COLS; c += LANES) {
      const vf e = vexp(LOAD(vf, row + c) - best);
      sum += e;
      STORE(row + c, e);
    }
    f32 total = sum_lanes(sum);
    for (; c < COLS; c++) total += row[c] = vexp(SPLAT(row[c] - best))[0];
    const f32 scale = shares[t] / total;
    for (c = 0; c < COLS; c++) row[c] *= scale;
    row[targets[t]] -= shares[t];
    parts[3 * t] = best, parts[3 * t + 1] = total, parts[3 * t + 2] = at;
  }
}
