// out = silu(norm(x) @ gate.T) * (norm(x) @ up.T); half of a tile's slots are the gate's. For one token, and for few (DECODE), out is a buffer of activations
// (activations.h) of OUT_ROWS columns: a tile is whole blocks of 32 of them.

#define PART_OF(slot) ((slot) / (SLOTS / 2))
#define GROUP_OF(slot) (tile * (SLOTS / 2) + (slot) % (SLOTS / 2))

#if DECODE
#define OUT_WORDS ACTIVATION_WORDS(OUT_ROWS)
#else
#define OUT_WORDS OUT_ROWS
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x, NORM_PARAM const GLOBAL uchar* RESTRICT w0,
                    const GLOBAL uchar* RESTRICT w1) {
  const int tile = group_id(1);
  PRODUCT(OUT_ROWS, TILE_ROWS / 2,
    const float gate = shared[at];
    const float h = gate / (1.0f + exp(-gate)) * shared[at + TILE_ROWS / 2];
    out[(long)t * OUT_WORDS + row] = h;
    shared[at] = h;
  )
#if DECODE && OUT_ROWS % 32 == 0
  sync_group();
  for (int t = 0; t < TILE_TOKENS; t++)
    quantize_values(shared + t * SUM_PITCH, tile * TILE_ROWS / 2, min(TILE_ROWS / 2, OUT_ROWS - tile * TILE_ROWS / 2), OUT_ROWS,
                    out + (long)(token + t) * OUT_WORDS);
#endif
}
