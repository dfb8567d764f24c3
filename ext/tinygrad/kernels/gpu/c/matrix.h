// Products for many tokens on the matrix instruction. A work-group takes a tile of SLOTS groups of 16 rows and TILE_TOKENS tokens; its warps share it, each
// M_TILES x N_TILES tiles of 16 rows x 8 tokens in registers. Block by block of 32 columns, dequantised weights and inputs lie as halves in one of two buffers
// of local memory; while one is multiplied, the next block's are on their way from global memory. Inputs come from halves.c.
//
// An item reads 16 bytes of a row of a buffer, which are the columns 8 pair … 8 pair + 7, and uses them as the columns that the instruction expects of it:
// the sum over columns has no order, as long as both operands keep the same.

#define WARPS (ITEMS / 32)
#define ROW_WARPS (SLOTS == 8 || TILE_TOKENS == 32 ? 4 : 2)
#define TOKEN_WARPS (WARPS / ROW_WARPS)
#define M_TILES (SLOTS / ROW_WARPS)
#define N_TILES (TILE_TOKENS / 8 / TOKEN_WARPS)
#define TILE_ROWS (GROUP_ROWS * SLOTS)
#define BUFFER (4 * (TILE_ROWS + TILE_TOKENS))  // in uint4
#define PIECES_HELD ((SLOTS * PIECES + ITEMS - 1) / ITEMS)
#define INPUTS_HELD ((4 * TILE_TOKENS + ITEMS - 1) / ITEMS)

// the sums leave through the same memory, SUM_TOKENS at a time
#define SUM_PITCH (TILE_ROWS + 4)
#define SUM_TOKENS 32
#define EACH_STAGE for (int first = 0; first < TILE_TOKENS; first += SUM_TOKENS)
#define SHARED_FLOATS (8 * BUFFER)

#define NORM_PARAM const GLOBAL float *RESTRICT undo,

// where chunk 0 … 3 of eight halves of a row lies, in chunks: neither the stores nor the loads of eight neighbouring items meet in a bank
INLINE int chunk_at(int row, int chunk) { return (row / 2 * 2 + ((row ^ row >> 2) & 1)) * 4 + (chunk ^ (row >> 3 & 1) << 1); }

INLINE void multiply_block(float* sums, const LOCAL uint4* weights, const LOCAL uint4* inputs, int lane) {
  const int group = lane / 4, pair = lane % 4;
  uint4 low[M_TILES], high[M_TILES];
  UNROLL for (int m = 0; m < M_TILES; m++) {
    low[m] = weights[chunk_at(16 * m + group, pair)];
    high[m] = weights[chunk_at(16 * m + group + 8, pair)];
  }
  UNROLL for (int n = 0; n < N_TILES; n++) {
    const uint4 x = inputs[chunk_at(8 * n + group, pair)];
    UNROLL for (int m = 0; m < M_TILES; m++) {
      float* sum = sums + 4 * (m * N_TILES + n);
      mma_m16n8k16(sum, low[m].x, high[m].x, low[m].y, high[m].y, x.x, x.y);
      mma_m16n8k16(sum, low[m].z, high[m].z, low[m].w, high[m].w, x.z, x.w);
    }
  }
}

INLINE void fetch_inputs(uint4* held, const GLOBAL f16* x, int token, int b) {
  UNROLL for (int h = 0; h < INPUTS_HELD; h++) {
    const int i = item_id() + h * ITEMS, t = token + i / 4;
    held[h] = i < 4 * TILE_TOKENS && t < TOKENS ? ((const GLOBAL uint4*)(x + (long)t * COLS))[4 * b + i % 4] : make_uint4(0, 0, 0, 0);
  }
}

INLINE void lay_inputs(LOCAL uint4* to, const uint4* held) {
  UNROLL for (int h = 0; h < INPUTS_HELD; h++) {
    const int i = item_id() + h * ITEMS;
    if (i < 4 * TILE_TOKENS) to[chunk_at(i / 4, i % 4)] = held[h];
  }
}

// pieces of the weights of block b: how a format cuts them is in format.h
#define FETCH_WEIGHTS(b)                                                                                   \
  UNROLL for (int h = 0; h < PIECES_HELD; h++) {                                                           \
    const int i = item + h * ITEMS, slot = i / PIECES;                                                     \
    if (i < SLOTS * PIECES && GROUP_OF(slot) * GROUP_ROWS < rows)                                          \
      pieces[h] = PIECE_OF(PART_OF(slot), GROUP_OF(slot), b, i % PIECES);                                  \
  }

#define LAY_WEIGHTS(to)                                                                                    \
  UNROLL for (int h = 0; h < PIECES_HELD; h++) {                                                           \
    const int i = item + h * ITEMS, slot = i / PIECES;                                                     \
    if (i < SLOTS * PIECES && GROUP_OF(slot) * GROUP_ROWS < rows) LAY_OF(PART_OF(slot), pieces[h], (to) + 64 * slot, i % PIECES); \
  }

#define MULTIPLY                                                                                           \
  const int item = item_id(), lane = item % 32, row_warp = item / 32 % ROW_WARPS, token_warp = item / 32 / ROW_WARPS; \
  LOCAL uint4* buffers = (LOCAL uint4*)shared;                                                             \
  const GLOBAL f16* halves = (const GLOBAL f16*)x;                                                         \
  float sums[4 * M_TILES * N_TILES];                                                                       \
  Quad pieces[PIECES_HELD];                                                                                \
  uint4 inputs[INPUTS_HELD];                                                                               \
  UNROLL for (int i = 0; i < 4 * M_TILES * N_TILES; i++) sums[i] = 0;                                      \
  FETCH_WEIGHTS(0)                                                                                         \
  fetch_inputs(inputs, halves, token, 0);                                                                  \
  for (int b = 0; b < COLS / 32; b++) {                                                                    \
    LOCAL uint4* buffer = buffers + b % 2 * BUFFER;                                                        \
    LAY_WEIGHTS(buffer)                                                                                    \
    lay_inputs(buffer + 4 * TILE_ROWS, inputs);                                                            \
    sync_group();                                                                                          \
    const int next = min(b + 1, COLS / 32 - 1);                                                            \
    FETCH_WEIGHTS(next)                                                                                    \
    fetch_inputs(inputs, halves, token, next);                                                             \
    multiply_block(sums, buffer + 64 * M_TILES * row_warp, buffer + 4 * TILE_ROWS + 32 * N_TILES * token_warp, lane); \
  }

#define UNDO(t) (token + (t) < TOKENS ? undo[token + (t)] : 0.0f)

#define GATHER(first)                                                                                      \
  sync_group();                                                                                            \
  UNROLL for (int n = 0; n < N_TILES; n++) {                                                               \
    const int column = 8 * (N_TILES * token_warp + n) - (first);                                           \
    if (column >= 0 && column < SUM_TOKENS) {                                                              \
      const int t = column + lane % 4 * 2;                                                                 \
      const float even = UNDO((first) + t), odd = UNDO((first) + t + 1);                                   \
      LOCAL float* to = shared + t * SUM_PITCH + 16 * M_TILES * row_warp + lane / 4;                       \
      UNROLL for (int m = 0; m < M_TILES; m++) {                                                           \
        const float* sum = sums + 4 * (m * N_TILES + n);                                                   \
        to[16 * m] = sum[0] * even, to[16 * m + SUM_PITCH] = sum[1] * odd;                                 \
        to[16 * m + 8] = sum[2] * even, to[16 * m + 8 + SUM_PITCH] = sum[3] * odd;                         \
      }                                                                                                    \
    }                                                                                                      \
  }
