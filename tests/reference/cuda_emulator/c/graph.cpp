// CUDA graphs: nodes with the nodes that they depend on, run in an order that respects that and, by settings.order, little else.
#include "module.h"

enum Kind { KERNEL, COPY, SET, RECORD, EMPTY };
struct KernelParams {
  Function* function;
  unsigned grid[3], block[3], shared;
  void **parameters, **extra;
};
struct CopyParams {  // CUDA_MEMCPY3D
  size_t from_x, from_y, from_z, from_lod;
  int from_type;  // 1 host, 2 device
  const void* from_host;
  CUdeviceptr from_device;
  void *from_array, *reserved;
  size_t from_pitch, from_height;
  size_t to_x, to_y, to_z, to_lod;
  int to_type;
  void* to_host;
  CUdeviceptr to_device;
  void *to_array, *reserved_too;
  size_t to_pitch, to_height;
  size_t width, height, depth;
};
static_assert(sizeof(CopyParams) == 200, "");
struct SetParams {  // CUDA_MEMSET_NODE_PARAMS
  CUdeviceptr to;
  size_t pitch;
  unsigned value, element_bytes;
  size_t width, height;
};

struct Node {
  Kind kind;
  KernelParams kernel;
  char* arguments;  // packed, the node's own
  CopyParams copy;
  SetParams set;
  Event* event;
  int n_needs;
  Node** needs;  // nodes of the graph that was built
  Node* built;   // in an instance: the node of that graph
};
struct Graph {
  size_t count, capacity;
  Node** nodes;
};
struct Instance {
  size_t count;
  Node* nodes;  // in the order in which they run
};

static CUresult fill_kernel(Node* node, const KernelParams* params) {
  char* arguments;
  if (!params || !params->function) return INVALID_VALUE;
  if (params->shared) return report("a graph's kernel: the emulator has no dynamic shared memory"), INVALID_VALUE;
  if (CUresult status = pack_arguments(params->function, params->parameters, params->extra, &arguments)) return status;
  free(node->arguments);
  node->kind = KERNEL, node->kernel = *params, node->arguments = arguments;
  node->kernel.parameters = node->kernel.extra = nullptr;
  return SUCCESS;
}
static CUresult fill_copy(Node* node, const CopyParams* params) {
  if (!params) return INVALID_VALUE;
  const int from = params->from_type, to = params->to_type;
  if (from < 1 || from > 2 || to < 1 || to > 2) return report("a graph's copy: only host and device memory are emulated"), INVALID_VALUE;
  node->kind = COPY, node->copy = *params;
  return SUCCESS;
}
static CUresult fill_set(Node* node, const SetParams* params) {
  const bool whole = params && (params->element_bytes == 1 || params->element_bytes == 2 || params->element_bytes == 4);
  if (!whole) return INVALID_VALUE;
  node->kind = SET, node->set = *params;
  return SUCCESS;
}

static void free_node(Node* node) {
  free(node->arguments);
  free(node->needs);
  free(node);
}

template <class Fill> static CUresult add(Node** out, Graph* graph, Node* const* needs, size_t n_needs, Fill fill) {
  Call call;
  if (call.status) return call.status;
  if (!graph) return INVALID_VALUE;
  for (size_t i = 0; i < n_needs; i++) {
    bool known = false;
    for (size_t j = 0; j < graph->count; j++) known |= graph->nodes[j] == needs[i];
    if (!known) return report("a node depends on one of another graph"), INVALID_VALUE;
  }
  Node* node = new_zeroed<Node>();
  node->kind = EMPTY;
  if (CUresult status = fill(node)) {
    free_node(node);
    return status;
  }
  node->n_needs = (int)n_needs;
  node->needs = (Node**)malloc((n_needs + 1) * sizeof(Node*));
  if (n_needs) memcpy(node->needs, needs, n_needs * sizeof(Node*));
  if (graph->count == graph->capacity)
    graph->nodes = (Node**)realloc(graph->nodes, (graph->capacity = 2 * graph->capacity + 64) * sizeof(Node*));
  graph->nodes[graph->count++] = node;
  *out = node;
  return SUCCESS;
}

API CUresult cuGraphCreate(Graph** graph, unsigned flags) {
  Call call(false);
  if (call.status || flags) return call.status ? call.status : (CUresult)INVALID_VALUE;
  *graph = new_zeroed<Graph>();
  return SUCCESS;
}
API CUresult cuGraphDestroy(Graph* graph) {
  Call call(false);
  if (!graph) return INVALID_VALUE;
  for (size_t i = 0; i < graph->count; i++) free_node(graph->nodes[i]);
  free(graph->nodes);
  free(graph);
  return SUCCESS;
}
API CUresult cuGraphAddKernelNode(Node** out, Graph* graph, Node* const* needs, size_t n, const KernelParams* params) {
  return add(out, graph, needs, n, [&](Node* node) { return fill_kernel(node, params); });
}
API CUresult cuGraphAddKernelNode_v2(Node** out, Graph* graph, Node* const* needs, size_t n, const KernelParams* params) {
  return cuGraphAddKernelNode(out, graph, needs, n, params);  // two more fields, of libraries and contexts
}
API CUresult cuGraphAddMemcpyNode(Node** out, Graph* graph, Node* const* needs, size_t n, const CopyParams* params, void*) {
  return add(out, graph, needs, n, [&](Node* node) { return fill_copy(node, params); });
}
API CUresult cuGraphAddMemsetNode(Node** out, Graph* graph, Node* const* needs, size_t n, const SetParams* params, void*) {
  return add(out, graph, needs, n, [&](Node* node) { return fill_set(node, params); });
}
API CUresult cuGraphAddEmptyNode(Node** out, Graph* graph, Node* const* needs, size_t n) {
  return add(out, graph, needs, n, [](Node*) { return SUCCESS; });
}

API CUresult cuGraphAddEventRecordNode(Node** out, Graph* graph, Node* const* needs, size_t n, Event* event) {
  return add(out, graph, needs, n, [=](Node* node) { return node->kind = RECORD, node->event = event, event ? SUCCESS : INVALID_VALUE; });
}

// the next node that may run: the first one, the last one, or one that the seed picks
static size_t choose(const Graph* graph, const bool* done, uint64_t* random) {
  size_t chosen = graph->count, candidates = 0;
  for (size_t i = 0; i < graph->count; i++) {
    if (done[i]) continue;
    bool may = true;
    for (int j = 0; j < graph->nodes[i]->n_needs; j++)
      for (size_t k = 0; k < graph->count; k++) may &= graph->nodes[k] != graph->nodes[i]->needs[j] || done[k];
    if (!may) continue;
    candidates++;
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    if (chosen == graph->count || settings.order == 1 || (settings.order > 1 && (*random >> 33) % candidates == 0)) chosen = i;
    if (settings.order == 0) break;
  }
  return chosen;
}

API CUresult cuGraphInstantiateWithFlags(Instance** out, Graph* graph, unsigned long) {
  Call call;
  if (call.status) return call.status;
  if (!graph) return INVALID_VALUE;
  Instance* instance = new_zeroed<Instance>();
  instance->nodes = (Node*)calloc(graph->count + 1, sizeof(Node));
  bool* done = (bool*)calloc(graph->count + 1, 1);
  uint64_t random = settings.order;
  for (; instance->count < graph->count; instance->count++) {
    const size_t next = choose(graph, done, &random);  // always there: a node depends on older ones only
    done[next] = true;
    Node* copy = instance->nodes + instance->count;
    *copy = *graph->nodes[next];
    copy->built = graph->nodes[next], copy->needs = nullptr;
    if (copy->kind != KERNEL) continue;
    const size_t bytes = (size_t)copy->kernel.function->kernel->argument_bytes + 8;
    copy->arguments = (char*)malloc(bytes);
    memcpy(copy->arguments, copy->built->arguments, bytes);
  }
  free(done);
  *out = instance;
  return SUCCESS;
}
API CUresult cuGraphInstantiate_v2(Instance** out, Graph* graph, Node**, char*, size_t) { return cuGraphInstantiateWithFlags(out, graph, 0); }
API CUresult cuGraphExecDestroy(Instance* instance) {
  Call call(false);
  if (!instance) return INVALID_VALUE;
  for (size_t i = 0; i < instance->count; i++) free(instance->nodes[i].arguments);
  free(instance->nodes);
  free(instance);
  return SUCCESS;
}

template <class Fill> static CUresult update(Instance* instance, Node* built, Kind kind, Fill fill) {
  Call call;
  if (call.status) return call.status;
  if (!instance || !built) return INVALID_VALUE;
  for (size_t i = 0; i < instance->count; i++)
    if (instance->nodes[i].built == built) return instance->nodes[i].kind == kind ? fill(instance->nodes + i) : (CUresult)INVALID_VALUE;
  return INVALID_VALUE;
}
API CUresult cuGraphExecKernelNodeSetParams(Instance* instance, Node* node, const KernelParams* params) {
  return update(instance, node, KERNEL, [&](Node* own) { return fill_kernel(own, params); });
}
API CUresult cuGraphExecKernelNodeSetParams_v2(Instance* instance, Node* node, const KernelParams* params) {
  return cuGraphExecKernelNodeSetParams(instance, node, params);
}
API CUresult cuGraphExecMemcpyNodeSetParams(Instance* instance, Node* node, const CopyParams* params, void*) {
  return update(instance, node, COPY, [&](Node* own) { return fill_copy(own, params); });
}
API CUresult cuGraphExecMemsetNodeSetParams(Instance* instance, Node* node, const SetParams* params, void*) {
  return update(instance, node, SET, [&](Node* own) { return fill_set(own, params); });
}

static CUresult run_copy(const CopyParams& c) {
  for (size_t z = 0; z < c.depth; z++)
    for (size_t y = 0; y < c.height; y++) {
      const size_t from = ((c.from_z + z) * c.from_height + c.from_y + y) * c.from_pitch + c.from_x;
      const size_t to = ((c.to_z + z) * c.to_height + c.to_y + y) * c.to_pitch + c.to_x;
      const char* source = c.from_type == 1 ? (const char*)c.from_host + from : (const char*)c.from_device + from;
      char* target = c.to_type == 1 ? (char*)c.to_host + to : (char*)c.to_device + to;
      const bool inside = (c.from_type == 1 || is_device_memory((CUdeviceptr)source, c.width)) &&
                          (c.to_type == 1 || is_device_memory((CUdeviceptr)target, c.width));
      if (!inside) return report("a graph's copy of %zu bytes leaves the allocation", c.width), remember(ILLEGAL_ADDRESS);
      memmove(target, source, c.width);
    }
  return SUCCESS;
}
static CUresult run_set(const SetParams& s) {
  for (size_t y = 0; y < s.height; y++)
    for (size_t x = 0; x < s.width; x++) {
      const CUdeviceptr to = s.to + y * s.pitch + x * s.element_bytes;
      if (!is_device_memory(to, s.element_bytes)) return report("a graph's memset leaves the allocation"), remember(ILLEGAL_ADDRESS);
      memcpy((void*)to, &s.value, s.element_bytes);
    }
  return SUCCESS;
}

API CUresult cuGraphLaunch(Instance* instance, void*) {
  Call call;
  if (call.status) return call.status;
  if (!instance) return INVALID_VALUE;
  for (size_t i = 0; i < instance->count; i++) {
    const Node& node = instance->nodes[i];
    CUresult status = SUCCESS;
    if (node.kind == KERNEL) status = launch(node.kernel.function, node.kernel.grid, node.kernel.block, node.arguments);
    if (node.kind == COPY) status = run_copy(node.copy);
    if (node.kind == SET) status = run_set(node.set);
    if (node.kind == RECORD) record(node.event);
    if (status) return status;
  }
  return SUCCESS;
}
API CUresult cuGraphUpload(Instance*, void*) {
  Call call;
  return call.status;
}
