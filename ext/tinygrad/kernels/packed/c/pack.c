// Rows of a ggml type into groups of 16, as formats.py describes them and does it in NumPy, bit for bit. TYPE_<name> is defined,
// and of the target BITS, SETS (of scales), HAS_MIN, SUPER, NIBBLE_SCALES, or for floats SOURCE and ELEMENT. Freestanding: nothing is included.

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define ENTRY __attribute__((visibility("default")))
typedef unsigned char u8;
typedef unsigned short u16 __attribute__((aligned(1), may_alias));
typedef unsigned int u32 __attribute__((aligned(1), may_alias));

#ifdef ELEMENT  // floats, of the same width or narrowed
typedef SOURCE source __attribute__((aligned(1), may_alias));
typedef ELEMENT element __attribute__((may_alias));

INLINE element converted(source value) {
#ifdef TYPE_BF16
  u32 bits = (u32)value << 16;
  float whole;
  __builtin_memcpy(&whole, &bits, 4);
  _Float16 half = (_Float16)whole;
  __builtin_memcpy(&value, &half, 2);
#endif
  return value;
}

// a tile of 16 columns at a time, so that what is written stays in the first-level cache
ENTRY void pack(const u8* from, u8* to, long rows, long cols, long stride) {
  element* out = (element*)to;
  for (long first = 0; first < rows; first += 16, from += 16 * stride) {
    const long held = rows - first < 16 ? rows - first : 16;
    for (long c = 0, n; c < cols; c += n, out += 16 * n) {
      n = cols - c < 16 ? cols - c : 16;
      for (long r = 0; r < held; r++) {
        const source* in = (const source*)(from + r * stride) + c;
        for (long i = 0; i < n; i++) out[16 * i + r] = converted(in[i]);
      }
    }
  }
}

#else

#define NIBBLES 0x0f0f0f0fu
#define ONES 0x01010101u
#define SCALE_BYTES (16 * (SUPER ? 1 : 2))
#define HEAD_BYTES (SCALE_BYTES * (SETS + (HAS_MIN && !NIBBLE_SCALES)))
#define BLOCK_BYTES (HEAD_BYTES + 64 * BITS)
#define SUPER_BYTES (SUPER ? 32 * (1 + HAS_MIN) : 0)
#define RECORD_COLS (SUPER ? 256 : 32)
#define RECORD_BYTES (SUPER_BYTES + BLOCK_BYTES * RECORD_COLS / 32)

INLINE u32 load(const u8* p) { return *(const u32*)p; }

// `width` bits of each integer, from bit `lowest` on
INLINE void store_plane(const u32* fours, u32* out, int lowest, int width) {
  const int per_word = 8 / width;
  UNROLL for (int v = 0; v < width; v++) {
    u32 word = 0;
    UNROLL for (int i = 0; i < per_word; i++) word |= ((fours[v * per_word + i] >> lowest) & (ONES * ((1 << width) - 1))) << (width * i);
    out[16 * v] = word;
  }
}

// 32 integers of row r as eight words of four, into the words of a block that hold only what counts of them
INLINE void store(const u32* fours, u8* block, int r) {
  u32* out = (u32*)(block + HEAD_BYTES) + r;
  if (BITS == 8) {
    UNROLL for (int c = 0; c < 8; c++) out[16 * c] = fours[c];
    return;
  }
  const int first = BITS < 4 ? 2 : 4;  // bits of the first plane
  store_plane(fours, out, 0, first);
  if (BITS > first) store_plane(fours, out + 16 * first, first, BITS > first ? BITS - first : 1);
}

#if SUPER

#ifdef TYPE_Q6_K
#define SOURCE_BYTES 210
INLINE void put(const u8* p, u8* record, int r) {
  *(u16*)(record + 2 * r) = *(const u16*)(p + 208);
  UNROLL for (int b = 0; b < 8; b++) {
    u8* block = record + SUPER_BYTES + b * BLOCK_BYTES;
    const u8 *low = p + 64 * (b / 4) + 32 * (b % 2), *high = p + 128 + 32 * (b / 4);
    u32 fours[8];
    UNROLL for (int c = 0; c < 8; c++)
      fours[c] = ((load(low + 4 * c) >> 4 * (b % 4 / 2)) & NIBBLES) | ((load(high + 4 * c) >> 2 * (b % 4)) & ONES * 3) << 4;
    block[r] = p[192 + 2 * b];
    block[16 + r] = p[192 + 2 * b + 1];
    store(fours, block, r);
  }
}
#elif defined(TYPE_Q2_K)
#define SOURCE_BYTES 84
INLINE void put(const u8* p, u8* record, int r) {
  *(u16*)(record + 2 * r) = *(const u16*)(p + 80);
  *(u16*)(record + 32 + 2 * r) = *(const u16*)(p + 82) ^ 0x8000;  // minima are subtracted there, added here
  UNROLL for (int b = 0; b < 8; b++) {
    u8* block = record + SUPER_BYTES + b * BLOCK_BYTES;
    u32 fours[8];
    UNROLL for (int c = 0; c < 8; c++) fours[c] = load(p + 16 + 32 * (b / 4) + 4 * c) >> 2 * (b % 4) & ONES * 3;
    block[r] = p[2 * b];
    block[16 + r] = p[2 * b + 1];
    store(fours, block, r);
  }
}
#elif defined(TYPE_Q3_K)
#define SOURCE_BYTES 110
INLINE u8 scale_of(const u8* six, int i) { return (u8)(((i < 8 ? six[i] & 15 : six[i - 8] >> 4) | (six[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32); }
INLINE void put(const u8* p, u8* record, int r) {
  *(u16*)(record + 2 * r) = *(const u16*)(p + 108);
  UNROLL for (int b = 0; b < 8; b++) {
    u8* block = record + SUPER_BYTES + b * BLOCK_BYTES;
    u32 fours[8];
    UNROLL for (int c = 0; c < 8; c++) fours[c] = (load(p + 32 + 32 * (b / 4) + 4 * c) >> 2 * (b % 4) & ONES * 3) | (load(p + 4 * c) >> b & ONES) << 2;
    block[r] = scale_of(p + 96, 2 * b);
    block[16 + r] = scale_of(p + 96, 2 * b + 1);
    store(fours, block, r);
  }
}
#elif defined(TYPE_IQ4_XS)
#define SOURCE_BYTES 136
INLINE void put(const u8* p, u8* record, int r) {
  *(u16*)(record + 2 * r) = *(const u16*)p;
  const u32 high = *(const u16*)(p + 2);
  UNROLL for (int b = 0; b < 8; b++) {
    u8* block = record + SUPER_BYTES + b * BLOCK_BYTES;
    u32 fours[8];
    UNROLL for (int c = 0; c < 8; c++) fours[c] = load(p + 8 + 16 * b + 4 * (c % 4)) >> 4 * (c / 4) & NIBBLES;
    block[r] = (u8)(((p[4 + b / 2] >> 4 * (b % 2) & 15) | (high >> 2 * b & 3) << 4) - 32);
    store(fours, block, r);
  }
}
#else
#define SOURCE_BYTES (BITS == 4 ? 144 : 176)
INLINE void put(const u8* p, u8* record, int r) {
  *(u16*)(record + 2 * r) = *(const u16*)p;
  *(u16*)(record + 32 + 2 * r) = *(const u16*)(p + 2) ^ 0x8000;  // minima are subtracted there, added here
  const u8 *six = p + 4, *quants = p + SOURCE_BYTES - 128;
  UNROLL for (int b = 0; b < 8; b++) {
    u8* block = record + SUPER_BYTES + b * BLOCK_BYTES;
    u32 fours[8];
    UNROLL for (int c = 0; c < 8; c++) {
      fours[c] = (load(quants + 32 * (b / 2) + 4 * c) >> 4 * (b % 2)) & NIBBLES;
      if (BITS == 5) fours[c] |= ((load(p + 16 + 4 * c) >> b) & ONES) << 4;
    }
    block[r] = b < 4 ? six[b] & 63 : (six[b + 4] & 15) | six[b - 4] >> 6 << 4;
    block[16 + r] = b < 4 ? six[b + 4] & 63 : six[b + 4] >> 4 | six[b] >> 6 << 4;
    store(fours, block, r);
  }
}
#endif

#else

#define QUANTS_AT (2 * (1 + HAS_MIN) + (BITS == 5 ? 4 : 0))
#define SOURCE_BYTES (QUANTS_AT + (BITS == 8 ? 32 : 16))
INLINE void put(const u8* p, u8* block, int r) {
  UNROLL for (int i = 0; i < 1 + HAS_MIN; i++) *(u16*)(block + 32 * i + 2 * r) = *(const u16*)(p + 2 * i);
  u32 fours[8];
  UNROLL for (int c = 0; c < 8; c++) {
    if (BITS == 8) {
      fours[c] = load(p + QUANTS_AT + 4 * c);
      continue;
    }
    fours[c] = (load(p + QUANTS_AT + 4 * (c % 4)) >> 4 * (c / 4)) & NIBBLES;
    // four bits of a row of them, each to the fifth bit of a byte
    if (BITS == 5) fours[c] |= (((load(p + QUANTS_AT - 4) >> 4 * c & 15) * 0x00204081u) & ONES) << 4;
  }
  store(fours, block, r);
}
#endif

ENTRY void pack(const u8* from, u8* to, long rows, long cols, long stride) {
  for (long first = 0; first < rows; first += 16, from += 16 * stride) {
    const int held = rows - first < 16 ? (int)(rows - first) : 16;
    const u8* p = from;
    for (long c = 0; c < cols; c += RECORD_COLS, p += SOURCE_BYTES, to += RECORD_BYTES)
      for (int r = 0; r < held; r++) put(p + r * stride, to, r);
  }
}
#endif
