// The tile of one integer weight format; included once per format with FORMAT(name), BITS, GROUP, HAS_MIN, ZERO, SUPER,
// NIBBLE_SCALES and CODEBOOK defined.
//
// A block is 16 rows x 32 columns: scales of the rows (two sets where GROUP is 16), minima where HAS_MIN, then the integers. Byte 4 r + i of a
// 64-byte vector belongs to row r. 4 bits: vector v holds columns 8 v + i in its low nibbles, 8 v + 4 + i in the high ones. 5 bits: one more
// vector, bit c is the fifth of column 4 c + i. 6 bits: two more, bits 2 (c % 4) and up of vector c / 4. 8 bits: vector c holds columns 4 c + i.
// 2 bits: as the two more of 6 bits. 3 bits: that, and one more vector, bit c is the third of column 4 c + i. CODEBOOK: the 4 bits are an index.
// Scales are f16; where SUPER, they are 8-bit integers under f16 super-scales (and super-minima) that stand before every eight blocks;
// NIBBLE_SCALES: scale and minimum are the low and the high half of a byte.

#define SCALE_SETS (32 / GROUP)
#define SCALE_BYTES (16 * (SUPER ? 1 : 2))
#define QUANT_BYTES (GROUP_ROWS * 32 * BITS / 8)
#define STORED_SETS (SCALE_SETS + (HAS_MIN && !NIBBLE_SCALES))
#define MIN_SETS (NIBBLE_SCALES ? SCALE_SETS : 1)
#define BLOCK_BYTES (SCALE_BYTES * STORED_SETS + QUANT_BYTES)
#define SIGNED_8 (BITS == 8 || CODEBOOK)  // the integers that are multiplied have a sign and eight bits
#define ZERO_ADDED (SIGNED_8 ? (DOT_SIGNED ? 0 : 128) : ZERO)  // what the multiplied integers are too large by
#define SUPER_BYTES (SUPER ? 32 * (1 + HAS_MIN) : 0)
#define BLOCKS (COLS / 32)
#define GROUP_BYTES ((long)BLOCKS * BLOCK_BYTES + (SUPER ? BLOCKS / 8 : 0) * (long)SUPER_BYTES)

// integers of LANES rows from row `first` on, chunk c of four columns
INLINE vb FORMAT(chunk)(const u8* p, int first, int c) {
  vb w;
  p += 4 * first;
  if (BITS == 8) {
    w = LOAD(vb, p + 64 * c);
    return DOT_SIGNED ? w : w ^ (u8)0x80;
  }
  if (BITS < 4) {
    vus pairs = LOAD(vus, p + 64 * (c / 4));
    w = BITS_AS(vb, pairs >> (2 * (c % 4))) & (u8)0x03;
    if (BITS == 3) {
      vus plane = LOAD(vus, p + 128);
      w |= BITS_AS(vb, c < 2 ? plane << (2 - c) : plane >> (c - 2)) & (u8)0x04;
    }
    return w;
  }
  vus nibbles = LOAD(vus, p + 64 * (c / 2));
  w = BITS_AS(vb, c % 2 ? nibbles >> 4 : nibbles) & (u8)0x0f;
  if (CODEBOOK) w = codebook_values(w);
  if (BITS == 5) {
    vus plane = LOAD(vus, p + 256);
    w |= BITS_AS(vb, c < 4 ? plane << (4 - c) : plane >> (c - 4)) & (u8)0x10;
  }
  if (BITS == 6) {
    vus plane = LOAD(vus, p + 256 + 64 * (c / 4));
    w |= BITS_AS(vb, c % 4 < 2 ? plane << (4 - 2 * (c % 4)) : plane >> (2 * (c % 4) - 4)) & (u8)0x30;
  }
  return w;
}

// all 32 columns of these rows, as eight chunks
INLINE void FORMAT(unpack)(const u8* p, int first, vb* w) {
  UNROLL for (int c = 0; c < 8; c++) w[c] = FORMAT(chunk)(p, first, c);
}

// scales and minima of LANES rows from row `first` on, of the block at p; super_scale and super_min are those of these rows
INLINE void FORMAT(scales)(const u8* p, int first, vf super_scale, vf super_min, vf* scale, vf* min) {
  UNROLL for (int s = 0; s < STORED_SETS; s++) {
    const u8* at = p + SCALE_BYTES * s;
    if (NIBBLE_SCALES) {
      const vq both = LOAD(vq, at + first);
      scale[s] = TO_FLOAT(both & (u8)15) * super_scale;
      min[NIBBLE_SCALES ? s : 0] = TO_FLOAT(both >> (u8)4) * super_min;
      continue;
    }
    // the 8-bit scales of the format without minima are signed
    vf x = !SUPER ? load_half(at + 2 * first) : HAS_MIN ? TO_FLOAT(LOAD(vq, at + first)) : TO_FLOAT(LOAD(vsq, at + first));
    if (s < SCALE_SETS) scale[s] = SUPER ? x * super_scale : x;
    else min[0] = SUPER ? x * super_min : x;
  }
}

// sum, with what scale set s of a block adds for token t, whose integer products are these
INLINE vf FORMAT(add)(vf sum, vi products, vi negated, const vf* scale, const vf* min, int s, const u8* acts, int t) {
  const f32 d = act_scale(acts, TOKENS, t);
  sum += TO_FLOAT(products) * (scale[s] * d);
  if (HAS_MIN && NIBBLE_SCALES) sum -= min[NIBBLE_SCALES ? s : 0] * (d * (f32)negated[0]);
  if (HAS_MIN && !NIBBLE_SCALES) sum += min[0] * act_total(acts, TOKENS, t);
  return sum;
}

// acc[t * VECTORS] grows by LANES rows from row `first` on, of the block at p, times each token from t on
INLINE void FORMAT(rows)(const u8* p, int first, vf super_scale, vf super_min, const u8* acts, int t, vf* acc) {
  vb w[8];
  FORMAT(unpack)(p + SCALE_BYTES * STORED_SETS, first, w);
  vf scale[SCALE_SETS], min[MIN_SETS];
  FORMAT(scales)(p, first, super_scale, super_min, scale, min);
#ifdef DOT_PAIRS
  i32x4 pairs[4][4];
  if (TOKENS > 1) pair_rows(w, pairs);
  for (; t + 1 < TOKENS; t += 2) {
    UNROLL for (int s = 0; s < SCALE_SETS; s++) {
      vi products[2];
      dot_pairs(pairs, s * (4 / SCALE_SETS), 4 / SCALE_SETS, act_quants(acts, TOKENS, t), act_quants(acts, TOKENS, t + 1), products);
      UNROLL for (int i = 0; i < 2; i++) {
        const vi negated = act_negated_sum(acts, TOKENS, t + i, s, SCALE_SETS);
        vf* sum = &acc[(t + i) * VECTORS];
        *sum = FORMAT(add)(*sum, products[i] + negated * ZERO_ADDED, negated, scale, min, s, acts, t + i);
      }
    }
  }
#endif
  for (; t < TOKENS; t++) {
    vf sum = acc[t * VECTORS];
    UNROLL for (int s = 0; s < SCALE_SETS; s++) {
      const vi negated = act_negated_sum(acts, TOKENS, t, s, SCALE_SETS);
      vi products = dot_chunks(w, s * (8 / SCALE_SETS), 8 / SCALE_SETS, act_quants(acts, TOKENS, t), negated * ZERO_ADDED, SIGNED_8 ? 8 : BITS);
      sum = FORMAT(add)(sum, products, negated, scale, min, s, acts, t);
    }
    acc[t * VECTORS] = sum;
  }
}

#ifdef DOT_TOKENS
// the same for both vectors of a group, and tokens that fill tiles of DOT_TOKENS
INLINE void FORMAT(tokens)(const u8* p, const vf* super_scale, const vf* super_min, const u8* acts, vf* acc) {
  vb w[16];
  vf scale[2][SCALE_SETS], min[2][MIN_SETS];
  UNROLL for (int v = 0; v < 2; v++) {
    FORMAT(unpack)(p + SCALE_BYTES * STORED_SETS, v * LANES, w + 8 * v);
    FORMAT(scales)(p, v * LANES, super_scale[v], super_min[v], scale[v], min[v]);
  }
  for (int t = 0; t + DOT_TOKENS <= TOKENS; t += DOT_TOKENS)
    UNROLL for (int s = 0; s < SCALE_SETS; s++) {
      vi products[2 * DOT_TOKENS];
      dot_tokens(w, s * (8 / SCALE_SETS), 8 / SCALE_SETS, act_quants(acts, TOKENS, t), products, SIGNED_8 ? 8 : BITS);
      UNROLL for (int i = 0; i < 2 * DOT_TOKENS; i++) {
        vf* sum = &acc[2 * t + i];
        const vi negated = act_negated_sum(acts, TOKENS, t + i / 2, s, SCALE_SETS);
        *sum = FORMAT(add)(*sum, products[i] + negated * ZERO_ADDED, negated, scale[i % 2], min[i % 2], s, acts, t + i / 2);
      }
    }
}
#endif

#if STREAMS > 1
// the same for one token and a block of every stream
INLINE void FORMAT(streams)(const u8** p, const vf* super_scale, const vf* super_min, const u8* acts, vf* acc) {
  const i8* a = act_quants(acts, 1, 0);
  UNROLL for (int s = 0; s < SCALE_SETS; s++) {
    const vi negated = act_negated_sum(acts, 1, 0, s, SCALE_SETS);
    vi products[VECTORS];
    vs sums[VECTORS];
    UNROLL for (int i = 0; i < VECTORS; i++) products[i] = negated * ZERO_ADDED;
    UNROLL for (int c = s * (8 / SCALE_SETS); c < (s + 1) * (8 / SCALE_SETS); c++) {
      c8x32 x = FOUR_COLUMNS(a, c);
      const int k = c % (8 / SCALE_SETS);
      UNROLL for (int i = 0; i < VECTORS; i++)
        dot_step(FORMAT(chunk)(p[i / 2] + SCALE_BYTES * STORED_SETS, i % 2 * LANES, c), x, k, k == 8 / SCALE_SETS - 1, &sums[i], &products[i], SIGNED_8 ? 8 : BITS);
      if (SIGNED_8) IN_ORDER4(products);
      else IN_ORDER4(sums);
    }
    UNROLL for (int i = 0; i < VECTORS; i++) {
      vf scale[SCALE_SETS], min[MIN_SETS];
      FORMAT(scales)(p[i / 2], i % 2 * LANES, super_scale[i], super_min[i], scale, min);
      acc[i] = FORMAT(add)(acc[i], products[i], negated, scale, min, s, acts, 0);
    }
  }
}
#endif

// acc[t * VECTORS + v] = rows of tile `tile`, of a matrix of `rows`, times token t
INLINE void FORMAT(tile)(const u8* weights, long tile, int rows, const u8* acts, vf* acc) {
  const int first = tile * TILE_ROWS % GROUP_ROWS;
  const u8* at[STREAMS];
  UNROLL for (int s = 0; s < STREAMS; s++) {
    const long group = tile * TILE_ROWS / GROUP_ROWS + s * TILES(rows);
    at[s] = weights + (group < GROUPS(rows) ? group : tile) * GROUP_BYTES;
  }
  for (int i = 0; i < TOKENS * VECTORS; i++) acc[i] = SPLAT(0);
  vf super_scale[VECTORS], super_min[VECTORS];
  UNROLL for (int v = 0; v < VECTORS; v++) super_scale[v] = super_min[v] = SPLAT(0);
  for (int b = 0; b < BLOCKS; b++, acts += ACT_BLOCK(TOKENS)) {
    UNROLL for (int s = 0; s < STREAMS; s++) {
      if (SUPER && b % 8 == 0) {
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
          super_scale[s * TILE_VECTORS + v] = load_half(at[s] + 2 * (first + v * LANES));
          if (HAS_MIN) super_min[s * TILE_VECTORS + v] = load_half(at[s] + 32 + 2 * (first + v * LANES));
        }
        at[s] += SUPER_BYTES;
      }
      UNROLL for (int line = 0; line < (BLOCK_BYTES + 63) / 64; line++) PREFETCH_WEIGHTS(at[s], 64 * line);
    }
#if STREAMS > 1
    FORMAT(streams)(at, super_scale, super_min, acts, acc);
#else
    int done = 0;
#ifdef DOT_TOKENS
    if (TOKENS >= DOT_TOKENS) FORMAT(tokens)(at[0], super_scale, super_min, acts, acc);
    done = TOKENS / DOT_TOKENS * DOT_TOKENS;
#endif
    if (done < TOKENS)
      UNROLL for (int v = 0; v < VECTORS; v++) FORMAT(rows)(at[0], first + v * LANES, super_scale[v], super_min[v], acts, done, acc + v);
#endif
    UNROLL for (int s = 0; s < STREAMS; s++) at[s] += BLOCK_BYTES;
  }
}

// one row as floats, for the embedding
INLINE void FORMAT(row)(const u8* weights, long row, f32* out) {
  const u8* p = weights + row / GROUP_ROWS * GROUP_BYTES;
  const int r = row % GROUP_ROWS;
  f32 super_scale = 1, super_min = 1;
  for (int b = 0; b < BLOCKS; b++, p += BLOCK_BYTES, out += 32) {
    if (SUPER && b % 8 == 0) {
      super_scale = half_at(p + 2 * r);
      if (HAS_MIN) super_min = half_at(p + 32 + 2 * r);
      p += SUPER_BYTES;
    }
    const u8* q = p + SCALE_BYTES * STORED_SETS + 4 * r;
    f32 scale[SCALE_SETS + 1], min[MIN_SETS];
    for (int s = 0; s < STORED_SETS; s++) {
      const u8* at = p + SCALE_BYTES * s;
      if (NIBBLE_SCALES) {
        scale[s] = (f32)(at[r] & 15) * super_scale;
        min[NIBBLE_SCALES ? s : 0] = (f32)(at[r] >> 4) * super_min;
        continue;
      }
      const f32 x = !SUPER ? half_at(at + 2 * r) : HAS_MIN ? (f32)at[r] : (f32)((const i8*)at)[r];
      scale[s] = SUPER ? x * (s < SCALE_SETS ? super_scale : super_min) : x;
    }
    for (int c = 0; c < 8; c++)
      for (int i = 0; i < 4; i++) {
        i32 x;
        if (BITS == 8) x = ((const i8*)q)[64 * c + i];
        else if (BITS < 4) x = q[64 * (c / 4) + i] >> (c % 4 * 2) & 3;
        else x = (q[64 * (c / 2) + i] >> (c % 2 * 4)) & 15;
        if (CODEBOOK) x = codebook_value(x);
        if (BITS == 3) x |= (q[128 + i] >> c & 1) << 2;
        if (BITS == 5) x |= (q[256 + i] >> c & 1) << 4;
        if (BITS == 6) x |= (q[256 + 64 * (c / 4) + i] >> (c % 4 * 2) & 3) << 4;
        out[4 * c + i] = (f32)(x - ZERO) * scale[c * 4 / GROUP] + (!HAS_MIN ? 0.0f : NIBBLE_SCALES ? min[c * 4 / GROUP % MIN_SETS] : scale[SCALE_SETS]);
      }
  }
}

#undef SCALE_SETS
#undef SCALE_BYTES
#undef QUANT_BYTES
#undef STORED_SETS
#undef MIN_SETS
#undef SIGNED_8
#undef ZERO_ADDED
#undef BLOCK_BYTES
#undef SUPER_BYTES
#undef BLOCKS
#undef GROUP_BYTES
