// The weights of one format. Bits as ../../packed/formats.py lays them out: a group of 16 rows is a row of blocks of 32 columns, each its scales, its minima
// and then words of four columns per row.
//   ELEMENT_BYTES 2 or 4: half or float values; otherwise BITS, SETS of scales a block, HAS_MIN, ZERO (what integers are too large by), SUPER (8-bit scales
//   under f16 super-scales of 256 columns), NIBBLE_SCALES (a scale and a minimum in a byte), CODEBOOK (integers are indices)
// Where a product of one token is made (DECODE), `multiply` leaves the sums of a warp's share of a group; elsewhere `weights4` gives four columns of a row, and
// where the matrix instruction makes it (MATRIX), `piece` fetches a piece of a block and `lay` puts its dequantised halves where matrix.h reads them.

#if ELEMENT_BYTES

INLINE const GLOBAL uchar* FORMAT(group)(const GLOBAL uchar* weights, int group) { return weights + (long)group * COLS * GROUP_ROWS * ELEMENT_BYTES; }

#if DECODE

// Neighbouring lanes share a column: two of eight halves, or four of four floats. LOADS columns a lane are in flight.
#define LANES_A_COLUMN (ELEMENT_BYTES == 2 ? 2 : 4)
#define COLUMNS (32 / LANES_A_COLUMN)  // of a warp, side by side

INLINE void FORMAT(multiply)(const GLOBAL uchar* group, int split, int lane, LOCAL float* to, INPUT_PARAMS) {
  float sums[TILE_TOKENS][8];
  UNROLL for (int t = 0; t < TILE_TOKENS; t++) UNROLL for (int r = 0; r < 8; r++) sums[t][r] = 0;
  const GLOBAL uint4* weights = (const GLOBAL uint4*)group + lane % LANES_A_COLUMN;
  for (int first = split * COLUMNS + lane / LANES_A_COLUMN; first < COLS; first += COLUMNS * SPLITS * LOADS) {
    uint4 w[LOADS];
    UNROLL for (int u = 0; u < LOADS; u++) w[u] = load_once(weights + LANES_A_COLUMN * min(first + u * COLUMNS * SPLITS, COLS - 1));
    UNROLL for (int u = 0; u < LOADS; u++) {
      const int col = first + u * COLUMNS * SPLITS;
      const uint words[4] = {w[u].x, w[u].y, w[u].z, w[u].w};
      UNROLL for (int t = 0; t < TILE_TOKENS; t++) {
        const float x = col < COLS ? x_floats[t * INPUT_WORDS + col] : 0.0f;
        UNROLL for (int i = 0; i < 4; i++) {
#if ELEMENT_BYTES == 2
          sums[t][2 * i] += x * f16_to_float((f16)(words[i] & 0xffff));
          sums[t][2 * i + 1] += x * f16_to_float((f16)(words[i] >> 16));
#else
          sums[t][i] += x * bits_to_float(words[i]);
#endif
        }
      }
    }
  }
#if ELEMENT_BYTES == 2
  UNROLL for (int t = 0; t < TILE_TOKENS; t++) put_sums8(sums[t], lane, to + t * TOKEN_SUMS);
#else
  UNROLL for (int t = 0; t < TILE_TOKENS; t++) put_sums4(sums[t], lane, to + t * TOKEN_SUMS);
#endif
}

#undef LANES_A_COLUMN
#undef COLUMNS

#else

#if ELEMENT_BYTES == 2
#define VALUE(p, i) f16_to_float(((const GLOBAL f16*)(p))[i])
#else
#define VALUE(p, i) ((const GLOBAL float*)(p))[i]
#endif

INLINE float FORMAT(value)(const GLOBAL uchar* group, int col, int r) { return COLS % 32 == 0 || col < COLS ? VALUE(group, col * GROUP_ROWS + r) : 0.0f; }

INLINE float4 FORMAT(weights4)(const GLOBAL uchar* group, int b, int c, int r) {
  const int col = 32 * b + 4 * c;
  return make_float4(FORMAT(value)(group, col, r), FORMAT(value)(group, col + 1, r), FORMAT(value)(group, col + 2, r), FORMAT(value)(group, col + 3, r));
}

#undef VALUE

#if MATRIX && ELEMENT_BYTES == 2

// a block in 32 pieces: two columns of eight rows
INLINE Quad FORMAT(piece)(const GLOBAL uchar* group, int b, int i) {
  const GLOBAL uint4* first = (const GLOBAL uint4*)group + 2 * (32 * b + i / 2 * 2) + i % 2;
  Quad w;
  w.low = load_once(first), w.high = load_once(first + 2);
  return w;
}

INLINE void FORMAT(lay)(Quad w, LOCAL uint4* to, int i) {
  const uint first[4] = {w.low.x, w.low.y, w.low.z, w.low.w}, second[4] = {w.high.x, w.high.y, w.high.z, w.high.w};
  UNROLL for (int r = 0; r < 8; r++) {
    const uint word = r % 2 ? high_halves(first[r / 2], second[r / 2]) : low_halves(first[r / 2], second[r / 2]);
    ((LOCAL uint*)(to + chunk_at(8 * (i % 2) + r, i / 8)))[i / 2 % 4] = word;
  }
}

#endif

#endif

#else

#define SCALE_BYTES (SUPER ? GROUP_ROWS : 2 * GROUP_ROWS)
#define QUANTS_AT (SCALE_BYTES * (SETS + (HAS_MIN && !NIBBLE_SCALES)))
#define SIGNED_8 (BITS == 8 || CODEBOOK)
#define BLOCK_BYTES (QUANTS_AT + 4 * GROUP_ROWS * BITS)
#define SUPER_BYTES (2 * GROUP_ROWS * (1 + HAS_MIN))
#define BLOCKS (COLS / 32)
#define GROUP_BYTES ((long)(SUPER ? COLS / 256 * (SUPER_BYTES + 8 * BLOCK_BYTES) : BLOCKS * BLOCK_BYTES))

INLINE const GLOBAL uchar* FORMAT(group)(const GLOBAL uchar* weights, int group) { return weights + group * GROUP_BYTES; }

INLINE const GLOBAL uchar* FORMAT(at)(const GLOBAL uchar* group, int b) {
  return SUPER ? group + b / 8 * (SUPER_BYTES + 8 * BLOCK_BYTES) + SUPER_BYTES + b % 8 * BLOCK_BYTES : group + b * BLOCK_BYTES;
}

// the f16 super-scales, then super-minima, of a block's super-block
INLINE const GLOBAL uchar* FORMAT(supers)(const GLOBAL uchar* block, int b) { return block - b % 8 * BLOCK_BYTES - SUPER_BYTES; }

// Of a block and rows 4 quad … 4 quad + 3: eight columns of each (part 0 … 3 of the block) and what scales them
INLINE Quad FORMAT(load)(const GLOBAL uchar* group, int b, int part, int quad) {
  const GLOBAL uchar *block = FORMAT(at)(group, b), *scales = block + SCALE_BYTES * (part * SETS / 4);
  const GLOBAL uint4* q = (const GLOBAL uint4*)(block + QUANTS_AT) + quad;
  Quad w;
#if BITS < 4
  w.low = load_once(q + 4 * (part / 2));
#if BITS == 3
  w.high = load_once(q + 4 * 2);
#endif
#else
  w.low = load_once(q + 4 * part);
#endif
#if BITS == 8
  w.high = load_once(q + 4 * (4 + part));
#elif BITS > 4
  w.high = load_once(q + 4 * (4 + part * (BITS - 4) / 4));
#endif
#if SUPER
  w.scales8 = load_cached4((const GLOBAL uint*)scales + quad);
  w.scales = load_cached8((const GLOBAL uint2*)FORMAT(supers)(block, b) + quad);
#if HAS_MIN
#if !NIBBLE_SCALES
  w.minima8 = load_cached4((const GLOBAL uint*)(block + SCALE_BYTES * SETS) + quad);
#endif
  w.minima = load_cached8((const GLOBAL uint2*)(FORMAT(supers)(block, b) + 2 * GROUP_ROWS) + quad);
#endif
#else
  w.scales = load_cached8((const GLOBAL uint2*)scales + quad);
#if HAS_MIN
  w.minima = load_cached8((const GLOBAL uint2*)(block + SCALE_BYTES * SETS) + quad);
#endif
#endif
  return w;
}

// scale and minimum of row r of a quad
INLINE float FORMAT(scale)(Quad w, int r) {
  const float scale = f16_to_float((f16)((r < 2 ? w.scales.x : w.scales.y) >> (r % 2 * 16)));
#if NIBBLE_SCALES
  return scale * (float)(w.scales8 >> (8 * r) & 15);
#elif SUPER
  return scale * (HAS_MIN ? (float)(w.scales8 >> (8 * r) & 255) : (float)(schar)(w.scales8 >> (8 * r)));
#else
  return scale;
#endif
}

INLINE float FORMAT(minimum)(Quad w, int r) {
#if HAS_MIN
  const float minimum = f16_to_float((f16)((r < 2 ? w.minima.x : w.minima.y) >> (r % 2 * 16)));
#if NIBBLE_SCALES
  return minimum * (float)(w.scales8 >> (8 * r + 4) & 15);
#else
  return SUPER ? minimum * (float)(w.minima8 >> (8 * r) & 255) : minimum;
#endif
#else
  return 0;
#endif
}

// the two words of four integers each that row r has of a quad, and the columns that they are of, in words: FIRST_WORD, SECOND_WORD
#if BITS == 8
#define FIRST_WORD(part) (part)
#define SECOND_WORD(part) (4 + (part))
#else
#define FIRST_WORD(part) (2 * (part))
#define SECOND_WORD(part) (2 * (part) + 1)
#endif
#if BITS == 5 || BITS == 6
#define WIDTH (BITS - 4)  // bits beyond four
#define HIGH_BITS(words, word) (((words) >> (WIDTH * ((word) % (8 / WIDTH))) & 0x01010101u * ((1 << WIDTH) - 1)) << 4)
#endif

INLINE uint2 FORMAT(words)(Quad w, int part, int r) {
  const uint low = r == 0 ? w.low.x : r == 1 ? w.low.y : r == 2 ? w.low.z : w.low.w;
  uint2 words;
#if BITS < 4
  words.x = low >> (2 * (FIRST_WORD(part) % 4)) & 0x03030303u, words.y = low >> (2 * (SECOND_WORD(part) % 4)) & 0x03030303u;
#if BITS == 3
  const uint third = r == 0 ? w.high.x : r == 1 ? w.high.y : r == 2 ? w.high.z : w.high.w;
  words.x |= (third >> FIRST_WORD(part) & 0x01010101u) << 2, words.y |= (third >> SECOND_WORD(part) & 0x01010101u) << 2;
#endif
#elif BITS == 4
  words.x = low & 0x0f0f0f0fu, words.y = low >> 4 & 0x0f0f0f0fu;
#if CODEBOOK
  words.x = codebook4(words.x), words.y = codebook4(words.y);
#endif
#else
  const uint high = r == 0 ? w.high.x : r == 1 ? w.high.y : r == 2 ? w.high.z : w.high.w;
#if BITS == 8
  words.x = low, words.y = high;
#else
  words.x = (low & 0x0f0f0f0fu) | HIGH_BITS(high, FIRST_WORD(part));
  words.y = (low >> 4 & 0x0f0f0f0fu) | HIGH_BITS(high, SECOND_WORD(part));
#endif
#endif
  return words;
}

#if DECODE

INLINE void FORMAT(multiply)(const GLOBAL uchar* group, int split, int lane, LOCAL float* to, INPUT_PARAMS) {
  const int quad = lane % 4, part = lane / 4 % 4;
  float sums[TILE_TOKENS][4];
  UNROLL for (int t = 0; t < TILE_TOKENS; t++) UNROLL for (int r = 0; r < 4; r++) sums[t][r] = 0;
  for (int first = 2 * split + lane / 16; first < BLOCKS; first += 2 * SPLITS * LOADS) {
    Quad w[LOADS];
    UNROLL for (int u = 0; u < LOADS; u++) w[u] = FORMAT(load)(group, min(first + 2 * SPLITS * u, BLOCKS - 1), part, quad);
    UNROLL for (int u = 0; u < LOADS; u++) {
      const int b = first + 2 * SPLITS * u, there = min(b, BLOCKS - 1);
      UNROLL for (int t = 0; t < TILE_TOKENS; t++) {
        const float scale = b < BLOCKS ? x_scales[t * INPUT_WORDS + there] : 0.0f;
        const INPUT_SPACE int* block = x_quants + t * INPUT_WORDS + 8 * there;
        const int x = block[FIRST_WORD(part)], y = block[SECOND_WORD(part)];
        const int total = ZERO || HAS_MIN ? dp4a(0x01010101, x, dp4a(0x01010101, y, 0)) : 0;
        UNROLL for (int r = 0; r < 4; r++) {
          const uint2 words = FORMAT(words)(w[u], part, r);
          const float product = (float)dp4a((int)words.x, x, dp4a((int)words.y, y, -ZERO * total));
          sums[t][r] += FORMAT(scale)(w[u], r) * (product * scale);
          if (HAS_MIN) sums[t][r] += FORMAT(minimum)(w[u], r) * ((float)total * scale);
        }
      }
    }
  }
  UNROLL for (int t = 0; t < TILE_TOKENS; t++) put_sums4(sums[t], lane, to + t * TOKEN_SUMS);
}

#else

// four columns of row r of a quad
INLINE float4 FORMAT(values)(Quad w, uint word, int r) {
  const float4 integers = SIGNED_8 ? signed_bytes(word) : unsigned_bytes(word) - (float)ZERO;
  const float4 scaled = integers * FORMAT(scale)(w, r);
  return HAS_MIN ? scaled + splat4(FORMAT(minimum)(w, r)) : scaled;
}

// columns 4 c … 4 c + 3 of a block's row
INLINE float4 FORMAT(weights4)(const GLOBAL uchar* group, int b, int c, int r) {
  const int part = BITS == 8 ? c % 4 : c / 2, second = BITS == 8 ? c / 4 : c % 2;
  const Quad w = FORMAT(load)(group, b, part, r / 4);
  const uint2 words = FORMAT(words)(w, part, r % 4);
  return FORMAT(values)(w, second ? words.y : words.x, r % 4);
}

#if MATRIX

// a block in 16 pieces: eight columns of four rows
INLINE Quad FORMAT(piece)(const GLOBAL uchar* group, int b, int i) { return FORMAT(load)(group, b, i / 4 % 4, i % 4); }

INLINE void FORMAT(lay)(Quad w, LOCAL uint4* to, int i) {
  if (i >= 16) return;
  UNROLL for (int r = 0; r < 4; r++) {
    const int part = i / 4, row = 4 * (i % 4) + r;
    const uint2 words = FORMAT(words)(w, part, r);
    const uint2 first = pack4_f16(FORMAT(values)(w, words.x, r)), second = pack4_f16(FORMAT(values)(w, words.y, r));
#if BITS == 8
    ((LOCAL uint2*)(to + chunk_at(row, FIRST_WORD(part) / 2)))[FIRST_WORD(part) % 2] = first;
    ((LOCAL uint2*)(to + chunk_at(row, SECOND_WORD(part) / 2)))[SECOND_WORD(part) % 2] = second;
#else
    to[chunk_at(row, part)] = make_uint4(first.x, first.y, second.x, second.y);
#endif
  }
}

#endif

#endif

#undef SCALE_BYTES
#undef QUANTS_AT
#undef SIGNED_8
#undef BLOCK_BYTES
#undef SUPER_BYTES
#undef BLOCKS
#undef GROUP_BYTES
#undef FIRST_WORD
#undef SECOND_WORD
#undef WIDTH
#undef HIGH_BITS

#endif
