// The weights of one format, four columns of a row at a time. Bits as ../../cpu/formats.py lays them out: a group of 16 rows is a row of blocks
// of 32 columns, each its scales, its minima and then words of four columns per row.
//   ELEMENT_BYTES 2 or 4: half or float values; otherwise BITS, SETS of scales a block, HAS_MIN, ZERO (what integers are too large by), SUPER (8-bit scales
//   under f16 super-scales of 256 columns)

#if ELEMENT_BYTES

#if ELEMENT_BYTES == 2
#define VALUE(p, i) vload_half(i, (const __global half*)(p))
#else
#define VALUE(p, i) ((const __global float*)(p))[i]
#endif

INLINE const __global uchar* FORMAT(group)(const __global uchar* weights, int group) { return weights + (long)group * COLS * GROUP_ROWS * ELEMENT_BYTES; }

INLINE float FORMAT(value)(const __global uchar* group, int col, int r) { return COLS % 32 == 0 || col < COLS ? VALUE(group, col * GROUP_ROWS + r) : 0.0f; }

INLINE float4 FORMAT(weights4)(const __global uchar* group, int b, int c, int r) {
  const int col = 32 * b + 4 * c;
  return (float4)(FORMAT(value)(group, col, r), FORMAT(value)(group, col + 1, r), FORMAT(value)(group, col + 2, r), FORMAT(value)(group, col + 3, r));
}

// the product of a row's block with the input's
INLINE float FORMAT(block)(const __global uchar* group, int b, int r, INPUT_PARAMS) {
  float sum = 0;
  for (int c = 0; c < 8; c++) sum += dot(FORMAT(weights4)(group, b, c, r), input4(INPUT, 32 * b + 4 * c));
  return sum;
}

#undef VALUE

#else

#define SCALE_BYTES (SUPER ? GROUP_ROWS : 2 * GROUP_ROWS)
#define QUANTS_AT (SCALE_BYTES * (SETS + HAS_MIN))
#define BLOCK_BYTES (QUANTS_AT + 4 * GROUP_ROWS * BITS)
#define SUPER_BYTES (2 * GROUP_ROWS * (1 + HAS_MIN))
#define GROUP_BYTES ((long)(SUPER ? COLS / 256 * (SUPER_BYTES + 8 * BLOCK_BYTES) : COLS / 32 * BLOCK_BYTES))

INLINE const __global uchar* FORMAT(group)(const __global uchar* weights, int group) { return weights + group * GROUP_BYTES; }

INLINE const __global uchar* FORMAT(at)(const __global uchar* group, int b) {
  return SUPER ? group + b / 8 * (SUPER_BYTES + 8 * BLOCK_BYTES) + SUPER_BYTES + b % 8 * BLOCK_BYTES : group + b * BLOCK_BYTES;
}

// scale `set` of a row's block, or its minimum, which follows the scales
INLINE float FORMAT(scale)(const __global uchar* group, int b, int set, int r) {
  const __global uchar* at = FORMAT(at)(group, b) + SCALE_BYTES * set;
#if SUPER
  const __global half* supers = (const __global half*)(FORMAT(at)(group, b) - b % 8 * BLOCK_BYTES - SUPER_BYTES);
  return vload_half(set < SETS ? r : GROUP_ROWS + r, supers) * (HAS_MIN ? (float)at[r] : (float)((const __global char*)at)[r]);
#else
  return vload_half(r, (const __global half*)at);
#endif
}

// integers of columns 4 c … 4 c + 3 of a block
INLINE float4 FORMAT(integers)(const __global uchar* block, int c, int r) {
  const __global uint* q = (const __global uint*)(block + QUANTS_AT) + r;
#if BITS == 8
  return convert_float4(as_char4(q[GROUP_ROWS * c]));
#else
  uint four = q[GROUP_ROWS * (c / 2)] >> (c % 2 * 4) & 0x0f0f0f0fu;
#if BITS > 4
  const int width = BITS - 4, in_plane = 8 / width;
  four |= (q[GROUP_ROWS * (4 + c / in_plane)] >> (width * (c % in_plane)) & 0x01010101u * ((1 << width) - 1)) << 4;
#endif
  return convert_float4(as_uchar4(four)) - (float)ZERO;
#endif
}

INLINE float4 FORMAT(weights4)(const __global uchar* group, int b, int c, int r) {
  const float4 w = FORMAT(integers)(FORMAT(at)(group, b), c, r) * FORMAT(scale)(group, b, c * SETS / 8, r);
  return HAS_MIN ? w + FORMAT(scale)(group, b, SETS, r) : w;
}

INLINE float FORMAT(block)(const __global uchar* group, int b, int r, INPUT_PARAMS) {
  const __global uchar* block = FORMAT(at)(group, b);
  float sum = 0, total = 0;
  for (int set = 0; set < SETS; set++) {
    float part = 0;
    for (int c = set * 8 / SETS; c < (set + 1) * 8 / SETS; c++) {
      const float4 in = input4(INPUT, 32 * b + 4 * c);
      part += dot(FORMAT(integers)(block, c, r), in);
      if (HAS_MIN) total += in.x + in.y + in.z + in.w;
    }
    sum += part * FORMAT(scale)(group, b, set, r);
  }
  return HAS_MIN ? sum + total * FORMAT(scale)(group, b, SETS, r) : sum;
}

#undef SCALE_BYTES
#undef QUANTS_AT
#undef BLOCK_BYTES
#undef SUPER_BYTES
#undef GROUP_BYTES

#endif
