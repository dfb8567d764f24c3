// out = x @ w.T, with a norm before it where NORM and a residual added where RESIDUAL

#define PART_OF(slot) 0
#define GROUP_OF(slot) (tile * SLOTS + (slot))
#if RESIDUAL
#define RESIDUAL_PARAM , const __global float* restrict residual
#define ADDED + residual[to]
#else
#define RESIDUAL_PARAM
#define ADDED
#endif

KERNEL ENTRY(__global float* restrict out, const __global float* restrict x, NORM_PARAM const __global uchar* restrict w0 RESIDUAL_PARAM) {
  const int tile = get_group_id(0);
  PRODUCT(OUT_ROWS, TILE_ROWS,
    const long to = (long)t * OUT_ROWS + row;
    out[to] = shared[at] ADDED;
  )
}
