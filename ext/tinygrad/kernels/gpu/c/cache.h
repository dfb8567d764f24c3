// How a cache keeps keys and values: rows of HEAD_DIM halves or floats, or, where QUANTISED, of bytes: HEAD_DIM integers, then a half as the scale of each 32
// of them (../../quantised_rows.py). Such rows are aligned to what CACHE_ROW is a multiple of, and loads of more bytes are cut accordingly.

#if QUANTISED
#define CACHE uchar
#define CACHE_ROW (HEAD_DIM + HEAD_DIM / 16)  // elements
#elif CACHE_HALF
#define CACHE f16
#define CACHE_ROW HEAD_DIM
#define STORE(x, p, i) ((p)[i] = float_to_f16(x))
#else
#define CACHE float
#define CACHE_ROW HEAD_DIM
#define STORE(x, p, i) ((p)[i] = (x))
#endif

#if QUANTISED
#define CACHE_BLOCK 32

INLINE const GLOBAL f16* scale_of(const GLOBAL uchar* row, int d) { return (const GLOBAL f16*)(row + HEAD_DIM) + d / CACHE_BLOCK; }

// four integers of a row, from d on
INLINE uint bytes4(const GLOBAL uchar* row, int d) {
#if HEAD_DIM % 64
  const GLOBAL ushort* halves_ = (const GLOBAL ushort*)(row + d);
  return halves_[0] | (uint)halves_[1] << 16;
#else
  return *(const GLOBAL uint*)(row + d);
#endif
}

INLINE uint2 bytes8(const GLOBAL uchar* row, int d) {
#if HEAD_DIM % 128
  return make_uint2(bytes4(row, d), bytes4(row, d + 4));
#else
  return *(const GLOBAL uint2*)(row + d);
#endif
}

// x / 127, rounded as IEEE 754 has it: OpenCL's division may be off by two units
INLINE float by_127(float x) {
  const float quotient = x * (1.0f / 127);
  return fma(fma(-127.0f, quotient, x), 1.0f / 127, quotient);
}

// Of the 32 values of a block four, those from d of a row on, to their integers, and with the first of them the scale.
INLINE void store4_of_block(GLOBAL uchar* row, int d, const LOCAL float* block) {
  float peak = 0;
  for (int i = 0; i < CACHE_BLOCK; i++) peak = max(peak, fabs(block[i]));
  const f16 stored = float_to_f16(by_127(peak));
  const float scale = f16_to_float(stored), inverse = scale > 0 ? 1.0f / scale : 0.0f;
  uint bytes = 0;
  UNROLL for (int i = 0; i < 4; i++) {
    // the scale was rounded: where it is tiny a value may be beyond it
    const float scaled = min(max(block[d % CACHE_BLOCK + i] * inverse, -127.0f), 127.0f);
    bytes |= ((uint)(int)rint(scaled) & 255) << 8 * i;
  }
#if HEAD_DIM % 64
  GLOBAL ushort* to = (GLOBAL ushort*)(row + d);
  to[0] = (ushort)bytes, to[1] = (ushort)(bytes >> 16);
#else
  *(GLOBAL uint*)(row + d) = bytes;
#endif
  if (d % CACHE_BLOCK == 0) ((GLOBAL f16*)(row + HEAD_DIM))[d / CACHE_BLOCK] = stored;
}
#endif

// four values of a row, from d on
INLINE float4 row4(const GLOBAL CACHE* row, int d) {
#if QUANTISED
  return signed_bytes(bytes4(row, d)) * f16_to_float(*scale_of(row, d));
#elif CACHE_HALF
  return load4_f16(row, d);
#else
  return load4(row, d);
#endif
}
