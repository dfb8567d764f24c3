// A x of TOKENS tokens for the changes of all weights of a product, side by side: RANKS numbers a token. A norm is applied where NORM. A token's x begins
// every X_WORDS floats. A work-group takes SIDE rows of A, which are of one weight, and TILE_TOKENS tokens; every sum runs over the columns in one order.

#include "low_rank.h"

#if NORM
#define NORM_PARAM const GLOBAL float *RESTRICT norm,
#define NORMED(v) ((v) * four(norm, col))
#define SQUARES TILE_TOKENS
#else
#define NORM_PARAM
#define NORMED(v) (v)
#define SQUARES 0
#endif
#define SUMS (SIDE * TILE_TOKENS)

// four columns, zeros beyond the end
INLINE float4 four(const GLOBAL float* x, int col) {
#if COLS % 4
  float v[4];
  UNROLL for (int i = 0; i < 4; i++) v[i] = col + i < COLS ? x[col + i] : 0.0f;
  return make_float4(v[0], v[1], v[2], v[3]);
#elif X_WORDS % 4
  return make_float4(x[col], x[col + 1], x[col + 2], x[col + 3]);
#else
  return load4(x, col);
#endif
}

INLINE float4 change4(const GLOBAL CHANGE* a, int col) {
#if COLS % 4
  float v[4];
  UNROLL for (int i = 0; i < 4; i++) v[i] = col + i < COLS ? CHANGE_AT(a, col + i) : 0.0f;
  return make_float4(v[0], v[1], v[2], v[3]);
#else
  return LOAD_CHANGE4(a, col);
#endif
}

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x, NORM_PARAM A_PARAMS) {
  LOCAL_ARRAY(float, scratch, (SUMS + SQUARES) * ITEMS);
  const int item = item_id(), token = group_id(0) * TILE_TOKENS, first = group_id(1) * SIDE;
  const GLOBAL CHANGE* a = A_ROWS(first);
  float sums[SUMS + SQUARES];
  UNROLL for (int i = 0; i < SUMS + SQUARES; i++) sums[i] = 0;
  for (int col = 4 * item; col < COLS; col += 4 * ITEMS) {
    float4 of_a[SIDE];
    UNROLL for (int j = 0; j < SIDE; j++) of_a[j] = change4(a + (long)j * COLS, col);
    UNROLL for (int t = 0; t < TILE_TOKENS; t++) {
      const float4 v = four(x + (long)min(token + t, TOKENS - 1) * X_WORDS, col), of_x = NORMED(v);
      UNROLL for (int j = 0; j < SIDE; j++) sums[t * SIDE + j] = add_dot4(sums[t * SIDE + j], of_x, of_a[j]);
#if NORM
      sums[SUMS + t] = add_dot4(sums[SUMS + t], v, v);
#endif
    }
  }
  UNROLL for (int i = 0; i < SUMS + SQUARES; i++) scratch[i * ITEMS + item] = sums[i];
  sync_group();
  for (int n = ITEMS; n > 1;) {
    const int half_of_it = (n + 1) / 2;
    if (item < n / 2)
      for (int i = 0; i < SUMS + SQUARES; i++) scratch[i * ITEMS + item] += scratch[i * ITEMS + item + half_of_it];
    sync_group();
    n = half_of_it;
  }
  for (int i = item; i < SUMS; i += ITEMS) {
    const int t = i / SIDE;
#if NORM
    const float inverse = 1.0f / sqrt(scratch[(SUMS + t) * ITEMS] / COLS + EPS);
#else
    const float inverse = 1.0f;
#endif
    if (token + t < TOKENS) out[(long)(token + t) * RANKS + first + i % SIDE] = scratch[i * ITEMS] * inverse;
  }
}
