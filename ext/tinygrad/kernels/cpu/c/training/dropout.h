// Dropout without a stored mask: whether an entry stays follows from the pass's seed, the layer's and the adapter's number and its place.
// The hash is Chris Wellons' lowbias32.

typedef u32 vu __attribute__((ext_vector_type(LANES)));

INLINE u32 hash_one(u32 x) {
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu;
  return x ^ x >> 16;
}

#if DROPOUT
// factors of LANES entries from `place` on: 0, or what makes up for the ones that are 0
INLINE vf kept(u32 seed, u32 place) {
  vu x = place;
  UNROLL for (int i = 0; i < LANES; i++) x[i] += i;
  x = x * 0x9e3779b9u + seed;
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
  // the upper 24 bits as an exact float
  const vf chance = TO_FLOAT(BITS_AS(vi, x >> 8)) * 5.9604644775390625e-8f;
  return chance < RATE ? SPLAT(0) : SPLAT(1.0f / (1.0f - RATE));
}
#define SEEDS const u32 *restrict pass_seed, const u32 *restrict layer,
#define SEED (hash_one(pass_seed[0] ^ hash_one(layer[0] * 16 + SLOT)))
#else
INLINE vf kept(u32 seed, u32 place) { return SPLAT(1.0f); }
#define SEEDS
#define SEED 0
#endif
