// How a kernel walks a weight matrix: rows lie in groups of 16, a tile is what one call works on. TOKENS tokens, COLS columns are the kernel's.
#define GROUP_ROWS 16
#define MOST_ROWS 16  // rows of a batch at most: each is summed as one token is, so that it does not matter which others are there; a prefill has more
#ifdef DOT_TOKENS
#define TILE_ROWS GROUP_ROWS  // of two vectors, which share what they load of the activations
#else
#define TILE_ROWS (TOKENS == 1 ? GROUP_ROWS : LANES)  // one token takes a whole group, so that its activations are loaded once for all rows
#endif
#define VECTORS (TILE_ROWS / LANES)              // float vectors a token has in a tile
#define TILES(rows) (((rows) + GROUP_ROWS - 1) / GROUP_ROWS * (GROUP_ROWS / TILE_ROWS))

// where tasks divide n tiles: task i of `tasks` takes [SHARE(i), SHARE(i + 1)); never a part of a group
#define SHARE(i, n, tasks) ((long)(n) / (GROUP_ROWS / TILE_ROWS) * (i) / (tasks) * (GROUP_ROWS / TILE_ROWS))

INLINE void store_rows(f32* out, vf v, int row, int rows) {
  if (row + LANES <= rows) STORE(out + row, v);
  else
    for (int i = 0; row + i < rows; i++) out[row + i] = v[i];
}

INLINE vf load_rows(const f32* in, int row, int rows) {
  if (row + LANES <= rows) return LOAD(vf, in + row);
  vf v = SPLAT(0);
  for (int i = 0; row + i < rows; i++) v[i] = in[row + i];
  return v;
}
