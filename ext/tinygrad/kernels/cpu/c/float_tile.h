// The tile of a float weight format; included once per format with FORMAT(name) and ELEMENT (f16 or f32) defined.
// A group is 16 rows, column after column: 16 values of a column side by side. Activations are float32 rows.

#define GROUP_BYTES ((long)COLS * GROUP_ROWS * (long)sizeof(ELEMENT))
#define CHAINS (TOKENS <= MOST_ROWS ? 4 : 1)  // independent sums over columns, against the latency of an addition; as many for rows of a batch as for one token
#define SHARING ((TOKENS <= MOST_ROWS ? LANES / 4 : 8) / (TOKENS == 1 ? 1 : VECTORS))
#define TOGETHER (TOKENS < SHARING ? TOKENS : SHARING)  // tokens that share a loaded weight vector

INLINE vf FORMAT(load)(const ELEMENT* p) { return sizeof(ELEMENT) == 2 ? load_half(p) : LOAD(vf, p); }

INLINE void FORMAT(tokens)(const ELEMENT* p, const f32* x, int n, vf* acc) {
  vf sums[CHAINS][TOGETHER * VECTORS];
  UNROLL for (int i = 0; i < CHAINS * TOGETHER * VECTORS; i++) sums[i / (TOGETHER * VECTORS)][i % (TOGETHER * VECTORS)] = SPLAT(0);
  int c = 0;
  for (; c + CHAINS <= COLS; c += CHAINS) {
    if (TOKENS == 1) UNROLL for (int line = 0; line < CHAINS * GROUP_ROWS * (int)sizeof(ELEMENT); line += 64) PREFETCH_WEIGHTS((const u8*)(p + c * GROUP_ROWS), line);
    UNROLL for (int j = 0; j < CHAINS; j++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        vf w = FORMAT(load)(p + (c + j) * GROUP_ROWS + v * LANES);
        UNROLL for (int t = 0; t < TOGETHER; t++) sums[j][t * VECTORS + v] += w * x[(t < n ? t : 0) * COLS + c + j];
      }
  }
  for (; c < COLS; c++)
    UNROLL for (int v = 0; v < VECTORS; v++) {
      vf w = FORMAT(load)(p + c * GROUP_ROWS + v * LANES);
      UNROLL for (int t = 0; t < TOGETHER; t++) sums[0][t * VECTORS + v] += w * x[(t < n ? t : 0) * COLS + c];
    }
  UNROLL for (int i = 0; i < TOGETHER * VECTORS; i++) {
    UNROLL for (int j = 1; j < CHAINS; j++) sums[0][i] += sums[j][i];
    if (i / VECTORS < n) acc[i] = sums[0][i];
  }
}

INLINE void FORMAT(tile)(const u8* weights, long tile, int rows, const u8* acts, vf* acc) {
  const long row = tile * TILE_ROWS;
  const ELEMENT* p = (const ELEMENT*)(weights + row / GROUP_ROWS * GROUP_BYTES) + row % GROUP_ROWS;
  for (int t = 0; t < TOKENS; t += TOGETHER) FORMAT(tokens)(p, (const f32*)acts + (long)t * COLS, TOKENS - t, acc + t * VECTORS);
}

INLINE void FORMAT(row)(const u8* weights, long row, f32* out) {
  const ELEMENT* p = (const ELEMENT*)(weights + row / GROUP_ROWS * GROUP_BYTES) + row % GROUP_ROWS;
  for (int c = 0; c < COLS; c++) out[c] = sizeof(ELEMENT) == 2 ? half_at(p + c * GROUP_ROWS) : p[c * GROUP_ROWS];
}

#undef GROUP_BYTES
#undef TOGETHER
#undef CHAINS
#undef SHARING
