// The columns of one weight format as floats; included once per format behind its tile, with the same macros defined.
// FORMAT(columns)(weights, group, block, out): 16 rows x 32 columns of a matrix of COLS columns; column c, row r goes to out[PANEL(c, r)]. Columns
// beyond COLS are zero.

#if defined(BITS)
#define SCALE_SETS (32 / GROUP)
#define SCALE_BYTES (16 * (SUPER ? 1 : 2))
#define STORED_SETS (SCALE_SETS + (HAS_MIN && !NIBBLE_SCALES))
#define BLOCK_BYTES (SCALE_BYTES * STORED_SETS + GROUP_ROWS * 32 * BITS / 8)
#define SIGNED_8 (BITS == 8 || CODEBOOK)
#define SUPER_BYTES (SUPER ? 32 * (1 + HAS_MIN) : 0)
#define GROUP_BYTES ((long)(COLS / 32) * BLOCK_BYTES + (SUPER ? COLS / 256 : 0) * (long)SUPER_BYTES)

INLINE void FORMAT(columns)(const u8* weights, long group, int block, f32* out) {
  const u8* supers = weights + group * GROUP_BYTES + (long)(block / 8 * 8) * BLOCK_BYTES + (long)(block / 8) * SUPER_BYTES;
  const u8* p = weights + group * GROUP_BYTES + (long)block * BLOCK_BYTES + (SUPER ? block / 8 + 1 : 0) * (long)SUPER_BYTES;
  for (int first = 0; first < GROUP_ROWS; first += LANES) {
    vb w[8];
    FORMAT(unpack)(p + SCALE_BYTES * STORED_SETS, first, w);
    vf scale[SCALE_SETS], min[SCALE_SETS];
    UNROLL for (int s = 0; s < SCALE_SETS; s++) {
      const u8* at = p + SCALE_BYTES * s;
      if (NIBBLE_SCALES) {
        const vq both = LOAD(vq, at + first);
        scale[s] = TO_FLOAT(both & (u8)15), min[s] = TO_FLOAT(both >> (u8)4);
      } else {
        const u8* least = p + SCALE_BYTES * (HAS_MIN ? SCALE_SETS : 0);
        // the 8-bit scales of the format without minima are signed
        scale[s] = !SUPER ? load_half(at + 2 * first) : HAS_MIN ? TO_FLOAT(LOAD(vq, at + first)) : TO_FLOAT(LOAD(vsq, at + first));
        min[s] = !HAS_MIN ? SPLAT(0) : !SUPER ? load_half(least + 2 * first) : TO_FLOAT(LOAD(vq, least + first));
      }
      if (SUPER) scale[s] *= load_half(supers + 2 * first);
      if (SUPER && HAS_MIN) min[s] *= load_half(supers + 32 + 2 * first);
    }
    const int zero = SIGNED_8 ? (DOT_SIGNED ? 0 : 128) : ZERO;
    UNROLL for (int c = 0; c < 8; c++)
      UNROLL for (int i = 0; i < 4; i++) {
        const vi word = BITS_AS(vi, w[c]);
        const vi x = SIGNED_8 && DOT_SIGNED ? word << (24 - 8 * i) >> 24 : (word >> (8 * i)) & 0xff;
        STORE(out + PANEL(4 * c + i, first), TO_FLOAT(x - zero) * scale[c * 4 / GROUP] + min[c * 4 / GROUP]);
      }
  }
}

#undef SCALE_SETS
#undef SCALE_BYTES
#undef STORED_SETS
#undef BLOCK_BYTES
#undef SIGNED_8
#undef SUPER_BYTES
#undef GROUP_BYTES
#elif defined(KIND)
INLINE void FORMAT(columns)(const u8* weights, long group, int block, f32* out) {
  for (int r = 0; r < GROUP_ROWS; r++) {
    const u8* row = weights + ((group * GROUP_ROWS + r) * (long)COLS + 32 * block) * (KIND ? 2 : 4);
    for (int c = 0; c < 32; c += LANES) {
      // COLS is a multiple of 16
      const vf x = 32 * block + c < COLS ? FORMAT(load)(row + c * (KIND ? 2 : 4)) : SPLAT(0);
      for (int i = 0; i < LANES; i++) out[PANEL(c + i, r)] = x[i];
    }
  }
}
#else
INLINE void FORMAT(columns)(const u8* weights, long group, int block, f32* out) {
  const ELEMENT* p = (const ELEMENT*)weights + (group * COLS + 32 * block) * GROUP_ROWS;
  for (int c = 0; c < 32; c++)
    for (int first = 0; first < GROUP_ROWS; first += LANES)
      STORE(out + PANEL(c, first), 32 * block + c < COLS ? FORMAT(load)(p + c * GROUP_ROWS + first) : SPLAT(0));
}
#endif
