// replay.c under ThreadSanitizer: real threads, graphs that come and go, results checked. Arguments: threads, graphs, spin in ns, adaptive.
#include REPLAY_C

typedef unsigned long Thread;
int pthread_create(Thread *, const void *, void *(*)(void *), void *);
int pthread_join(Thread, void **);
int printf(const char *, ...);
long syscall(long, ...);
int clock_gettime(int, void *);
void *memset(void *, int, unsigned long);
int atoi(const char *);
int usleep(unsigned);
int sched_yield(void);

enum { TASKS = 6, KERNELS = 24 };
static Pool pool;
static unsigned buffers[2][TASKS];

static void *helper(void *index) {
  entry(HELP, &pool, index, 0);
  return 0;
}

static void one_sum(unsigned *out, unsigned *in, u64 core, u64 delay) {
  out[core] = in[core] + in[(core + 1) % TASKS];
  for (volatile u64 i = 0; i < delay; i++) {}
}

static void all_sums(unsigned *out, unsigned *in) {
  for (int i = 0; i < TASKS; i++) out[i] = in[i] + in[(i + 1) % TASKS];
}

static int replay_and_check(Graph *g, int round) {
  unsigned expected[TASKS], next[TASKS];
  for (int i = 0; i < TASKS; i++) {
    expected[i] = buffers[0][i] = i + round;
    buffers[1][i] = 0;
  }
  for (int k = 0; k < KERNELS; k++) {
    for (int i = 0; i < TASKS; i++) next[i] = expected[i] + expected[(i + 1) % TASKS];
    for (int i = 0; i < TASKS; i++) expected[i] = next[i];
  }
  STORE_RELAXED(g->last_ns, 1000000);  // worth waking helpers and looking at CPU time
  STORE_RELAXED(pool.offered, round % 2);
  entry(REPLAY, &pool, g, 0);
  for (int i = 0; i < TASKS; i++)
    if (buffers[0][i] != expected[i]) return 0;
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  u64 threads = atoi(argv[1]);
  pool.word = WORD(0, FINISHED, 0);
  pool.syscall = (Syscall)syscall;
  pool.clock = (Clock)clock_gettime;
  pool.monotonic_clock = 1;
  pool.cpu_clock = 3;
  pool.futex_number = FUTEX_NUMBER;
  pool.yield = sched_yield;
  pool.spin_ns = atoi(argv[3]);
  pool.adaptive = atoi(argv[4]);
  pool.backoff_ns = 1000;
  pool.active = pool.helpers = threads - 1;
  Thread handles[64];
  for (u64 i = 1; i < threads; i++) pthread_create(&handles[i], 0, helper, (void *)i);

  for (int count = 0; count < atoi(argv[2]); count++) {
    Kernel kernels[KERNELS];
    Step steps[KERNELS];
    u64 arguments[KERNELS][6];
    Graph g = {.kernels = kernels, .steps = steps, .n_kernels = KERNELS, .parallel = 1};
    for (int k = 0; k < KERNELS; k++) {
      int whole = k % 5 >= 3;
      u64 these[6] = {(u64)buffers[1 - k % 2], (u64)buffers[k % 2], 0, count % 4 ? 0 : 200, 0, 0};
      for (int i = 0; i < 6; i++) arguments[k][i] = these[i];
      kernels[k] = (Kernel){whole ? (u64)all_sums : (u64)one_sum, arguments[k], 6, whole ? ~0ull : 2, whole ? 1 : TASKS};
      if (k % 5 == 4) steps[g.n_steps - 1].kernels++;
      else steps[g.n_steps++] = (Step){k, 1, whole ? 1 : TASKS, 1};
    }
    for (int round = 0; round < 50; round++) {
      if (!replay_and_check(&g, round)) return printf("wrong\n"), 1;
      if (round % 16 == 0) usleep(round * 10);
    }
    while (entry(IN_USE, &pool, &g, 0)) {}
    // from here on a helper that looks at it is a race
    memset(kernels, 0, sizeof kernels);
    memset(steps, 0, sizeof steps);
    memset(&g, 0, sizeof g);
  }
  entry(STOP, &pool, 0, 0);
  for (u64 i = 1; i < threads; i++) pthread_join(handles[i], 0);
  printf("right\n");
  return 0;
}
