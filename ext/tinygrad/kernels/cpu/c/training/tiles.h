// What linear_backward.c and tiles.c agree on: gradients lie in tiles of TILE tokens, each tile row after row of the weights, TILE tokens of a row
// side by side; rows are filled up with zeros to a whole group.

#define TILE (2 * LANES)
#define PADDED_ROWS ((OUT_ROWS + 15) / 16 * 16)
