// How a cache keeps keys and values: rows of HEAD_DIM elements of type CACHE, or, where QUANTISED, of bytes: HEAD_DIM integers, then a float16 scale for
// each 32 of them (quantised_rows.py).

#define CACHE_BLOCK 32
#define CACHE_ROW (QUANTISED ? HEAD_DIM + HEAD_DIM / 16 : HEAD_DIM)  // elements
#define CACHE_LINE (64 / (int)sizeof(CACHE))

// What is read after the rows of a chunk: that of row p lies `ahead` elements behind it, or, from row `left` on, `beyond` elements.
typedef struct {
  int left;
  long ahead, beyond;
} following;

INLINE long distance_to_next(following next, int p) { return p < next.left ? next.ahead : next.beyond; }

// n elements, into the first-level cache: what is multiplied meanwhile would have to wait behind what comes for the second one, but on processors
// that feed it from there faster by themselves (weight_reading.py)
#ifndef FETCH_LEVEL
#define FETCH_LEVEL 3
#endif
INLINE void fetch(const CACHE* p, int n) {
  UNROLL for (int i = 0; i < n; i += CACHE_LINE) __builtin_prefetch(p + i, 0, FETCH_LEVEL);
}

// the d-th vector of a row
INLINE vf widen(const CACHE* row, int d) {
#if QUANTISED
  return TO_FLOAT(LOAD(vsq, row + LANES * d)) * half_at(row + HEAD_DIM + LANES * d / CACHE_BLOCK * 2);
#else
  return sizeof(CACHE) == 2 ? load_half(row + LANES * d) : LOAD(vf, row + LANES * d);
#endif
}

#if QUANTISED
// 32 values to the integers and the scale of a block
INLINE void store_block(CACHE* row, int block, const f32* x) {
  vf peak = vabs(LOAD(vf, x));
  UNROLL for (int i = LANES; i < CACHE_BLOCK; i += LANES) peak = vmax(peak, vabs(LOAD(vf, x + i)));
  u16 scales[LANES];
  store_half(scales, SPLAT(max_lanes(peak) / 127.0f));
  __builtin_memcpy(row + HEAD_DIM + 2 * block, scales, 2);
  const f32 scale = half_at(scales), inverse = scale > 0 ? 1.0f / scale : 0.0f;
  UNROLL for (int i = 0; i < CACHE_BLOCK; i += LANES) {
    // the scale was rounded: where it is tiny a value may be beyond it
    const vf scaled = vmin(vmax(LOAD(vf, x + i) * inverse, SPLAT(-127)), SPLAT(127));
    // adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low bits: its byte is the result
    STORE(row + CACHE_BLOCK * block + i, __builtin_convertvector(BITS_AS(vi, scaled + 12582912.0f), vsq));
  }
}
#endif
