// Which positions a token sees, and its scores. SCALE holds the logarithm of e to base 2, so that the softmax takes powers of 2. WINDOW: a token sees itself and
// WINDOW - 1 before it; 0: all. Where CAPPED, SCALE is the scores' own and they become SOFTCAP * tanh(score / SOFTCAP) (arXiv 2408.00118), times that logarithm.

#if WINDOW
#define FIRST_SEEN(n) max((n) - WINDOW, 0)  // of a token that sees nothing from n on
#else
#define FIRST_SEEN(n) 0
#endif

#if CAPPED
INLINE float capped(float score) { return tanh(score / SOFTCAP) * (1.4426950408889634f * SOFTCAP); }
#else
INLINE float capped(float score) { return score; }
#endif
