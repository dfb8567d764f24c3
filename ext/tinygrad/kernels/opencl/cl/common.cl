// What every kernel uses. Only OpenCL C 1.2 without extensions: halves are stored and converted, never computed with.

#define INLINE static inline

#define GROUP_ROWS 16  // of the weights' layout, see ../../cpu/formats.py: a load of 16 items is 64 bytes in a row, whole sectors of any GPU's memory

INLINE float4 load4(const __global float* p, long i) { return vload4(0, p + i); }
INLINE float4 load4_half(const __global half* p, long i) { return vload_half4(0, p + i); }

// a cache holds halves or floats
#if CACHE_HALF
#define CACHE half
#define LOAD4(p, i) load4_half(p, i)
#define STORE(x, p, i) vstore_half(x, i, p)
#else
#define CACHE float
#define LOAD4(p, i) load4(p, i)
#define STORE(x, p, i) ((p)[i] = (x))
#endif

// the sum over the work-group's items, for each of them; `scratch` holds a float for each
INLINE float group_sum(float x, __local float* scratch) {
  const int item = get_local_id(0);
  scratch[item] = x;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int n = LOCAL; n > 1;) {
    const int half_of_it = (n + 1) / 2;
    if (item < n / 2) scratch[item] += scratch[item + half_of_it];
    barrier(CLK_LOCAL_MEM_FENCE);
    n = half_of_it;
  }
  const float sum = scratch[0];
  barrier(CLK_LOCAL_MEM_FENCE);
  return sum;
}
