// out = residual + the sum over a token's experts of share * product; products lie in the order that route.c has made. A work-group takes a token.

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT products, const GLOBAL float* RESTRICT shares, const GLOBAL int* RESTRICT place_of,
                    const GLOBAL float* RESTRICT residual) {
  const int t = group_id(0);
  for (int i = item_id(); i < COLS; i += ITEMS) {
    float sum = 0;
    for (int k = 0; k < USED; k++) sum += shares[t * USED + k] * products[(long)place_of[t * USED + k] * COLS + i];
    out[(long)t * COLS + i] = residual[(long)t * COLS + i] + sum;
  }
}
