// How a kernel walks a weight matrix: rows lie in groups of 16, a tile is what one call works on. TOKENS tokens, COLS columns are the kernel's.
#define GROUP_ROWS 16
#define MOST_ROWS 16  // rows of a batch at most: each is summed as one token is, so that it does not matter which others are there; a prefill has more
#ifdef DOT_TOKENS
#define TILE_ROWS GROUP_ROWS  // of two vectors, which share what they load of the activations
#else
#define TILE_ROWS (TOKENS == 1 ? GROUP_ROWS : LANES)  // one token takes a whole group, so that its activations are loaded once for all rows
#endif
#define TILE_VECTORS (TILE_ROWS / LANES)
#define GROUPS(rows) (((rows) + GROUP_ROWS - 1) / GROUP_ROWS)

// A tile of one token may be several groups of rows, as far apart as there are tiles: processors that fetch no more than 11 GB/s along one stream of
// addresses fetch 18 along several (AMD's Zen 3). A group that is not there is the first one again, and its results are not stored.
// PLAIN_READ: one stream, and no prefetches, for processors that read ahead faster by themselves. FAR_READ: one stream, prefetched far ahead into the
// first-level cache, for those that bring many lines there at a time, as AMD's Zen 5 does (weight_reading.py).
#if defined(DOT_TOKENS) && !PLAIN_READ && !FAR_READ && TOKENS == 1 && defined(FLOAT_INPUT) && !FLOAT_INPUT && !PREPARED && !ONE_STREAM
#define STREAMS 2
#else
#define STREAMS 1
#endif
#define VECTORS (TILE_VECTORS * STREAMS)  // float vectors a token has in a tile
#define TILES(rows) ((GROUPS(rows) + STREAMS - 1) / STREAMS * GROUP_TILES)
#define ROW(tile, v, rows) (((tile) + (v) / TILE_VECTORS * TILES(rows)) * TILE_ROWS + (v) % TILE_VECTORS * LANES)  // the first one of vector v

// what decode reads next: several streams have the hardware's prefetching, and what comes from here only brings it into the first-level cache
#if PLAIN_READ
#define PREFETCH_WEIGHTS(p, at)
#elif FAR_READ
#define PREFETCH_WEIGHTS(p, at) __builtin_prefetch((p) + FAR_AHEAD + (at), 0, 3)
#elif STREAMS == 1
#define PREFETCH_WEIGHTS(p, at) PREFETCH((p) + AHEAD + (at))
#else
#define PREFETCH_WEIGHTS(p, at) __builtin_prefetch((p) + 1024 + (at), 0, 3)
#endif

// The tiles of a call: [FIRST_TILE, END_TILE) of n. A call may take several tasks in a row, whose activations are then quantised once: core_id is the first
// one's id, and above its 32 bits how many more there are. `unit` tiles stay together, such as those of a group.
#define TASK_TILE(task, n, unit) ((long)(n) / (unit) * (task) / TASKS * (unit))
#define FIRST_TILE(core_id, n, unit) TASK_TILE((core_id) & 0xffffffffl, n, unit)
#define END_TILE(core_id, n, unit) TASK_TILE(((core_id) & 0xffffffffl) + ((core_id) >> 32) + 1, n, unit)
#define GROUP_TILES (GROUP_ROWS / TILE_ROWS)

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
