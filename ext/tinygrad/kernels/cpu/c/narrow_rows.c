// A x of TOKENS tokens, each by the changes of its own set, for up to three weights side by side: RANK_0, RANK_1 and RANK_2 numbers a token, of
// which as many as a change has ranks are written. A norm is applied where NORM.

#define SUM(i, at)                                                                                                                         \
  do {                                                                                                                                     \
    const change_place* of = CHANGE_OF(changes##i, sets, t);                                                                               \
    if (of) narrow_row(x + (long)t * COLS, norm, EPS, COLS, (const CHANGE*)of->a, of->rank, out + (long)t * (RANK_0 + RANK_1 + RANK_2) + (at)); \
  } while (0)

void ENTRY(f32* restrict out, const f32* restrict x,
#if NORM
           const f32* restrict norm,
#endif
           const i32* restrict sets,
#if RANK_0
           const change_place* restrict changes0,
#endif
#if RANK_1
           const change_place* restrict changes1,
#endif
#if RANK_2
           const change_place* restrict changes2,
#endif
           long core_id) {
#if !NORM
  const f32* norm = 0;
#endif
  for (int t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
#if RANK_0
    SUM(0, 0);
#endif
#if RANK_1
    SUM(1, RANK_0);
#endif
#if RANK_2
    SUM(2, RANK_0 + RANK_1);
#endif
  }
}
