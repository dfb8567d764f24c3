// A x of TOKENS tokens for the changes of up to three weights, side by side: RANK_0, RANK_1 and RANK_2 numbers a token. A norm is applied where NORM.

void ENTRY(f32* restrict out, const f32* restrict x,
#if NORM
           const f32* restrict norm,
#endif
#if RANK_0
           const CHANGE* restrict a0,
#endif
#if RANK_1
           const CHANGE* restrict a1,
#endif
#if RANK_2
           const CHANGE* restrict a2,
#endif
           long core_id) {
#if !NORM
  const f32* norm = 0;
#endif
  for (int t = TOKENS * core_id / TASKS; t < TOKENS * (core_id + 1) / TASKS; t++) {
    f32* to = out + (long)t * (RANK_0 + RANK_1 + RANK_2);
#if RANK_0
    narrow_row(x + (long)t * COLS, norm, EPS, COLS, a0, RANK_0, to);
#endif
#if RANK_1
    narrow_row(x + (long)t * COLS, norm, EPS, COLS, a1, RANK_1, to + RANK_0);
#endif
#if RANK_2
    narrow_row(x + (long)t * COLS, norm, EPS, COLS, a2, RANK_2, to + RANK_0 + RANK_1);
#endif
  }
}
