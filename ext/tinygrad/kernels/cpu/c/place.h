// Where token t of a pass stands: one after another from start_pos on in one cache, or, where ROWS, each at a position of its own in a slot of its own
// of an arena of caches. places: the slots of all tokens, then their positions; a token without one (-1) is not there.

#if ROWS
#define PLACE const i32* restrict places
#define POSITION(t) ((long)places[TOKENS + (t)])
#define SLOT(t) ((long)places[t] * KV_HEADS * CACHE_ROWS * CACHE_ROW)  // where its cache begins
#define IS_THERE(t) (places[TOKENS + (t)] >= 0)
#else
#define PLACE long start_pos
#define POSITION(t) (start_pos + (t))
#define SLOT(t) 0L
#define IS_THERE(t) 1
#endif
