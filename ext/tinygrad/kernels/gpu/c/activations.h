// Activations as a buffer, of each token: COLS floats | COLS int8 | a scale for every 32 of them. Where COLS is no multiple of 32, floats alone:
// there are no integer weights of such a width.

// words of four bytes that a token takes
#define ACTIVATION_WORDS(cols) ((cols) % 32 ? (cols) : (cols) + (cols) / 4 + (cols) / 32)

#ifdef COLS
INLINE const GLOBAL int* activation_quants(const GLOBAL uchar* x) { return (const GLOBAL int*)(x + 4 * COLS); }
INLINE const GLOBAL float* activation_scales(const GLOBAL uchar* x) { return (const GLOBAL float*)(x + 5 * COLS); }
#endif

// -> the byte that `x` becomes where `peak` is the largest magnitude of its 32 columns
INLINE int quantize(float x, float peak) { return (int)rint(peak > 0 ? x * (127.0f / peak) : 0.0f); }

INLINE float magnitude(float4 x) { return max(max(fabs(x.x), fabs(x.y)), max(fabs(x.z), fabs(x.w))); }

INLINE int quantize4(float4 x, float peak) {
  return (quantize(x.x, peak) & 255) | (quantize(x.y, peak) & 255) << 8 | (quantize(x.z, peak) & 255) << 16 | quantize(x.w, peak) << 24;
}

// the largest of `x` among eight neighbouring items, for each of them; `scratch` holds a float for each item
INLINE float largest_of_8(float x, LOCAL float* scratch) {
#if HAS_SHUFFLE
  for (int mask = 1; mask < 8; mask *= 2) x = max(x, shuffle_xor(x, mask));
  return x;
#else
  const int item = item_id();
  scratch[item] = x;
  sync_group();
  for (int i = 0; i < 8; i++) x = max(x, scratch[item / 8 * 8 + i]);
  sync_group();
  return x;
#endif
}

// `n` values in local memory, whole blocks of 32, to the int8 part of a buffer of activations `cols` wide, from column `first` on
INLINE void quantize_values(const LOCAL float* values, int first, int n, int cols, GLOBAL float* activations) {
  GLOBAL int* quants = (GLOBAL int*)(activations + cols) + first / 4;
  GLOBAL float* scales = activations + cols / 4 * 5 + first / 32;
  for (int i = item_id(); i < n / 4; i += ITEMS) {
    float peak = 0;
    for (int j = i / 8 * 32; j < i / 8 * 32 + 32; j++) peak = max(peak, fabs(values[j]));
    quants[i] = quantize4(load4_local(values, 4 * i), peak);
    if (i % 8 == 0) scales[i / 8] = peak / 127.0f;
  }
}
