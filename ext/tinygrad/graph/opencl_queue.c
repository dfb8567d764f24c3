// Enqueues a captured graph of OpenCL kernels: sets what changed, then hands every kernel to the driver's queue, in order, waiting for nothing.
//
// Freestanding like replay.c: the driver's functions come as addresses. The entry is the only function.

typedef unsigned long long u64;
typedef int (*SetArg)(u64 kernel, unsigned index, u64 size, const void *value);
typedef int (*Enqueue)(u64 queue, u64 kernel, unsigned dims, const u64 *offset, const u64 *global, const u64 *local, unsigned waits, const void *, void *);

// ---- what opencl_queue.py mirrors; every field is 8 bytes

typedef struct {
  u64 kernel, dims, global[3], local[3];
} Launch;

typedef struct {  // argument `index` of `kernel` becomes values[value], `size` bytes of it
  u64 kernel, index, size, value;
} Patch;

typedef struct {
  u64 queue, set_arg, enqueue, n_launches, n_patches;
  const Launch *launches;
  const Patch *patches;
} Graph;

int run(const Graph *graph, const u64 *values) {  // the driver's first complaint, or 0
  for (u64 i = 0; i < graph->n_patches; i++) {
    const Patch *p = graph->patches + i;
    const int status = ((SetArg)graph->set_arg)(p->kernel, (unsigned)p->index, p->size, values + p->value);
    if (status) return status;
  }
  for (u64 i = 0; i < graph->n_launches; i++) {
    const Launch *l = graph->launches + i;
    const int status = ((Enqueue)graph->enqueue)(graph->queue, l->kernel, (unsigned)l->dims, 0, l->global, l->local, 0, 0, 0);
    if (status) return status;
  }
  return 0;
}
