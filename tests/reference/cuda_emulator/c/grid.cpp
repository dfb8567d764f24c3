#include "grid.h"

#include "settings.h"

enum { MAX_WORKERS = 64, FEW_THREADS = 512 };  // a grid of fewer threads is done before another core has woken

static pthread_mutex_t lock;
static pthread_cond_t work_came, work_ended;
static struct {
  Launch* launch;
  unsigned long number;  // of launches so far
  int helpers, running, pid;
} pool;
static CudaWorker* workers[MAX_WORKERS];

static void run_blocks(CudaWorker* worker, Launch* launch) {
  for (;;) {
    const unsigned long n = __atomic_fetch_add(&launch->next_block, 1, __ATOMIC_RELAXED);
    if (n >= launch->n_blocks || __atomic_load_n(&launch->failure, __ATOMIC_RELAXED)) return;
    // at random: a stride that is coprime with the number of blocks meets each of them once
    unsigned long block = n;
    if (settings.order == 1)
      block = launch->n_blocks - 1 - n;
    else if (settings.order > 1) {
      unsigned long stride = settings.order % launch->n_blocks | 1;
      for (unsigned long a = stride, b = launch->n_blocks; a != 1; a = stride, b = launch->n_blocks) {
        while (b) {
          const unsigned long rest = a % b;
          a = b, b = rest;
        }
        if (a == 1) break;
        stride += 2;
      }
      block = (n * stride + settings.order) % launch->n_blocks;
    }
    run_block(worker, launch, block);
  }
}

static void* helper(void* worker) {
  unsigned long seen = 0;
  for (;;) {
    pthread_mutex_lock(&lock);
    while (pool.number == seen || !pool.launch) pthread_cond_wait(&work_came, &lock);
    seen = pool.number;
    Launch* launch = pool.launch;
    pool.running++;
    pthread_mutex_unlock(&lock);
    run_blocks((CudaWorker*)worker, launch);
    pthread_mutex_lock(&lock);
    if (!--pool.running) pthread_cond_broadcast(&work_ended);
    pthread_mutex_unlock(&lock);
  }
}

static void start_helpers(int wanted) {
  if (pool.pid != getpid()) {  // a fork keeps no threads
    pool.pid = getpid();
    pool.helpers = pool.running = 0;
    memset(&lock, 0, sizeof lock), memset(&work_came, 0, sizeof work_came), memset(&work_ended, 0, sizeof work_ended);
  }
  while (pool.helpers < wanted) {
    const int n = ++pool.helpers;
    if (!workers[n]) workers[n] = new_worker();
    pthread_t thread;
    if (pthread_create(&thread, nullptr, helper, workers[n])) report("cannot start a worker"), __builtin_trap();
  }
}

void run_grid(Launch* launch) {
  if (!workers[0]) workers[0] = new_worker();
  const unsigned long threads = launch->n_blocks * launch->block.x * launch->block.y * launch->block.z;
  const long cores = settings.workers < MAX_WORKERS ? settings.workers : MAX_WORKERS;
  const bool together = cores > 1 && launch->n_blocks > 1 && threads >= FEW_THREADS;
  if (together) {
    start_helpers((int)cores - 1);
    pthread_mutex_lock(&lock);
    pool.launch = launch, pool.number++;
    pthread_cond_broadcast(&work_came);
    pthread_mutex_unlock(&lock);
  }
  run_blocks(workers[0], launch);
  if (together) {
    pthread_mutex_lock(&lock);
    pool.launch = nullptr;  // a helper that wakes late finds nothing
    while (pool.running) pthread_cond_wait(&work_ended, &lock);
    pthread_mutex_unlock(&lock);
  }
}
