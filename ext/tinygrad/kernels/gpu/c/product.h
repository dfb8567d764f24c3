// The body of every product. A tile's sums go to `shared`, SUM_TOKENS tokens at a time: EACH_STAGE of the tokens `first` … they are gathered (GATHER) as
// shared[t * SUM_PITCH + row in tile], and EMIT runs for each of the EMITTED rows that a tile has of the output, with t, row and `at`, where its sum is.

// Where the weights are those of several experts (EXPERT_TILES), one under another, `experts` says which of them each EXPERT_TILES tiles of tokens have; where it
// is -1 nothing is computed.
#if EXPERT_TILES
#define EXPERT_PARAM , const GLOBAL int* RESTRICT experts
#define EXPERT experts[group_id(0) / EXPERT_TILES]
#define FIRST_GROUP (EXPERT * (OUT_ROWS / GROUP_ROWS))
#define OWN_ROWS (EXPERT < 0 ? 0 : OUT_ROWS)
#else
#define EXPERT_PARAM
#define FIRST_GROUP 0
#define OWN_ROWS OUT_ROWS
#endif

// Where a weight has a low-rank change (ADAPTED), CHANGE_ROW(part, sums, token, count, row) changes an item's share of the sums of a row for `count` tokens.
#if ADAPTED
#include "low_rank.h"
#define SHARE_OF_ROW SUM_PITCH, item / TILE_ROWS, ITEMS / TILE_ROWS
#define ADAPT(first)                                                                           \
  {                                                                                            \
    const int in_tile = item % TILE_ROWS, of_slot = in_tile / GROUP_ROWS;                      \
    const int row = GROUP_OF(of_slot) * GROUP_ROWS + in_tile % GROUP_ROWS;                     \
    const int count = min(SUM_TOKENS, TOKENS - token - (first));                               \
    if (row < rows) CHANGE_ROW(PART_OF(of_slot), shared + in_tile, token + (first), count, row) \
  }                                                                                            \
  sync_group();
#else
#define CHANGES
#define ADAPT(first)
#endif

// FINISH(first) follows a stage's EMIT, for a kernel that defines it anew.
#define FINISH(first)

#define PRODUCT(rows_of_it, EMITTED, EMIT)                                                     \
  LOCAL_ARRAY(float, shared, SHARED_FLOATS);                                                   \
  const int rows = rows_of_it, token = group_id(0) * TILE_TOKENS;                              \
  MULTIPLY                                                                                     \
  EACH_STAGE {                                                                                 \
    GATHER(first)                                                                              \
    sync_group();                                                                              \
    ADAPT(first)                                                                               \
    for (int i = item; i < SUM_TOKENS * (EMITTED); i += ITEMS) {                               \
      const int t = token + first + i / (EMITTED), row = tile * (EMITTED) + i % (EMITTED);     \
      const int at = i / (EMITTED) * SUM_PITCH + i % (EMITTED);                                \
      if (t < TOKENS && row < rows) { EMIT }                                                   \
    }                                                                                          \
    FINISH(first)                                                                              \
  }

// what has all sums in local memory has one stage; a loop of one round with a barrier in it makes PoCL lose work
#define ALL_AT_ONCE const int first = 0;
