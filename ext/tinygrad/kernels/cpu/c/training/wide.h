// clang halves vectors of 512 bits on some processors, unless a function says that it means them.
#if LANES == 16
#define WIDE_VECTORS __attribute__((min_vector_width(512)))
#else
#define WIDE_VECTORS
#endif
