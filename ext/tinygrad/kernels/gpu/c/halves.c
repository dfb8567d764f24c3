// Rows of floats as halves for matrix.h, a work-group each: normed where NORM, times a power of two that brings the largest of a row to 2^14 … 2^15, so that
// no row overflows and none loses digits to the halves' smallest exponent. `undo` holds the inverses of these powers.

KERNEL(ITEMS) ENTRY(GLOBAL f16* RESTRICT out, GLOBAL float* RESTRICT undo, INPUT_PARAMS) {
  LOCAL_ARRAY(float, scratch, ITEMS);
  const int t = group_id(0);
  x += (long)t * COLS, out += (long)t * COLS;
  float squares = 0, peak = 0;
  for (int i = 4 * item_id(); i < COLS; i += 4 * ITEMS) {
    const float4 v = load4(x, i);
    squares += dot4(v, v);
    peak = max(peak, magnitude(input4(INPUT, i)));
  }
  const float inverse = NORM ? 1.0f / sqrt(group_sum(squares, scratch) / COLS + EPS) : 1.0f;
  const int exponent = (int)(float_to_bits(group_max(peak, scratch) * inverse) >> 23) - 127;
  const int power = min(max(14 - exponent, -100), 100);
  const float factor = inverse * bits_to_float((uint)(127 + power) << 23);
  for (int i = 4 * item_id(); i < COLS; i += 4 * ITEMS) {
    const float4 v = input4(INPUT, i) * factor;
    ((GLOBAL uint2*)out)[i / 4] = pack4_f16(v);
  }
  if (item_id() == 0) undo[t] = bits_to_float((uint)(127 - power) << 23);
}
