// out = x @ w.T, with a norm before it where NORM and a residual added where RESIDUAL

#define PART_OF(slot) 0
#define GROUP_OF(slot) (tile * SLOTS + (slot))
#if RESIDUAL
#define RESIDUAL_PARAM , const GLOBAL float* RESTRICT residual
#define ADDED + residual[to]
#else
#define RESIDUAL_PARAM
#define ADDED
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x, NORM_PARAM const GLOBAL uchar* RESTRICT w0 RESIDUAL_PARAM) {
  const int tile = group_id(1);
  PRODUCT(OUT_ROWS, TILE_ROWS,
    const long to = (long)t * OUT_ROWS + row;
    out[to] = shared[at] ADDED;
  )
}
