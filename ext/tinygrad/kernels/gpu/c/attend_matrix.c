// Attention of many tokens on the matrix instruction, with an online softmax (arXiv 2205.14135, 2307.08691): a work-group takes a query head and QUERIES tokens, 16 to
// a warp; keys and values of CHUNK positions at a time lie as halves in local memory. The scores that the instruction leaves with an item are what it expects
// of the item as weights of the values, so they stay in registers. Fragments: mma_ptx.h.

#include "cache.h"
#include "scores.h"

#define KEY_PITCH (HEAD_DIM / 16 % 2 ? HEAD_DIM / 2 : HEAD_DIM / 2 + 8)  // words; an odd multiple of eight, so that loads of 8 bytes by 16 items meet in no bank
#define VALUE_PITCH (HEAD_DIM + 8)                                      // words: two positions of a dimension; 8 or 24 modulo 32
#define STEPS (HEAD_DIM / 16)
#define SCORES (CHUNK / 8)
#define DIMS (HEAD_DIM / 8)

// eight halves of row p of a cache, the i-th eight; zeros from `end` on: what lies there was never written
INLINE uint4 row_of(const GLOBAL CACHE* cache, int p, int i, int end) {
  const GLOBAL CACHE* row = cache + (long)p * CACHE_ROW;
  if (p >= end) return make_uint4(0, 0, 0, 0);
#if QUANTISED
  const uint2 bytes = bytes8(row, 8 * i);
  const float scale = f16_to_float(*scale_of(row, 8 * i));
  const uint2 low = pack4_f16(signed_bytes(bytes.x) * scale), high = pack4_f16(signed_bytes(bytes.y) * scale);
  return make_uint4(low.x, low.y, high.x, high.y);
#else
  return ((const GLOBAL uint4*)row)[i];
#endif
}

INLINE void lay_keys(LOCAL uint* to, const GLOBAL CACHE* cache, int first, int end) {
  for (int i = item_id(); i < CHUNK * HEAD_DIM / 8; i += ITEMS) {
    const int p = i / (HEAD_DIM / 8), c = i % (HEAD_DIM / 8);
    *(LOCAL uint4*)(to + p * KEY_PITCH + 4 * c) = row_of(cache, first + p, c, end);
  }
}

INLINE void lay_values(LOCAL uint* to, const GLOBAL CACHE* cache, int first, int end) {
  for (int i = item_id(); i < CHUNK / 2 * HEAD_DIM / 8; i += ITEMS) {
    const int p = i / (HEAD_DIM / 8), c = i % (HEAD_DIM / 8);
    const uint4 a = row_of(cache, first + 2 * p, c, end), b = row_of(cache, first + 2 * p + 1, c, end);
    LOCAL uint4* words = (LOCAL uint4*)(to + p * VALUE_PITCH + 8 * c);
    words[0] = make_uint4(low_halves(a.x, b.x), high_halves(a.x, b.x), low_halves(a.y, b.y), high_halves(a.y, b.y));
    words[1] = make_uint4(low_halves(a.z, b.z), high_halves(a.z, b.z), low_halves(a.w, b.w), high_halves(a.w, b.w));
  }
}

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT out, const GLOBAL float* RESTRICT q, const GLOBAL CACHE* RESTRICT k, const GLOBAL CACHE* RESTRICT v, int start_pos) {
  LOCAL_ARRAY(uint, keys, CHUNK * KEY_PITCH);
  LOCAL_ARRAY(uint, values, CHUNK / 2 * VALUE_PITCH);
  const int lane = item_id() % 32, group = lane / 4, pair = lane % 4, head = group_id(0);
  // the last tokens see most: they begin first
  const int token = (QUERY_TILES - 1 - group_id(1)) * QUERIES, end = start_pos + min(token + QUERIES, TOKENS);
  const int warp_token = token + item_id() / 32 * 16, sees = start_pos + warp_token + group + 1;  // of row group; row group + 8 sees eight more
  k += (long)(head / HEADS_PER_KV) * CACHE_ROWS * CACHE_ROW;
  v += (long)(head / HEADS_PER_KV) * CACHE_ROWS * CACHE_ROW;
  uint query[STEPS][4];
  UNROLL for (int half_ = 0; half_ < 2; half_++) {
    const int t = min(warp_token + group + 8 * half_, TOKENS - 1);
    const GLOBAL float* row = q + ((long)t * QUERY_HEADS + head) * HEAD_DIM;
    UNROLL for (int s = 0; s < STEPS; s++) {
      const uint2 words = pack4_f16(load4(row, 16 * s + 4 * pair) * SCALE);
      query[s][half_] = words.x, query[s][2 + half_] = words.y;
    }
  }
  float sum[DIMS][4], best[2] = {HIDDEN, HIDDEN}, total[2] = {0, 0};
  UNROLL for (int i = 0; i < DIMS; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0;
  for (int first = FIRST_SEEN(start_pos + token + 1) / CHUNK * CHUNK; first < end; first += CHUNK) {
    lay_keys(keys, k, first, end);
    lay_values(values, v, first, end);
    sync_group();
    if (first < start_pos + warp_token + 16) {
      float score[SCORES][4];
      UNROLL for (int i = 0; i < SCORES; i++) {
        score[i][0] = score[i][1] = score[i][2] = score[i][3] = 0;
        UNROLL for (int s = 0; s < STEPS; s++) {
          const uint2 key = *(const LOCAL uint2*)(keys + (8 * i + group) * KEY_PITCH + 8 * s + 2 * pair);
          mma_m16n8k16(score[i], query[s][0], query[s][1], query[s][2], query[s][3], key.x, key.y);
        }
        UNROLL for (int j = 0; j < 4; j++) {
          // what is hidden from a row that has seen nothing yet counts until its first score comes, which makes it zero
          const int p = first + 8 * i + 2 * pair + j % 2, n = sees + j / 2 * 8;
          score[i][j] = p < min(n, end) && p >= FIRST_SEEN(n) ? capped(score[i][j]) : HIDDEN;
        }
      }
      UNROLL for (int half_ = 0; half_ < 2; half_++) {
        float now = best[half_];
        UNROLL for (int i = 0; i < SCORES; i++) now = max(now, max(score[i][2 * half_], score[i][2 * half_ + 1]));
        now = max(now, shuffle_xor(now, 1));
        now = max(now, shuffle_xor(now, 2));
        const float keep = exp2(best[half_] - now);
        best[half_] = now, total[half_] *= keep;
        UNROLL for (int i = 0; i < DIMS; i++) sum[i][2 * half_] *= keep, sum[i][2 * half_ + 1] *= keep;
        UNROLL for (int i = 0; i < SCORES; i++) {
          score[i][2 * half_] = exp2(score[i][2 * half_] - now), score[i][2 * half_ + 1] = exp2(score[i][2 * half_ + 1] - now);
          total[half_] += score[i][2 * half_] + score[i][2 * half_ + 1];
        }
      }
      UNROLL for (int p = 0; p < CHUNK / 16; p++) {
        const float *low = score[2 * p], *high = score[2 * p + 1];
        const uint a0 = pack_f16x2(low[0], low[1]), a1 = pack_f16x2(low[2], low[3]), a2 = pack_f16x2(high[0], high[1]), a3 = pack_f16x2(high[2], high[3]);
        const LOCAL uint* value = values + (8 * p + pair) * VALUE_PITCH + group;
        UNROLL for (int i = 0; i < DIMS; i++) mma_m16n8k16(sum[i], a0, a1, a2, a3, value[8 * i], value[4 * VALUE_PITCH + 8 * i]);
      }
    }
    sync_group();
  }
  UNROLL for (int half_ = 0; half_ < 2; half_++) {
    float all = total[half_];
    all += shuffle_xor(all, 1);
    all += shuffle_xor(all, 2);
    const int t = warp_token + group + 8 * half_;
    GLOBAL float* to = out + ((long)t * QUERY_HEADS + head) * HEAD_DIM + 2 * pair;
    if (t < TOKENS)
      UNROLL for (int i = 0; i < DIMS; i++) to[8 * i] = sum[i][2 * half_] / all, to[8 * i + 1] = sum[i][2 * half_ + 1] / all;
  }
}
