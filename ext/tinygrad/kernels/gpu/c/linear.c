// out = x @ w.T, with a norm before it where NORM; a bias is added where BIAS, it is multiplied with FACTOR where SCALED, becomes SOFTCAP * tanh(out / SOFTCAP)
// where CAPPED, and a residual is added where RESIDUAL

#define PART_OF(slot) 0
#define GROUP_OF(slot) (tile * SLOTS + (slot))
#if RESIDUAL
#define RESIDUAL_PARAM , const GLOBAL float* RESTRICT residual
#define ADDED + residual[to]
#else
#define RESIDUAL_PARAM
#define ADDED
#endif
#if BIAS
#define BIAS_PARAM , const GLOBAL float* RESTRICT bias
#define BIASED(x) ((x) + bias[row])
#else
#define BIAS_PARAM
#define BIASED(x) (x)
#endif
#if SCALED
#define TIMES(x) ((x) * FACTOR)
#else
#define TIMES(x) (x)
#endif
#if CAPPED
#define CAP(x) (tanh((x) / SOFTCAP) * SOFTCAP)
#else
#define CAP(x) (x)
#endif

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT x, NORM_PARAM const GLOBAL uchar* RESTRICT w0 EXPERT_PARAM CHANGES BIAS_PARAM RESIDUAL_PARAM) {
  const int tile = group_id(1);
  PRODUCT(OWN_ROWS, TILE_ROWS,
    const long to = (long)t * OUT_ROWS + row;
    out[to] = CAP(TIMES(BIASED(shared[at]))) ADDED;
  )
}
