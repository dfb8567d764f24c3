// The LARGEST largest of COUNT floats, falling, of equal ones the first, in two launches. First every work-group finds those of a STRETCH, as keys that fall as
// the floats do; then (LAST) one work-group finds those of all keys: their indices, then their values. NaN is never among them; where there are fewer, the
// other indices are -1. Keys are sorted in local memory, SORTED at a time (Batcher 1968, bitonic).

#define FRESH (SORTED - LARGEST)

// falls as the float falls, then as the index rises; 0 is less than that of any number
INLINE ulong key_of(float x, int index) {
  const uint bits = float_to_bits(x), ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return x == x ? (ulong)ordered << 32 | (uint)~index : 0;
}

INLINE void sort_falling(LOCAL ulong* keys) {
  for (int size = 2; size <= SORTED; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      for (int i = item_id(); i < SORTED / 2; i += ITEMS) {
        const int low = 2 * i - (i & (step - 1)), high = low + step, falling = (low & size) == 0;
        const ulong a = keys[low], b = keys[high];
        if ((a < b) == falling) keys[low] = b, keys[high] = a;
      }
      sync_group();
    }
}

#if LAST
#define IN ulong
#define KEY(i) x[i]
#else
#define IN float
#define KEY(i) key_of(x[i], i)
#endif

KERNEL(ITEMS) ENTRY(GLOBAL uint* RESTRICT out, const GLOBAL IN* RESTRICT x) {
  LOCAL_ARRAY(ulong, keys, SORTED);
  const int item = item_id(), begin = group_id(0) * STRETCH, end = min(begin + STRETCH, COUNT);
  for (int i = item; i < LARGEST; i += ITEMS) keys[i] = 0;
  for (int first = begin; first < end; first += FRESH) {
    for (int i = item; i < FRESH; i += ITEMS) keys[LARGEST + i] = first + i < end ? KEY(first + i) : 0;
    sync_group();
    sort_falling(keys);
  }
  for (int i = item; i < LARGEST; i += ITEMS) {
    const uint ordered = (uint)(keys[i] >> 32), index = ~(uint)keys[i];
#if LAST
    out[i] = keys[i] ? index : ~0u;
    out[LARGEST + i] = ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered;
#else
    ((GLOBAL ulong*)out)[group_id(0) * LARGEST + i] = keys[i];
#endif
  }
}
