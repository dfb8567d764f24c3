// Replays a captured graph of CUDA kernels: sets the nodes whose arguments changed, then hands the whole graph to the driver in one call.
//
// Freestanding like replay.c: the driver's functions come as addresses. The entry is the first function.

typedef unsigned long long u64;
typedef int (*SetCurrent)(u64 context);
typedef int (*SetParams)(u64 instance, u64 node, u64 params);
typedef int (*LaunchGraph)(u64 instance, u64 stream);

// ---- what cuda_queue.py mirrors; every field is 8 bytes

typedef struct {  // *word becomes values[value] + addend
  u64 *word;
  u64 value, addend;
} Patch;

typedef struct {  // a kernel that takes `count` patches, from `first` on; `stale` while the instance has not got what its words hold
  u64 node, params, first, count, stale;
} Node;

typedef struct {
  u64 context, instance, set_current, set_params, launch, n_nodes;
  Node *nodes;
  const Patch *patches;
} Graph;

// with `start`, replay; else set only. -> the driver's first complaint, or 0
int run(const Graph *graph, const u64 *values, int start) {
  int status = ((SetCurrent)graph->set_current)(graph->context);
  for (u64 i = 0; i < graph->n_nodes && !status; i++) {
    Node *n = graph->nodes + i;
    for (const Patch *p = graph->patches + n->first; p < graph->patches + n->first + n->count; p++) {
      const u64 word = values[p->value] + p->addend;
      if (*p->word != word) *p->word = word, n->stale = 1;
    }
    if (n->stale && !(status = ((SetParams)graph->set_params)(graph->instance, n->node, n->params))) n->stale = 0;
  }
  return status || !start ? status : ((LaunchGraph)graph->launch)(graph->instance, 0);
}
