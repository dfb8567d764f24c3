// A mixture's routing, by one work-group: the USED likeliest of EXPERTS experts of each token by the router's logits, of equal ones the first, with their shares (a
// softmax over all, scaled to a sum of 1 where NORMALIZE); and the pairs of a token and an expert in an order in which TILE neighbours have one expert.
//   rows: the token of each place of that order, -1 where there is none; experts: of each TILE places, -1: no pair there; place_of: by pair

#define PAIRS (TOKENS * USED)

KERNEL(ITEMS) ENTRY(GLOBAL float* RESTRICT shares, GLOBAL int* RESTRICT rows, GLOBAL int* RESTRICT experts, GLOBAL int* RESTRICT place_of,
                    const GLOBAL float* RESTRICT logits) {
  LOCAL_ARRAY(int, ids, PAIRS);
  LOCAL_ARRAY(int, starts, EXPERTS + 1);  // of each expert's places, in tiles
  const int item = item_id();
  for (int t = item; t < TOKENS; t += ITEMS) {
    float chances[EXPERTS], best = logits[t * EXPERTS], total = 0, chosen = 0;
    for (int e = 1; e < EXPERTS; e++) best = max(best, logits[t * EXPERTS + e]);
    for (int e = 0; e < EXPERTS; e++) chances[e] = exp(logits[t * EXPERTS + e] - best), total += chances[e];
    for (int k = 0; k < USED; k++) {
      int top = 0;
      for (int e = 1; e < EXPERTS; e++) top = chances[e] > chances[top] ? e : top;
      ids[t * USED + k] = top;
      shares[t * USED + k] = chances[top] / total;
      chosen += chances[top] / total;
      chances[top] = -1.0f;
    }
    if (NORMALIZE)
      for (int k = 0; k < USED; k++) shares[t * USED + k] /= chosen;
  }
  for (int i = item; i < PLACES; i += ITEMS) rows[i] = -1;
  for (int i = item; i < PLACES / TILE; i += ITEMS) experts[i] = -1;
  sync_group();
  for (int e = item; e < EXPERTS; e += ITEMS) {
    int count = 0;
    for (int p = 0; p < PAIRS; p++) count += ids[p] == e;
    starts[e + 1] = (count + TILE - 1) / TILE;
  }
  sync_group();
  if (item == 0) {
    starts[0] = 0;
    for (int e = 0; e < EXPERTS; e++) starts[e + 1] += starts[e];
  }
  sync_group();
  for (int e = item; e < EXPERTS; e += ITEMS) {
    int place = starts[e] * TILE;
    for (int i = starts[e]; i < starts[e + 1]; i++) experts[i] = e;
    for (int p = 0; p < PAIRS; p++)
      if (ids[p] == e) {
        rows[place] = p / USED;
        place_of[p] = place++;
      }
  }
}
