#include "fibers.h"

#include "settings.h"

// saves the registers that a callee keeps on the running stack, and goes on where another stack was left
extern "C" void cuda_switch_stack(void** save, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.type cuda_switch_stack, @function
cuda_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");
enum { SAVED_WORDS = 7, RETURN_WORD = 6 };
#else
asm(R"(
.text
.type cuda_switch_stack, %function
cuda_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
enum { SAVED_WORDS = 20, RETURN_WORD = 11 };
#endif

struct CudaWorker {
  CudaThread* stacks[MAX_THREADS];  // every stack that was made; at most one per thread of a block
  int n_stacks;
  CudaThread* free_stacks;
  void* main_stack_pointer;
  // the block that runs
  Launch* launch;
  uint3 block_index;
  unsigned n_threads, started, finished, at_barrier, n_ready;
  CudaThread* threads[MAX_THREADS];  // by their number, once started
  CudaThread* ready[MAX_THREADS];    // may go on; the last one is the next
  unsigned order[MAX_THREADS];       // in which threads start, and leave a barrier
  unsigned arrived[MAX_THREADS / WARP];
  uint64_t random;
};

static unsigned random_below(CudaWorker* w, unsigned n) {
  w->random ^= w->random << 13, w->random ^= w->random >> 7, w->random ^= w->random << 17;
  return (unsigned)(w->random >> 33) % n;
}

static void shuffle(CudaWorker* w) {
  for (unsigned i = w->n_threads - 1; i > 0; i--) {
    const unsigned j = random_below(w, i + 1), other = w->order[j];
    w->order[j] = w->order[i], w->order[i] = other;
  }
}

static void fiber_main();
extern const CudaServices services;

static void empty_stack(CudaThread* t) {
  // stacks lie a multiple of their size apart; begun at different offsets, they do not fall on the same lines of the caches
  const uintptr_t offset = ((uintptr_t)t / STACK_BYTES % 61) * 64;
  void** top = (void**)(((uintptr_t)t - offset) & ~(uintptr_t)63) - 1;
  t->stack_pointer = top - SAVED_WORDS - (SAVED_WORDS % 2 == 0);
  memset(t->stack_pointer, 0, SAVED_WORDS * sizeof(void*));
  ((void**)t->stack_pointer)[RETURN_WORD] = (void*)fiber_main;
}

static CudaThread* free_stack(CudaWorker* w) {
  if (CudaThread* t = w->free_stacks) {
    w->free_stacks = t->next_free;
    return t;
  }
  const size_t room = 2 * STACK_BYTES;
  char* memory = (char*)mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) report("no memory for the stacks of a block"), __builtin_trap();
  char* stack = (char*)(((uintptr_t)memory + STACK_BYTES - 1) & ~(uintptr_t)(STACK_BYTES - 1));
  if (stack > memory) munmap(memory, (size_t)(stack - memory));
  if (stack + STACK_BYTES < memory + room) munmap(stack + STACK_BYTES, (size_t)(memory + room - stack - STACK_BYTES));
  mprotect(stack, 4096, PROT_NONE);  // an overflow is a fault
  CudaThread* t = (CudaThread*)(stack + STACK_BYTES - THREAD_BYTES);
  t->worker = w, t->services = &services;
  w->stacks[w->n_stacks++] = t;
  empty_stack(t);
  return t;
}

static void begin(CudaWorker* w, CudaThread* t) {
  const unsigned number = w->order[w->started++];
  const uint3 size = w->launch->block;
  t->number = number, t->lane = number % WARP;
  t->index = {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
  t->block = w->block_index, t->block_dim = size, t->grid_dim = w->launch->grid;
  t->waiting = 0;
  w->threads[number] = t;
}

static void describe(CudaThread* t, char* text, size_t size) {
  snprintf(text, size, "thread (%u, %u, %u)", t->index.x, t->index.y, t->index.z);
}

static void go_to(CudaThread* from, CudaThread* to) {
  if (from != to) cuda_switch_stack(&from->stack_pointer, to->stack_pointer);
}

[[noreturn]] static void fail(CudaThread* t, int status, const char* text) {
  leave_kernel();
  CudaWorker* w = t->worker;
  const uint3 b = w->block_index;
  report("kernel %s, block (%u, %u, %u): %s", w->launch->name, b.x, b.y, b.z, text);
  __atomic_store_n(&w->launch->failure, status, __ATOMIC_RELAXED);
  void* nowhere;
  cuda_switch_stack(&nowhere, w->main_stack_pointer);
  __builtin_unreachable();
}

void end_launch(CudaThread* t, int status, const char* what) {
  char who[80], text[300];
  describe(t, who, sizeof who);
  snprintf(text, sizeof text, "%s %s", who, what);
  fail(t, status, text);
}
static void stop(CudaThread* t, const char* what) { end_launch(t, 719, what); }

static void deadlock(CudaThread* t) {
  CudaWorker* w = t->worker;
  CudaThread* waiting = nullptr;  // the first one, preferably in a warp operation
  for (unsigned i = 0; i < w->n_threads; i++) {
    CudaThread* other = w->threads[i];  // one that has ended may have left its stack to another
    if (other && other->number == i && other->waiting && (!waiting || other->waiting > waiting->waiting)) waiting = other;
  }
  char who[80], text[400];
  describe(waiting, who, sizeof who);
  if (waiting->waiting == 2) {
    unsigned missing = 0;
    for (unsigned lane = 0; lane < WARP; lane++) {
      const unsigned n = waiting->number / WARP * WARP + lane;
      const CudaThread* other = n < w->n_threads ? w->threads[n] : nullptr;
      const bool there = other && other->waiting == 2 && other->complete == waiting->complete && other->mask == waiting->mask;
      if (waiting->mask >> lane & 1 && !there) missing |= 1u << lane;
    }
    snprintf(text, sizeof text, "%s waits in %s (line %d) for lanes 0x%x of mask 0x%x, which never come", who, waiting->waits_in,
             waiting->line, missing, waiting->mask);
  } else
    snprintf(text, sizeof text, "%s waits at the barrier of line %d, which only %u of %u threads reach", who, waiting->line, w->at_barrier,
             w->n_threads);
  fail(t, 719, text);
}

// another thread goes on; returns when this one may. `done`: this one has ended, and its stack may serve the next
static void give_way(CudaThread* t, bool done) {
  CudaWorker* w = t->worker;
  const unsigned unstarted = w->n_threads - w->started;
  const bool random = settings.order > 1;
  if (random && w->n_ready > 1) {
    const unsigned i = random_below(w, w->n_ready);
    CudaThread* other = w->ready[i];
    w->ready[i] = w->ready[w->n_ready - 1], w->ready[w->n_ready - 1] = other;
  }
  if (w->n_ready && !(random && unstarted && random_below(w, 2))) {
    if (done) t->next_free = w->free_stacks, w->free_stacks = t;
    go_to(t, w->ready[--w->n_ready]);
  } else if (unstarted) {
    CudaThread* other = done ? t : free_stack(w);
    begin(w, other);
    go_to(t, other);
  } else if (w->finished == w->n_threads) {
    t->next_free = w->free_stacks, w->free_stacks = t;
    cuda_switch_stack(&t->stack_pointer, w->main_stack_pointer);
  } else
    deadlock(t);
}

static void fiber_main() {
  for (;;) {
    CudaThread* t = cuda_self();
    CudaWorker* w = t->worker;
    w->launch->kernel->call(w->launch->arguments);
    w->finished++;
    give_way(t, true);
  }
}

static void barrier(CudaThread* t, int line, int column) {
  CudaWorker* w = t->worker;
  t->waiting = 1, t->line = line, t->column = column, t->waits_in = "__syncthreads";
  w->at_barrier++;
  if (w->finished) deadlock(t);
  if (w->at_barrier == w->n_threads) {
    for (unsigned i = 0; i < w->n_threads; i++) {
      if (w->threads[i]->line != line || w->threads[i]->column != column) {
        char text[200];
        snprintf(text, sizeof text, "threads meet at different barriers, of lines %d and %d", w->threads[i]->line, line);
        fail(t, 719, text);
      }
      w->threads[i]->waiting = 0;
    }
    if (settings.order > 1) shuffle(w);
    w->at_barrier = 0;
    for (unsigned i = w->n_threads; i-- > 0;) w->ready[w->n_ready++] = w->threads[w->order[i]];
  }
  give_way(t, false);
}

static void warp(CudaThread* t, unsigned mask, CudaComplete complete, void* operand, const char* name, int line) {
  CudaWorker* w = t->worker;
  const unsigned first = t->number / WARP * WARP;
  unsigned& arrived = w->arrived[first / WARP];
  if (!(mask >> t->lane & 1)) stop(t, "calls a warp operation whose mask leaves it out");
  t->waiting = 2, t->operand = operand, t->complete = complete, t->mask = mask, t->waits_in = name, t->line = line;
  arrived |= 1u << t->lane;
  bool all = (arrived & mask) == mask;
  for (unsigned lanes = all ? mask : 0; lanes; lanes &= lanes - 1) {
    const CudaThread* other = w->threads[first + (unsigned)__builtin_ctz(lanes)];
    all &= other->complete == complete && other->mask == mask;
  }
  if (!all) {
    give_way(t, false);
    return;
  }
  complete(w->threads + first, mask);
  arrived &= ~mask;
  for (unsigned i = 0; i < WARP; i++) {
    const unsigned lane = settings.order == 1 ? i : WARP - 1 - i;
    if (!(mask >> lane & 1)) continue;
    CudaThread* other = w->threads[first + lane];
    other->waiting = 0;
    if (other != t) w->ready[w->n_ready++] = other;
  }
}

const CudaServices services = {barrier, warp, stop};

CudaWorker* new_worker() { return (CudaWorker*)calloc(1, sizeof(CudaWorker)); }

extern "C" void* __tls_get_addr(size_t* module_and_offset);

void run_block(CudaWorker* w, Launch* launch, unsigned long block) {
  const uint3 grid = launch->grid;
  w->launch = launch;
  w->block_index = {(unsigned)(block % grid.x), (unsigned)(block / grid.x % grid.y), (unsigned)(block / grid.x / grid.y)};
  const unsigned n = launch->block.x * launch->block.y * launch->block.z;
  w->n_threads = n, w->started = w->finished = w->at_barrier = w->n_ready = 0;
  memset(w->arrived, 0, sizeof w->arrived);
  memset(w->threads, 0, n * sizeof w->threads[0]);
  for (unsigned i = 0; i < n; i++) w->order[i] = settings.order == 1 ? n - 1 - i : i;
  w->random = (settings.order + 1) * 0x9e3779b97f4a7c15u ^ (block + 1) * 0xbf58476d1ce4e5b9u;
  if (settings.order > 1) shuffle(w);
  if (launch->shared_bytes) {  // what a block does not write reads as NaN
    size_t module_and_offset[2] = {launch->tls_module, 0};
    memset(__tls_get_addr(module_and_offset), 0xff, launch->shared_bytes);
  }
  CudaThread* t = free_stack(w);
  begin(w, t);
  enter_kernel();
  cuda_switch_stack(&w->main_stack_pointer, t->stack_pointer);
  leave_kernel();
  if (!launch->failure) return;
  // left in the middle: every stack begins anew
  w->free_stacks = nullptr;
  for (int i = 0; i < w->n_stacks; i++) {
    empty_stack(w->stacks[i]);
    w->stacks[i]->next_free = w->free_stacks, w->free_stacks = w->stacks[i];
  }
}
