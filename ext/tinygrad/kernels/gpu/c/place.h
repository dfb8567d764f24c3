// Where a pass's tokens stand. In a pass over several conversations (ROW_TABLE) a table says so, int32 (2, TOKENS): slots, then positions, -1 for a token that is
// none; otherwise they follow each other from start_pos on. Such a token is computed as if it stood at position 0, and nothing of it is stored.

#if ROW_TABLE
#define PLACE_PARAM const GLOBAL int* RESTRICT table
#define SLOT_OF(t) max(table[t], 0)
#define POSITION_OF(t) max(table[TOKENS + (t)], 0)
#define IS_THERE(t) (table[TOKENS + (t)] >= 0)
#else
#define PLACE_PARAM int start_pos
#define SLOT_OF(t) 0
#define POSITION_OF(t) (start_pos + (t))
#define IS_THERE(t) 1
#endif
