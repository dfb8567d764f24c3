// What a matmul kernel reads: for one token the row itself, normed and quantised on the task's own stack (cheaper than another launch);
// for more, what prepare.c has laid out. INTEGER_INPUT and FLOAT_INPUT say which forms the kernel's weights need, NORM whether a norm is applied.

// A task's tokens: one of SPANS spans of TOKENS each, whose blocks of integers lie one after another. The tasks of a span come before those of the next.
#if SPANS > 1
#define SPAN_START (span_ * TOKENS)  // the span's first token
#define OF_SPAN                                         \
  const long span_ = core_id / TASKS;                   \
  core_id %= TASKS;                                     \
  if (INTEGER_INPUT) integer_input += span_ * (COLS / 32 * ACT_BLOCK(TOKENS)); \
  if (FLOAT_INPUT) float_input += span_ * (TOKENS * COLS * 4L);
#else
#define SPAN_START 0L
#define OF_SPAN
#endif

#if PREPARED  // rows of experts' pairs (rows.c)
#if INTEGER_INPUT && FLOAT_INPUT
#define INPUTS const u8 *restrict integer_input, const u8 *restrict float_input
#elif INTEGER_INPUT
#define INPUTS const u8* restrict integer_input
#else
#define INPUTS const u8* restrict float_input
#endif
#elif TOKENS == 1
#if NORM
#define INPUTS const f32 *restrict x, const f32 *restrict norm
#else
#define INPUTS const f32 *restrict x
#define norm ((const f32*)0)
#endif
#define PREPARE                                                                     \
  u8 integer_input[INTEGER_INPUT ? COLS / 32 * ACT_BLOCK(1) : 1] __attribute__((aligned(64))); \
  f32 normed_input[FLOAT_INPUT && NORM ? COLS : 1];                                 \
  const u8* float_input = (const u8*)(NORM ? normed_input : x);                     \
  if (INTEGER_INPUT) quantize_row(x, norm, EPS, COLS, integer_input, 1, 0);         \
  if (FLOAT_INPUT && NORM) norm_row(x, norm, EPS, COLS, normed_input);
#elif INTEGER_INPUT && FLOAT_INPUT
#define INPUTS const u8 *restrict integer_input, const u8 *restrict float_input
#define PREPARE OF_SPAN
#elif INTEGER_INPUT
#define INPUTS const u8 *restrict integer_input
#define PREPARE const u8* float_input = 0; OF_SPAN
#else
#define INPUTS const u8 *restrict float_input
#define PREPARE const u8* integer_input = 0; OF_SPAN
#endif
