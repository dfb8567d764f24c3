// The k largest of n floats, falling; of equal ones the first. NaN is never among them. Freestanding: nothing is included.
typedef float lanes __attribute__((vector_size(64), aligned(4)));
typedef int masks __attribute__((vector_size(64)));

static __attribute__((always_inline)) long insert(float score, int id, int* ids, float* scores, long held, long k) {
  if (score != score || (held == k && !(score > scores[k - 1]))) return held;
  long at = held < k ? held++ : k - 1;
  for (; at > 0 && scores[at - 1] < score; at--) {
    scores[at] = scores[at - 1];
    ids[at] = ids[at - 1];
  }
  scores[at] = score;
  ids[at] = id;
  return held;
}

// -> how many there are: k, or fewer where x has fewer numbers
__attribute__((visibility("default"))) long top_k(const float* x, long n, int* ids, float* scores, long k) {
  const float lowest = -__builtin_inff();
  // the largest of each of 2k stretches: the k-th of those is no more than the k-th of all, and leaves few to look at
  float bound = lowest;
  long stretch = n / (2 * k) / 16 * 16, held = 0;
  for (long s = 0; stretch && s < 2 * k; s++) {
    lanes most = {};
    most += lowest;
    for (long i = s * stretch; i < (s + 1) * stretch; i += 16) {
      lanes v = *(const lanes*)(x + i);
      masks more = v > most;
      most = (lanes)((more & (masks)v) | (~more & (masks)most));
    }
    held = insert(__builtin_reduce_max(most), 0, ids, scores, held, k);
  }
  if (held == k) bound = scores[k - 1];
  held = 0;
  for (long i = 0; i < n;) {
    if (i + 16 <= n && !__builtin_reduce_or((masks)(*(const lanes*)(x + i) >= bound))) {
      i += 16;
      continue;
    }
    for (long end = i + 16 < n ? i + 16 : n; i < end; i++) {
      if (x[i] >= bound) held = insert(x[i], (int)i, ids, scores, held, k);
    }
    if (held == k) bound = scores[k - 1];
  }
  return held;
}
