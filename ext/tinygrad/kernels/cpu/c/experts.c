// The experts' products, for PAIRS = tokens times USED pairs of a token and an expert that it uses, in the places that route.c sorted them to:
// those of one expert stand together, in groups of GROUP_SIZES that one call multiplies (experts_group.h). A task takes some rows of every expert: they are read
// once for all pairs that need them, and an expert that none needs is not read.
// GATED: out (PAIRS, OUT_ROWS) = ACTIVATION(x @ gate.T) * (x @ up.T). Otherwise out (tokens, OUT_ROWS) = residual + the sum over a token's pairs of
// share * (x @ down.T). x is by place (rows.c), as is out where GATED.

void ENTRY(f32* restrict out, INPUTS, const u8* restrict w,
#if GATED
           const u8* restrict up, const i32* restrict ids, const i32* restrict places,
#else
           const i32* restrict ids, const i32* restrict places, const f32* restrict shares, const f32* restrict residual,
#endif
           long core_id) {
  const long first = GROUPS(OUT_ROWS) * core_id / TASKS, last = GROUPS(OUT_ROWS) * (core_id + 1) / TASKS;
#if GATED
  const f32* shares = 0;
#else
  for (long t = 0; t < PAIRS / USED; t++)
    for (long i = first * GROUP_ROWS; i < last * GROUP_ROWS; i++) out[t * OUT_ROWS + i] = residual[t * OUT_ROWS + i];
#endif
  const i32 *pairs = places, *sizes = places + 2 * PAIRS;
  for (int from = 0, to; from < PAIRS; from = to) {
    const long e = ids[pairs[from]];
    for (to = from; to < PAIRS && ids[pairs[to]] == e;) to += sizes[to];
    const u8* of_w = w + e * EXPERT_BYTES_0;
#if GATED
    const u8* of_up = up + e * EXPERT_BYTES_1;
#else
    const u8* of_up = 0;
#endif
    for (long group = first; group < last; group++)
      for (int p = from; p < to; p += sizes[p]) EACH_SIZE(sizes[p], out, p, pairs, shares, group, of_w, of_up)
  }
}
