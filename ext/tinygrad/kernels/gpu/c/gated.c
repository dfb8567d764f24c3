// out = activation(norm(x) @ gate.T) * (norm(x) @ up.T), SiLU or GELU (by its tanh approximation), a bias added to both where BIAS; half of a tile's slots are the gate's. For one token, and for few (DECODE), out is a buffer of activations
// (activations.h) of OUT_ROWS columns: a tile is whole blocks of 32 of them.

#define PART_OF(slot) ((slot) / (SLOTS / 2))
#define GROUP_OF(slot) (tile * (SLOTS / 2) + (slot) % (SLOTS / 2))

#if GELU
#define ACTIVATED(x) (0.5f * (x) * (1.0f + tanh(0.7978845608028654f * ((x) + 0.044715f * (x) * (x) * (x)))))
#else
#define ACTIVATED(x) ((x) / (1.0f + exp(-(x))))
#endif
#if BIAS
#define BIAS_PARAM , const GLOBAL float* RESTRICT bias
#define BIASED(x, i) ((x) + bias[i])
#else
#define BIAS_PARAM
#define BIASED(x, i) (x)
#endif
#if DECODE
#define OUT_WORDS ACTIVATION_WORDS(OUT_ROWS)
#else
#define OUT_WORDS OUT_ROWS
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x, NORM_PARAM const GLOBAL uchar* RESTRICT w0,
                    const GLOBAL uchar* RESTRICT w1 EXPERT_PARAM CHANGES BIAS_PARAM) {
  const int tile = group_id(1);
  PRODUCT(OWN_ROWS, TILE_ROWS / 2,
    const float gate = BIASED(shared[at], row);
    const float h = ACTIVATED(gate) * BIASED(shared[at + TILE_ROWS / 2], OUT_ROWS + row);
    out[(long)t * OUT_WORDS + row] = h;
    shared[at] = h;
  )
#if DECODE && OUT_ROWS % 32 == 0
  sync_group();
  for (int t = 0; t < (rows ? TILE_TOKENS : 0); t++)
    quantize_values(shared + t * SUM_PITCH, tile * TILE_ROWS / 2, min(TILE_ROWS / 2, OUT_ROWS - tile * TILE_ROWS / 2), OUT_ROWS,
                    out + (long)(token + t) * OUT_WORDS);
#endif
}
