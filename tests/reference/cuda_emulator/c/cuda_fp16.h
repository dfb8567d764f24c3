// CUDA's halves: the compiler's own, rounded after every operation.
#pragma once
typedef _Float16 half;
typedef _Float16 __half;
struct __attribute__((aligned(4))) half2 { half x, y; };
typedef half2 __half2;
CUDA_FN half2 make_half2(half x, half y) { return {x, y}; }
CUDA_FN float __half2float(half x) { return (float)x; }
CUDA_FN half __float2half(float x) { return (half)x; }
CUDA_FN half __float2half_rn(float x) { return (half)x; }
CUDA_FN unsigned short __half_as_ushort(half x) { return __builtin_bit_cast(unsigned short, x); }
CUDA_FN half __ushort_as_half(unsigned short x) { return __builtin_bit_cast(half, x); }
CUDA_FN half hsqrt(half x) { return (half)__builtin_sqrtf((float)x); }
CUDA_FN half hexp2(half x) { return (half)__builtin_exp2f((float)x); }
CUDA_FN half hlog2(half x) { return (half)__builtin_log2f((float)x); }
CUDA_FN half hsin(half x) { return (half)__builtin_sinf((float)x); }
CUDA_FN half hrcp(half x) { return (half)(1.0f / (float)x); }
CUDA_FN half htrunc(half x) { return (half)__builtin_truncf((float)x); }
