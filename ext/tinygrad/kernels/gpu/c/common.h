// What every kernel uses, on top of a dialect (opencl.h, cuda.h).

#define GROUP_ROWS 16  // of the weights' layout, see ../../packed/formats.py: a load of 16 items is 64 bytes in a row, whole sectors of any GPU's memory


// Eight columns of four rows of a weight, and what scales them; format.h fills in what its format has
typedef struct {
  uint4 low, high;       // words of the rows: four or eight bits of an integer; what is beyond four, or the second half
  uint2 scales, minima;  // four halves
  uint scales8, minima8; // four bytes
} Quad;

// IQ4_NL's values, signed bytes, of four indices 0 … 15 (kvalues_iq4nl of ggml-common.h)
INLINE uint codebook4(uint indices) {
#ifdef BYTE_PERMUTE  // which picks four of eight bytes by the low three bits of the selector's nibbles
  const uint pairs = (indices | indices >> 4) & 0x00ff00ffu, selector = (pairs | pairs >> 8) & 0x7777u;
  const uint upper = (indices >> 3 & 0x01010101u) * 255u;
  return (BYTE_PERMUTE(0xbfad9881u, 0xf6eaddcfu, selector) & ~upper) | (BYTE_PERMUTE(0x26190d01u, 0x71594535u, selector) & upper);
#else
  uint values = 0;
  UNROLL for (int i = 0; i < 32; i += 8) {
    const uint index = indices >> i & 15;
    const uint four = index < 8 ? (index < 4 ? 0xbfad9881u : 0xf6eaddcfu) : index < 12 ? 0x26190d01u : 0x71594535u;
    values |= (four >> 8 * (index & 3) & 255) << i;
  }
  return values;
#endif
}

// the largest over the work-group's items, for each of them; `scratch` holds a float for each
INLINE float group_max(float x, LOCAL float* scratch) {
  const int item = item_id();
  scratch[item] = x;
  sync_group();
  for (int n = ITEMS; n > 1; n = (n + 1) / 2) {
    if (item < n / 2) scratch[item] = max(scratch[item], scratch[item + (n + 1) / 2]);
    sync_group();
  }
  const float largest = scratch[0];
  sync_group();
  return largest;
}

// the sum over the work-group's items, for each of them; `scratch` holds a float for each
INLINE float group_sum(float x, LOCAL float* scratch) {
  const int item = item_id();
  scratch[item] = x;
  sync_group();
  for (int n = ITEMS; n > 1;) {
    const int half_of_it = (n + 1) / 2;
    if (item < n / 2) scratch[item] += scratch[item + half_of_it];
    sync_group();
    n = half_of_it;
  }
  const float sum = scratch[0];
  sync_group();
  return sum;
}
