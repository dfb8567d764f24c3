// low = SCALE * x @ down.T, then y += low @ up: an adapter on a product, and the same with down and up in each other's places for its gradient.
// params holds down (RANK, COLS) at DOWN_AT and up (RANK, OUT) at UP_AT. Dropout applies to x where DROPOUT is 1, to what is added where it is 2.

#define TOGETHER 4  // tokens
#define RANKS 2     // that share loaded activations

WIDE_VECTORS void ENTRY(f32* restrict y, f32* restrict low, const f32* restrict x, const f32* restrict params, SEEDS long core_id) {
  const f32 *down = params + DOWN_AT, *up = params + UP_AT;
  const u32 seed = SEED;
  for (long t = TOKENS / TOGETHER * core_id / TASKS * TOGETHER; t < TOKENS / TOGETHER * (core_id + 1) / TASKS * TOGETHER; t += TOGETHER) {
    const f32* from = x + t * COLS;
    f32* to = y + t * OUT;
    f32 made[TOGETHER][RANK];
    for (int r = 0; r < RANK; r += RANKS) {
      const int next = r + 1 < RANK ? 1 : 0;  // a rank too many repeats the last one
      vf acc[RANKS][TOGETHER];
      UNROLL for (int i = 0; i < RANKS * TOGETHER; i++) acc[i / TOGETHER][i % TOGETHER] = SPLAT(0);
      int c = 0;
      for (; c + LANES <= COLS; c += LANES) {
        const vf a = LOAD(vf, down + (long)r * COLS + c), b = LOAD(vf, down + (long)(r + next) * COLS + c);
        UNROLL for (int i = 0; i < TOGETHER; i++) {
          vf v = LOAD(vf, from + (long)i * COLS + c);
          if (DROPOUT == 1) v *= kept(seed, (u32)((t + i) * COLS + c));
          acc[0][i] += v * a;
          acc[1][i] += v * b;
        }
      }
      UNROLL for (int i = 0; i < TOGETHER; i++)
        UNROLL for (int k = 0; k < RANKS; k++) {
          f32 sum = sum_lanes(acc[k][i]);
          for (int rest = c; rest < COLS; rest++) {
            f32 v = from[(long)i * COLS + rest];
            if (DROPOUT == 1) v *= kept(seed, (u32)((t + i) * COLS + rest))[0];
            sum += v * down[(long)(r + k * next) * COLS + rest];
          }
          if (k == 0 || next) made[i][r + k] = sum * SCALE;
        }
    }
    for (int i = 0; i < TOGETHER; i++)
      for (int r = 0; r < RANK; r++) low[(t + i) * RANK + r] = made[i][r];
    int c = 0;
    for (; c + LANES <= OUT; c += LANES) {
      vf acc[TOGETHER];
      UNROLL for (int i = 0; i < TOGETHER; i++) acc[i] = SPLAT(0);
      for (int r = 0; r < RANK; r++) {
        const vf b = LOAD(vf, up + (long)r * OUT + c);
        UNROLL for (int i = 0; i < TOGETHER; i++) acc[i] += made[i][r] * b;
      }
      UNROLL for (int i = 0; i < TOGETHER; i++) {
        if (DROPOUT == 2) acc[i] *= kept(seed, (u32)((t + i) * OUT + c));
        STORE(to + (long)i * OUT + c, LOAD(vf, to + (long)i * OUT + c) + acc[i]);
      }
    }
    for (; c < OUT; c++)
      for (int i = 0; i < TOGETHER; i++) {
        f32 sum = 0;
        for (int r = 0; r < RANK; r++) sum += made[i][r] * up[(long)r * OUT + c];
        if (DROPOUT == 2) sum *= kept(seed, (u32)((t + i) * OUT + c))[0];
        to[(long)i * OUT + c] += sum;
      }
  }
}
