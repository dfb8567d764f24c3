// The USED likeliest of EXPERTS experts by the router's logits, and their shares: a softmax over all of them, scaled to a sum of 1 where NORMALIZE.
// Of equal ones the first. `places`, int32 (3, PAIRS): pairs of a token and an expert, by expert; where the group begins that each
// belongs to; its size. A group has pairs of one expert, of which it takes the largest of GROUP_SIZES that are left.

void ENTRY(i32* restrict ids, f32* restrict shares, i32* restrict places, const f32* restrict logits, long core_id) {
  i32 counts[EXPERTS];
  for (int e = 0; e < EXPERTS; e++) counts[e] = 0;
  for (long t = 0; t < TOKENS; t++) {
    const f32* row = logits + t * EXPERTS;
    f32 chances[EXPERTS], best = row[0], total = 0.0f, chosen = 0.0f;
    for (int e = 1; e < EXPERTS; e++) best = row[e] > best ? row[e] : best;
    for (int e = 0; e < EXPERTS; e++) total += chances[e] = vexp(SPLAT(row[e] - best))[0];
    for (int k = 0; k < USED; k++) {
      int top = 0;
      for (int e = 1; e < EXPERTS; e++) top = chances[e] > chances[top] ? e : top;
      ids[t * USED + k] = top;
      counts[top]++;
      chosen += shares[t * USED + k] = chances[top] / total;
      chances[top] = -1.0f;
    }
    if (NORMALIZE)
      for (int k = 0; k < USED; k++) shares[t * USED + k] /= chosen;
  }
  const i32 group_sizes[] = {GROUP_SIZES};
  i32 next[EXPERTS], from = 0;
  for (int e = 0; e < EXPERTS; e++) {
    next[e] = from;
    const int to = from + counts[e];
    while (from < to) {
      int i = 0;
      while (group_sizes[i] > to - from) i++;
      for (int j = 0; j < group_sizes[i]; j++) places[PAIRS + from + j] = from, places[2 * PAIRS + from + j] = group_sizes[i];
      from += group_sizes[i];
    }
  }
  for (int p = 0; p < PAIRS; p++) places[next[ids[p]]++] = p;
}
