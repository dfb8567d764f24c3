// Causal attention of TOKENS tokens. A task is (kv head, block of BLOCK tokens): its BLOCK * HEADS query rows lie in the lanes, so that the online
// softmax (arXiv 2205.14135) needs no sum across lanes, and each key and value is widened once for all of them.

#define ROWS_USED (BLOCK * HEADS)
#define RV ((ROWS_USED + LANES - 1) / LANES)        // vectors of query rows
#define NV (RV % 3 == 0 ? 3 : RV % 2 == 0 ? 2 : 1)  // of these, summed in registers together
#define NP (LANES == 16 ? 8 : 4)                    // positions, or entries of a value, that go with them: what registers hold
#define R (RV * LANES)

void ENTRY(OUT* restrict out, const f32* restrict q, const CACHE* restrict k, const CACHE* restrict v, long start_pos, long core_id) {
  const long blocks = (TOKENS + BLOCK - 1) / BLOCK, kv = core_id / blocks, t0 = core_id % blocks * BLOCK;
  const int tokens = TOKENS - t0 < BLOCK ? TOKENS - t0 : BLOCK, n = start_pos + t0 + tokens;
  k += kv * CACHE_ROWS * CACHE_ROW;
  v += kv * CACHE_ROWS * CACHE_ROW;
  f32 query[HEAD_DIM][R], scratch[CHUNK * HEAD_DIM];  // row r of the block is token r / HEADS, head r % HEADS
  vf sum[HEAD_DIM][RV], weight[CHUNK][RV], best[RV], total[RV], keep[RV];
  vi last[RV];  // position up to which a row sees
  for (int r = 0; r < R; r++) {
    const int t = r / HEADS < tokens ? r / HEADS : tokens - 1, h = kv * HEADS + r % HEADS;  // rows too many repeat the last token
    for (int d = 0; d < HEAD_DIM; d++) query[d][r] = q[((t0 + t) * KV_HEADS * HEADS + h) * HEAD_DIM + d] * SCALE;
    ((i32*)last)[r] = start_pos + t0 + t;
  }
  for (int i = 0; i < RV; i++) {
    best[i] = SPLAT(HIDDEN_SCORE), total[i] = SPLAT(0);
    for (int d = 0; d < HEAD_DIM; d++) sum[d][i] = SPLAT(0);
  }

  const int from = WINDOW && start_pos + t0 + 1 > WINDOW ? start_pos + t0 + 1 - WINDOW : 0;  // the first position that the first row sees
  for (int first = from / CHUNK * CHUNK; first < n; first += CHUNK) {
    const int count = n - first < CHUNK ? n - first : CHUNK, steps = (count + NP - 1) / NP * NP;
    const int hidden = WINDOW || first + steps > start_pos + t0 + 1;  // a row may not see all of these positions
    const f32* rows = cache_rows(k, first, count, scratch);
    for (int i = 0; i < RV; i += NV) {
      vf largest[NV];
      UNROLL for (int x = 0; x < NV; x++) largest[x] = best[i + x];
      for (int p = 0; p < steps; p += NP) {
        vf acc[NP][NV];
        UNROLL for (int j = 0; j < NP; j++)
          UNROLL for (int x = 0; x < NV; x++) acc[j][x] = SPLAT(0);
        for (int d = 0; d < HEAD_DIM; d++) {
          vf y[NV];
          UNROLL for (int x = 0; x < NV; x++) y[x] = LOAD(vf, &query[d][(i + x) * LANES]);
          UNROLL for (int j = 0; j < NP; j++)
            UNROLL for (int x = 0; x < NV; x++) acc[j][x] += y[x] * rows[(p + j) * HEAD_DIM + d];
        }
        UNROLL for (int j = 0; j < NP; j++)
          UNROLL for (int x = 0; x < NV; x++) {
            vf score = capped(acc[j][x]);
            if (hidden) score = first + p + j <= last[i + x] ? score : SPLAT(HIDDEN_SCORE);
            if (WINDOW) score = first + p + j > last[i + x] - WINDOW ? score : SPLAT(HIDDEN_SCORE);
            weight[p + j][i + x] = score;
            largest[x] = vmax(largest[x], score);
          }
      }
      UNROLL for (int x = i; x < i + NV; x++) {
        const vf now = largest[x - i];
        vf share = SPLAT(0);
        for (int p = 0; p < steps; p++) {
          weight[p][x] = vexp2(weight[p][x] - now);
          share += weight[p][x];
        }
        keep[x] = vexp2(best[x] - now);
        total[x] = total[x] * keep[x] + share;
        best[x] = now;
      }
    }
    rows = cache_rows(v, first, count, scratch);
    for (int i = 0; i < RV; i += NV)
      for (int d = 0; d < HEAD_DIM; d += NP) {
        vf acc[NP][NV];
        UNROLL for (int j = 0; j < NP; j++)
          UNROLL for (int x = 0; x < NV; x++) acc[j][x] = sum[d + j][i + x] * keep[i + x];
        for (int p = 0; p < count; p++)
          UNROLL for (int j = 0; j < NP; j++)
            UNROLL for (int x = 0; x < NV; x++) acc[j][x] += weight[p][i + x] * rows[p * HEAD_DIM + d + j];
        UNROLL for (int j = 0; j < NP; j++)
          UNROLL for (int x = 0; x < NV; x++) sum[d + j][i + x] = acc[j][x];
      }
  }
#if INTEGER_OUT
  const int n_blocks = tokens * HEADS * (HEAD_DIM / 32);
  for (int first = 0; first < n_blocks; first += 4) {
    f32 heads[4][32];
    const f32* values[4];
    u8* to[4];
    int t[4];
    UNROLL for (int j = 0; j < 4; j++) {
      const int at = first + j < n_blocks ? first + j : n_blocks - 1, r = at / (HEAD_DIM / 32), d = at % (HEAD_DIM / 32) * 32;
      const f32 share = 1.0f / ((const f32*)total)[r];
      for (int i = 0; i < 32; i++) heads[j][i] = ((const f32*)sum[d + i])[r] * share;
      const long token = t0 + r / HEADS, columns = KV_HEADS * HEADS * HEAD_DIM;
      values[j] = heads[j], t[j] = token % SPAN_TOKENS;
      to[j] = out + (token / SPAN_TOKENS * columns + (kv * HEADS + r % HEADS) * HEAD_DIM + d) / 32 * ACT_BLOCK(SPAN_TOKENS);
    }
    quantize_blocks(values, to, SPAN_TOKENS, t);
  }
#else
  for (int r = 0; r < tokens * HEADS; r++) {
    f32* to = out + ((t0 + r / HEADS) * KV_HEADS * HEADS + kv * HEADS + r % HEADS) * HEAD_DIM;
    const f32 share = 1.0f / ((const f32*)total)[r];
    for (int d = 0; d < HEAD_DIM; d++) to[d] = ((const f32*)sum[d])[r] * share;
  }
#endif
}
