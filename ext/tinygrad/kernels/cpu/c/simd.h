// A small vector layer over clang's vector extensions: one float vector holds LANES rows of a weight tile.
// Only the int8 dot product needs instructions by name; builtins and inline assembly are used for it, so that no header is parsed.

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
#ifdef __OPENCL_VERSION__
typedef short f16;  // bits: OpenCL drivers without cl_khr_fp16 only convert halves
#else
typedef _Float16 f16;
#endif
typedef float f32;

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define LANES 16
#else
#define LANES 8
#endif

typedef f32 vf __attribute__((ext_vector_type(LANES)));
typedef f32 f32x2 __attribute__((ext_vector_type(2)));
typedef f32 f32x4 __attribute__((ext_vector_type(4)));
typedef f32 f32x8 __attribute__((ext_vector_type(8)));
typedef i32 vi __attribute__((ext_vector_type(LANES)));
typedef i16 vs __attribute__((ext_vector_type(2 * LANES)));
typedef u16 vus __attribute__((ext_vector_type(2 * LANES)));
typedef u8 vb __attribute__((ext_vector_type(4 * LANES)));  // LANES rows of four bytes
typedef i8 vsb __attribute__((ext_vector_type(4 * LANES)));
typedef f16 vh __attribute__((ext_vector_type(LANES)));
typedef u16 vhb __attribute__((ext_vector_type(LANES)));
typedef u8 vq __attribute__((ext_vector_type(LANES)));
typedef i8 vsq __attribute__((ext_vector_type(LANES)));
typedef i8 vsp __attribute__((ext_vector_type(2 * LANES)));
typedef i16 vsh __attribute__((ext_vector_type(LANES)));

// any address, any type: a memcpy of known size becomes one load or store
#define LOAD(type, p) ({ type loaded_; __builtin_memcpy(&loaded_, (p), sizeof loaded_); loaded_; })
#define STORE(p, v) ({ __typeof__(v) stored_ = (v); __builtin_memcpy((p), &stored_, sizeof stored_); })
#define TO_FLOAT(v) __builtin_convertvector((v), vf)
#ifdef __OPENCL_VERSION__
#define BITS_AS(type, x) __builtin_astype((x), type)
#else
#define BITS_AS(type, x) ((type)(x))
#endif
#define SPLAT(x) ((vf)(f32)(x))
#define SPLATI(x) ((vi)(i32)(x))
#define PREFETCH(p) __builtin_prefetch((p), 0, 2)  // into the second-level cache: the first one tracks too few lines at a time

#ifndef __OPENCL_VERSION__
INLINE vf load_half(const void* p) { return TO_FLOAT(LOAD(vh, p)); }
INLINE void store_half(void* p, vf x) { STORE(p, __builtin_convertvector(x, vh)); }
INLINE f32 half_at(const void* p) { return LOAD(f16, p); }
#elif defined(__F16C__)  // by their names: the built-in functions of OpenCL C may convert them one by one, in software
typedef short f16x8 __attribute__((ext_vector_type(8)));
typedef f32 f32x4_ __attribute__((ext_vector_type(4)));
INLINE vf load_half(const void* p) {
  vf x;
  __asm__("vcvtph2ps %1, %0" : "=v"(x) : "v"(LOAD(vh, p)));
  return x;
}
INLINE void store_half(void* p, vf x) {
  vh bits;
  __asm__("vcvtps2ph $0, %1, %0" : "=v"(bits) : "v"(x));
  STORE(p, bits);
}
INLINE f32 half_at(const void* p) {
  f16x8 bits = LOAD(f16, p);
  f32x4_ x;
  __asm__("vcvtph2ps %1, %0" : "=v"(x) : "v"(bits));
  return x[0];
}
#else
INLINE vf load_half(const void* p) { return vload_half8(0, (const __private half*)p); }
INLINE void store_half(void* p, vf x) { vstore_half8(x, 0, (__private half*)p); }
INLINE f32 half_at(const void* p) { return vload_half(0, (const __private half*)p); }
#endif

INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
INLINE vf vabs(vf a) { return BITS_AS(vf, BITS_AS(vi, a) & 0x7fffffff); }

#if LANES == 16
#define IN_EIGHT(combine, v) combine((v).lo, (v).hi)
#else
#define IN_EIGHT(combine, v) (v)
#endif
#define ADDED(a, b) ((a) + (b))
#define LARGER(a, b) ({ __typeof__(a) a_ = (a), b_ = (b); a_ > b_ ? a_ : b_; })

// halves upon each other until one lane is left
INLINE f32 sum_lanes(vf v) {
  const f32x8 eight = IN_EIGHT(ADDED, v);
  const f32x4 four = eight.lo + eight.hi;
  const f32x2 two = four.lo + four.hi;
  return two.x + two.y;
}

INLINE f32 max_lanes(vf v) {
  const f32x8 eight = IN_EIGHT(LARGER, v);
  const f32x4 four = LARGER(eight.lo, eight.hi);
  const f32x2 two = LARGER(four.lo, four.hi);
  return two.x > two.y ? two.x : two.y;
}

// e^x to about 1e-7 relative; x is clamped to [-87, 88], so that -inf gives a zero for every purpose here
INLINE vf vexp(vf x) {
  x = vmin(vmax(x, SPLAT(-87.0f)), SPLAT(88.0f));
  const vf magic = SPLAT(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, which then sits in the low bits
  vf shifted = x * 1.44269504f + magic;
  vf n = shifted - magic;
  vf r = x - n * 0.693359375f;  // ln 2 in two parts (Cody and Waite)
  r = r + n * 2.12194440e-4f;
  vf p = SPLAT(1.9875691500e-4f);  // Cephes expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  return BITS_AS(vf, BITS_AS(vi, p) + (BITS_AS(vi, shifted) << 23));  // times 2^n
}

// 2^x for x <= 0 to 2e-7 relative (a minimax polynomial on [-1/2, 1/2]); everything below -126 counts as that
INLINE vf vexp2(vf x) {
  x = vmax(x, SPLAT(-126.0f));
  const vf magic = SPLAT(12582912.0f);
  vf shifted = x + magic;
  vf f = x - (shifted - magic);
  vf p = SPLAT(1.32647273e-3f);
  p = p * f + 9.67151299e-3f;
  p = p * f + 5.55073359e-2f;
  p = p * f + 2.40222424e-1f;
  p = p * f + 6.93147004e-1f;
  p = p * f + 1.0f;
  return BITS_AS(vf, BITS_AS(vi, p) + (BITS_AS(vi, shifted) << 23));
}

INLINE vf silu(vf x) { return x / (1.0f + vexp(-x)); }
INLINE vf vtanh(vf x) { return 1.0f - 2.0f / (1.0f + vexp(2.0f * x)); }
// by its tanh approximation, arXiv 1606.08415: x / 2 * (1 + tanh(y)) is x / (1 + exp(-2 y))
INLINE vf gelu(vf x) { return x / (1.0f + vexp(-1.5957691216057308f * (x + 0.044715f * x * x * x))); }

// The dot product: acc[row] += sum over four bytes of w[row] * a. DOT_SIGNED says that 8-bit weights stay signed; otherwise they arrive plus 128.
// dot_chunks(w, first, n, a, acc, bits) takes n chunks of four columns; `bits` of the weights decide how often 16-bit sums must be widened.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define DOT_SIGNED 0
INLINE vi dot4(vi acc, vb w, const i8* a) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const i32*)a));
  return acc;
}
#elif defined(__AVXVNNI__)
#define DOT_SIGNED 0
INLINE vi dot4(vi acc, vb w, const i8* a) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(w), "x"(SPLATI(LOAD(i32, a))));
  return acc;
}
#elif defined(__ARM_FEATURE_DOTPROD)
#define DOT_SIGNED 1
typedef i32 i32x4 __attribute__((ext_vector_type(4)));
INLINE vi dot4(vi acc, vb w, const i8* a) {
  i32x4 splat = LOAD(i32, a);
  i32x4 low = __builtin_shufflevector(acc, acc, 0, 1, 2, 3), high = __builtin_shufflevector(acc, acc, 4, 5, 6, 7);
  vi bytes = BITS_AS(vi, w);
  i32x4 w_low = __builtin_shufflevector(bytes, bytes, 0, 1, 2, 3), w_high = __builtin_shufflevector(bytes, bytes, 4, 5, 6, 7);
  __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(low) : "w"(w_low), "w"(splat));
  __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(high) : "w"(w_high), "w"(splat));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}
#ifdef __ARM_FEATURE_MATMUL_INT8
// The matrix product of I8MM: two rows of eight columns times two tokens of as many, a 2 x 2 tile of sums. pair_rows brings two chunks of
// four columns into that order, once for all tokens; dot_pairs gives the sums of LANES rows for each of two tokens.
#define DOT_PAIRS 1
typedef u8 u8x16 __attribute__((ext_vector_type(16)));
typedef unsigned long long u64x2 __attribute__((ext_vector_type(2)));
INLINE void pair_rows(const vb* w, i32x4 pairs[4][4]) {
  UNROLL for (int c = 0; c < 4; c++) {
    vi a = BITS_AS(vi, w[2 * c]), b = BITS_AS(vi, w[2 * c + 1]);
    pairs[c][0] = __builtin_shufflevector(a, b, 0, 8, 1, 9);
    pairs[c][1] = __builtin_shufflevector(a, b, 2, 10, 3, 11);
    pairs[c][2] = __builtin_shufflevector(a, b, 4, 12, 5, 13);
    pairs[c][3] = __builtin_shufflevector(a, b, 6, 14, 7, 15);
  }
}
INLINE void dot_pairs(i32x4 pairs[4][4], int first, int n, const i8* a, const i8* b, vi* products) {
  i32x4 sums[4];
  UNROLL for (int j = 0; j < 4; j++) sums[j] = 0;
  UNROLL for (int c = first; c < first + n; c++) {
    u64x2 tokens = {LOAD(unsigned long long, a + 8 * c), LOAD(unsigned long long, b + 8 * c)};
    UNROLL for (int j = 0; j < 4; j++) __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(sums[j]) : "w"(pairs[c][j]), "w"(tokens));
  }
  vi low = __builtin_shufflevector(sums[0], sums[1], 0, 1, 2, 3, 4, 5, 6, 7), high = __builtin_shufflevector(sums[2], sums[3], 0, 1, 2, 3, 4, 5, 6, 7);
  products[0] = __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14);
  products[1] = __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
}
#endif
#elif defined(__ARM_NEON)
#define DOT_SIGNED 1
#define DOT_WIDENS 1
typedef i8 i8x8 __attribute__((ext_vector_type(8)));
typedef i16 i16x8 __attribute__((ext_vector_type(8)));
typedef i32 i32x4 __attribute__((ext_vector_type(4)));
INLINE vi dot_chunks(const vb* w, int first, int n, const i8* a, vi acc, int bits) {
  const int fits = bits <= 5 ? 8 : bits == 6 ? 4 : 2;  // products of a weight and 127 that 16 bits hold
  i16x8 sums[4];  // of two rows each, four columns apart
  UNROLL for (int c = first; c < first + n; c++) {
    const u32 fours[2] = {LOAD(u32, a + 4 * c), LOAD(u32, a + 4 * c)};
    const i16x8 x = __builtin_convertvector(LOAD(i8x8, fours), i16x8);
    UNROLL for (int j = 0; j < 4; j++) {
      i8x8 y = LOAD(i8x8, (const i8*)&w[c] + 8 * j);
      i16x8 product = __builtin_convertvector(y, i16x8) * x;
      sums[j] = (c - first) % fits ? sums[j] + product : product;
    }
    if ((c - first) % fits == fits - 1 || c == first + n - 1) {
      i32x4 halves[4];
      UNROLL for (int j = 0; j < 4; j++)
        halves[j] = __builtin_convertvector(sums[j].even, i32x4) + __builtin_convertvector(sums[j].odd, i32x4);
      vi low = __builtin_shufflevector(halves[0], halves[1], 0, 1, 2, 3, 4, 5, 6, 7), high = __builtin_shufflevector(halves[2], halves[3], 0, 1, 2, 3, 4, 5, 6, 7);
      acc += __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14) + __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
    }
  }
  return acc;
}
#elif defined(__AVX2__)
#define DOT_SIGNED 1
#define DOT_WIDENS 1
typedef char c8x32 __attribute__((vector_size(32)));
typedef short s16x16 __attribute__((vector_size(32)));
INLINE c8x32 magnitude(c8x32 x) { return BITS_AS(c8x32, __builtin_elementwise_abs(BITS_AS(vsb, x))); }
// how many products of dot_step 16 bits hold: (2^bits - 1) * 127 * 2 each; 8-bit weights need the sign trick and fit once
#define PRODUCTS_THAT_FIT(bits) ((bits) <= 4 ? 8 : (bits) == 5 ? 4 : (bits) == 6 ? 2 : 1)
// of four columns, w times x, the sums of two each
INLINE vs sums_of_two(c8x32 w, c8x32 x, int bits) {
  return bits == 8 ? BITS_AS(vs, __builtin_ia32_pmaddubsw256(magnitude(w), __builtin_ia32_psignb256(x, w))) : BITS_AS(vs, __builtin_ia32_pmaddubsw256(w, x));
}
INLINE vi sums_of_four(vs sum) {
  const vs ones = 1;
  return BITS_AS(vi, __builtin_ia32_pmaddwd256(BITS_AS(s16x16, sum), BITS_AS(s16x16, ones)));
}
// acc += four columns, w times x, the k-th of those that come one after another; sum holds them in 16 bits until `last`, or until no more fit
INLINE void dot_step(vb w, c8x32 x, int k, int last, vs* sum, vi* acc, int bits) {
  const int fits = PRODUCTS_THAT_FIT(bits);
  const vs products = sums_of_two(BITS_AS(c8x32, w), x, bits);
  *sum = k % fits ? *sum + products : products;
  if (k % fits == fits - 1 || last) *acc += sums_of_four(*sum);
}
#define FOUR_COLUMNS(a, c) BITS_AS(c8x32, SPLATI(LOAD(i32, (a) + 4 * (c))))
INLINE vi dot_chunks(const vb* w, int first, int n, const i8* a, vi acc, int bits) {
  vs sum = 0;
  UNROLL for (int c = first; c < first + n; c++) dot_step(w[c], FOUR_COLUMNS(a, c), c - first, c == first + n - 1, &sum, &acc, bits);
  return acc;
}

// acc[2 t + v] = the same for DOT_TOKENS tokens and two vectors of rows, chunk after chunk. w: 8 chunks of the first rows, then 8 of the others. Eight
// sums hide each other's latency, and broadcasts that serve both vectors come before them; four products before their four additions, which would
// otherwise take the multipliers' turns as soon as a product is there. Eight sums, four broadcasts and four products are all the registers.
#define DOT_TOKENS 4
// left alone, the compiler takes an order that needs more registers than there are
#define IN_ORDER4(s) __asm__ volatile("" : "+x"((s)[0]), "+x"((s)[1]), "+x"((s)[2]), "+x"((s)[3]))
#define IN_ORDER8(s) __asm__ volatile("" : "+x"((s)[0]), "+x"((s)[1]), "+x"((s)[2]), "+x"((s)[3]), "+x"((s)[4]), "+x"((s)[5]), "+x"((s)[6]), "+x"((s)[7]))
INLINE void dot_tokens(const vb* w, int first, int n, const i8* a, vi* acc, int bits) {
  const int fits = PRODUCTS_THAT_FIT(bits);
  vs sums[2 * DOT_TOKENS];
  UNROLL for (int c = first; c < first + n; c++) {
    const int k = c - first;
    c8x32 x[DOT_TOKENS];
    UNROLL for (int t = 0; t < DOT_TOKENS; t++) x[t] = FOUR_COLUMNS(a + 32 * t, c);
    IN_ORDER4(x);
    UNROLL for (int v = 0; v < 2; v++) {
      vs products[DOT_TOKENS];
      UNROLL for (int t = 0; t < DOT_TOKENS; t++) products[t] = sums_of_two(BITS_AS(c8x32, w[8 * v + c]), x[t], bits);
      if (fits > 1) IN_ORDER4(products);
      UNROLL for (int t = 0; t < DOT_TOKENS; t++) {
        const int i = 2 * t + v;
        if (fits > 1) sums[i] = k % fits ? sums[i] + products[t] : products[t];
        else acc[i] = k ? acc[i] + sums_of_four(products[t]) : sums_of_four(products[t]);
      }
    }
    if (fits == 1) IN_ORDER8(acc);
    else IN_ORDER8(sums);
    if (fits > 1 && (k % fits == fits - 1 || k == n - 1)) {
      UNROLL for (int i = 0; i < 2 * DOT_TOKENS; i++) acc[i] = k < fits ? sums_of_four(sums[i]) : acc[i] + sums_of_four(sums[i]);
      IN_ORDER8(acc);
    }
  }
}
#else
#define DOT_SIGNED 1
INLINE vi dot4(vi acc, vb w, const i8* a) {
  i8 bytes[4 * LANES];
  STORE(bytes, w);
  for (int r = 0; r < LANES; r++)
    for (int i = 0; i < 4; i++) acc[r] += bytes[4 * r + i] * a[i];
  return acc;
}
#endif

#ifndef DOT_WIDENS
INLINE vi dot_chunks(const vb* w, int first, int n, const i8* a, vi acc, int bits) {
  UNROLL for (int c = first; c < first + n; c++) acc = dot4(acc, w[c], a + 4 * c);
  return acc;
}
#endif

#if LANES == 8 && defined(__AVXVNNI__)
typedef short s16x16 __attribute__((vector_size(32)));
#endif
// the sums of a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1], and those added to acc[i]
INLINE vi mul2(vs a, vs b) {
#if LANES == 16
  vi sums;
  __asm__("vpmaddwd %2, %1, %0" : "=v"(sums) : "v"(a), "v"(b));
  return sums;
#elif defined(__AVX2__)
  return BITS_AS(vi, __builtin_ia32_pmaddwd256(BITS_AS(s16x16, a), BITS_AS(s16x16, b)));
#else
  return __builtin_convertvector(a.even, vi) * __builtin_convertvector(b.even, vi) +
         __builtin_convertvector(a.odd, vi) * __builtin_convertvector(b.odd, vi);
#endif
}
INLINE vi dot2(vi acc, vs a, vs b) {
#if LANES == 16
  __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
  return acc;
#elif defined(__AVXVNNI__)
  __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
  return acc;
#else
  return acc + mul2(a, b);
#endif
}

// The values of IQ4_NL's and IQ4_XS's integers 0 … 15 (kvalues_iq4nl of ggml-common.h); vectors get them as the dot product takes them.
#define CODEBOOK_LOW 0xf6eaddcfbfad9881ull
#define CODEBOOK_HIGH 0x7159453526190d01ull
INLINE i32 codebook_value(i32 index) { return (i8)(u8)((index < 8 ? CODEBOOK_LOW : CODEBOOK_HIGH) >> (8 * (index & 7))); }
INLINE vb codebook_values(vb index) {
#if defined(__AVX2__) || defined(__ARM_NEON)
  union { unsigned long long words[LANES / 2]; vb bytes; } table;
  UNROLL for (int i = 0; i < LANES / 2; i++) table.words[i] = (i % 2 ? CODEBOOK_HIGH : CODEBOOK_LOW) ^ (DOT_SIGNED ? 0 : 0x8080808080808080ull);
#ifdef __AVX2__
  vb values;
  __asm__("vpshufb %2, %1, %0" : "=v"(values) : "v"(table.bytes), "v"(index));
  return values;
#else
  typedef u8 u8x16 __attribute__((ext_vector_type(16)));
  u8x16 low = index.lo, high = index.hi;
  __asm__("tbl %0.16b, {%1.16b}, %0.16b" : "+w"(low) : "w"(table.bytes.lo));
  __asm__("tbl %0.16b, {%1.16b}, %0.16b" : "+w"(high) : "w"(table.bytes.lo));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
#endif
#else
  for (int i = 0; i < 4 * LANES; i++) index[i] = (u8)codebook_value(index[i]);
  return index;
#endif
}
