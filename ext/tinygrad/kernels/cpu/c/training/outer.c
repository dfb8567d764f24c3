// gradient (RANK, COLS), at AT of its buffer, += low.T @ x, with dropout on x where DROPOUT. A task takes some of the columns; sums run over the
// tokens in their order.

#define RANKS 8     // whose sums are in registers together
#define TOGETHER 4  // tokens that a sum is loaded and stored for

WIDE_VECTORS void ENTRY(f32* restrict gradient, const f32* restrict low, const f32* restrict x, SEEDS long core_id) {
  const u32 seed = SEED;
  const long steps = (COLS + LANES - 1) / LANES, from = steps * core_id / TASKS * LANES, to = steps * (core_id + 1) / TASKS * LANES;
  for (long t = 0; t < TOKENS; t += TOGETHER)
    for (long c = from; c < to; c += LANES)
      for (int r = 0; r < RANK; r += RANKS) {
        f32* sums = gradient + AT + (long)r * COLS + c;
        if (c + LANES > COLS) {
          for (int k = 0; k < RANKS && r + k < RANK; k++)
            for (int i = 0; i < TOGETHER; i++)
              for (long j = 0; c + j < COLS; j++) {
                f32 v = x[(t + i) * COLS + c + j];
                if (DROPOUT) v *= kept(seed, (u32)((t + i) * COLS + c + j))[0];
                sums[(long)k * COLS + j] += low[(t + i) * RANK + r + k] * v;
              }
          continue;
        }
        vf acc[RANKS];
        UNROLL for (int k = 0; k < RANKS; k++)
          if (r + k < RANK) acc[k] = LOAD(vf, sums + (long)k * COLS);
        UNROLL for (int i = 0; i < TOGETHER; i++) {
          vf v = LOAD(vf, x + (t + i) * COLS + c);
          if (DROPOUT) v *= kept(seed, (u32)((t + i) * COLS + c));
          UNROLL for (int k = 0; k < RANKS; k++)
            if (r + k < RANK) acc[k] += v * low[(t + i) * RANK + r + k];
        }
        UNROLL for (int k = 0; k < RANKS; k++)
          if (r + k < RANK) STORE(sums + (long)k * COLS, acc[k]);
      }
}
