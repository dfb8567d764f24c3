// gradient (RANK, COLS), at AT of its buffer, += low.T @ x, with dropout on x where DROPOUT. A task takes some of the columns; sums run over the
// tokens in their order.

#define RANKS (LANES == 16 ? 8 : 4)
#define STEP (2 * LANES)

void ENTRY(f32* restrict gradient, const f32* restrict low, const f32* restrict x, SEEDS long core_id) {
  const u32 seed = SEED;
  const long steps = (COLS + STEP - 1) / STEP;
  for (long c = steps * core_id / TASKS * STEP; c < steps * (core_id + 1) / TASKS * STEP && c < COLS; c += STEP)
    for (int r = 0; r < RANK; r += RANKS) {
      f32* to = gradient + AT + (long)r * COLS + c;
      if (c + STEP > COLS) {
        for (int k = 0; k < RANKS && r + k < RANK; k++)
          for (long j = 0; c + j < COLS; j++) {
            f32 sum = 0;
            for (long t = 0; t < TOKENS; t++) {
              f32 v = x[t * COLS + c + j];
              if (DROPOUT) v *= kept(seed, (u32)(t * COLS + c + j))[0];
              sum += low[t * RANK + r + k] * v;
            }
            to[(long)k * COLS + j] += sum;
          }
        continue;
      }
      vf acc[RANKS][2];
      UNROLL for (int i = 0; i < 2 * RANKS; i++) acc[i / 2][i % 2] = SPLAT(0);
      for (long t = 0; t < TOKENS; t++) {
        vf a = LOAD(vf, x + t * COLS + c), b = LOAD(vf, x + t * COLS + c + LANES);
        if (DROPOUT) a *= kept(seed, (u32)(t * COLS + c)), b *= kept(seed, (u32)(t * COLS + c + LANES));
        UNROLL for (int k = 0; k < RANKS; k++) {
          const f32 u = low[t * RANK + (r + k < RANK ? r + k : r)];
          acc[k][0] += a * u;
          acc[k][1] += b * u;
        }
      }
      UNROLL for (int k = 0; k < RANKS; k++)
        if (r + k < RANK) {
          STORE(to + (long)k * COLS, LOAD(vf, to + (long)k * COLS) + acc[k][0]);
          STORE(to + (long)k * COLS + LANES, LOAD(vf, to + (long)k * COLS + LANES) + acc[k][1]);
        }
    }
}
