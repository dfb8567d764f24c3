// The columns of one weight format as floats; included once per format behind its tile, with the same macros defined.
// FORMAT(columns)(weights, group, block, out): 16 rows x 32 columns of a matrix of COLS columns; column c, row r goes to out[PANEL(c, r)]. Columns
// beyond COLS are zero.

#if defined(BITS)
#define SCALE_SETS (32 / GROUP)
#define SCALE_BYTES (16 * (SUPER ? 1 : 2))
#define BLOCK_BYTES (SCALE_BYTES * (SCALE_SETS + HAS_MIN) + GROUP_ROWS * 32 * BITS / 8)
#define SUPER_BYTES (SUPER ? 32 * (1 + HAS_MIN) : 0)
#define GROUP_BYTES ((long)(COLS / 32) * BLOCK_BYTES + (SUPER ? COLS / 256 : 0) * (long)SUPER_BYTES)

INLINE void FORMAT(columns)(const u8* weights, long group, int block, f32* out) {
  const u8* supers = weights + group * GROUP_BYTES + (long)block * BLOCK_BYTES - block % 8 * (SUPER ? BLOCK_BYTES : 0) + (long)(block / 8) * SUPER_BYTES;
  const u8* p = weights + group * GROUP_BYTES + (long)block * BLOCK_BYTES + (SUPER ? block / 8 + 1 : 0) * (long)SUPER_BYTES;
  for (int first = 0; first < GROUP_ROWS; first += LANES) {
    vb w[8];
    FORMAT(unpack)(p + SCALE_BYTES * (SCALE_SETS + HAS_MIN), first, w);
    vf scale[SCALE_SETS], min = SPLAT(0);
    UNROLL for (int s = 0; s < SCALE_SETS + HAS_MIN; s++) {
      const u8* at = p + SCALE_BYTES * s;
      vf x = !SUPER ? load_half(at + 2 * first) : HAS_MIN ? TO_FLOAT(LOAD(vq, at + first)) : TO_FLOAT(LOAD(vsq, at + first));
      if (SUPER) x *= load_half(supers + (s < SCALE_SETS ? 0 : 32) + 2 * first);
      if (s < SCALE_SETS) scale[s] = x;
      else min = x;
    }
    const int zero = BITS == 8 ? (DOT_SIGNED ? 0 : 128) : ZERO;
    UNROLL for (int c = 0; c < 8; c++)
      UNROLL for (int i = 0; i < 4; i++) {
        const vi word = BITS_AS(vi, w[c]);
        const vi x = BITS == 8 && DOT_SIGNED ? word << (24 - 8 * i) >> 24 : (word >> (8 * i)) & 0xff;
        STORE(out + PANEL(4 * c + i, first), TO_FLOAT(x - zero) * scale[c * 4 / GROUP] + min);
      }
  }
}

#undef SCALE_SETS
#undef SCALE_BYTES
#undef BLOCK_BYTES
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
