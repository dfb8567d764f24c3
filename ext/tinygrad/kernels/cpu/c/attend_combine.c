// The splits of attend_decode.c put together, where each was a task of its own.

void ENTRY(f32* restrict out, const f32* restrict partial, long core_id) {
  for (int head = TOKENS * KV_HEADS * HEADS * core_id / TASKS; head < TOKENS * KV_HEADS * HEADS * (core_id + 1) / TASKS; head++)
    combine_splits(out + head * HEAD_DIM, partial + (head / HEADS * SPLITS * HEADS + head % HEADS) * PART);
}
