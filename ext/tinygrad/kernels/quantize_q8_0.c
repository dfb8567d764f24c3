// Rows of floats to ggml's Q8_0, as the gguf package does it in NumPy, bit for bit: an f16 scale and 32 signed bytes. TYPE_<name> is defined.
#pragma STDC FP_CONTRACT OFF

typedef unsigned char u8;
typedef float vf __attribute__((vector_size(128)));
typedef float vfu __attribute__((vector_size(128), aligned(1)));
typedef _Float16 vhu __attribute__((vector_size(64), aligned(1)));
typedef unsigned short vsu __attribute__((vector_size(64), aligned(1)));
typedef int vs __attribute__((vector_size(128)));
typedef unsigned int vi __attribute__((vector_size(128)));
typedef signed char vc __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) vf load(const u8* p) {
#if defined(TYPE_F32)
  return *(const vfu*)p;
#elif defined(TYPE_F16)
  return __builtin_convertvector(*(const vhu*)p, vf);
#else
  return (vf)(__builtin_convertvector(*(const vsu*)p, vi) << 16);
#endif
}

__attribute__((visibility("default"))) void quantize(const u8* from, u8* to, long blocks) {
#ifdef TYPE_F32
  const int width = 4;
#else
  const int width = 2;
#endif
  for (long b = 0; b < blocks; b++, from += 32 * width, to += 34) {
    vf x = load(from);
    float scale = __builtin_reduce_max(__builtin_elementwise_abs(x)) / 127.0f;
    vf scaled = x * (scale == 0 ? 0 : 1 / scale);
    vf size = __builtin_elementwise_abs(scaled);
    vf whole = __builtin_elementwise_floor(size);
    vf rest = size - whole;
    vf rounded = whole + __builtin_elementwise_floor(2 * rest);  // halves away from zero
    _Float16 half = (_Float16)scale;
    vs integers = __builtin_convertvector(__builtin_elementwise_copysign(rounded, scaled), vs);
    vc quants = __builtin_convertvector(integers, vc);
    __builtin_memcpy(to, &half, 2);
    __builtin_memcpy(to + 2, &quants, 32);
  }
}
