// out = silu(norm(x) @ gate.T) * (norm(x) @ up.T); half of a tile's slots are the gate's

#define PART_OF(slot) ((slot) / (SLOTS / 2))
#define GROUP_OF(slot) (tile * (SLOTS / 2) + (slot) % (SLOTS / 2))

KERNEL ENTRY(__global float* restrict out, const __global float* restrict x, NORM_PARAM const __global uchar* restrict w0,
             const __global uchar* restrict w1) {
  const int tile = get_group_id(0);
  PRODUCT(OUT_ROWS, TILE_ROWS / 2,
    const float gate = shared[at];
    out[(long)t * OUT_ROWS + row] = gate / (1.0f + exp(-gate)) * shared[at + TILE_ROWS / 2];
  )
}
