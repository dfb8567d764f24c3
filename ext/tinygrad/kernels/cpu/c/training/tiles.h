// What linear_backward.c and tiles.c agree on: gradients lie in tiles of TILE tokens, each tile row after row of the weights, TILE tokens of a row
// side by side; rows are filled up with zeros to a whole group.

#define TILE (2 * LANES)
#define PADDED_ROWS ((OUT_ROWS + 15) / 16 * 16)

#if LANES == 16
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH_HALVES(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#else
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_HALVES(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#endif

// LANES vectors become those of the transposed square: each round shuffles like a deck of cards
INLINE void transpose(vf* rows) {
  UNROLL for (int round = 1; round < LANES; round *= 2) {
    vf shuffled[LANES];
    UNROLL for (int i = 0; i < LANES / 2; i++) {
      shuffled[2 * i] = LOW_HALVES(rows[i], rows[i + LANES / 2]);
      shuffled[2 * i + 1] = HIGH_HALVES(rows[i], rows[i + LANES / 2]);
    }
    UNROLL for (int i = 0; i < LANES; i++) rows[i] = shuffled[i];
  }
}
