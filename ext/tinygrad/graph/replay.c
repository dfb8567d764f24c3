// Replays a captured graph: every kernel in order, the tasks of one kernel shared out among the calling thread and its helpers.
//
// Freestanding: tinygrad's clang flags, no header, no libc, no global data; what the system must do (clock, futex) comes as addresses in Pool.
// The entry has to be the first function in .text, because tinygrad's loader knows a blob only by its beginning.
//
// One 64-bit word says everything about the run in progress: | run 22 | step 18 | claimed 12 | done 12 |.
// A thread claims a task by compare-and-swap of that word and therefore claims it in exactly the run and step it has looked at; finishing a
// task, claiming the next and, for the last one, moving the graph on to the next step are one compare-and-swap too. Nobody is ever waited
// for who has not claimed something: a helper that sleeps, or that the scheduler has taken away, costs nothing until it holds a task.

typedef unsigned long long u64;
typedef unsigned int u32;
typedef long (*Syscall)(long, long, long, long, long, long, long);
typedef int (*Clock)(int, u64 *);
typedef int (*Yield)(void);

// ---- what native.py, launch_plan.py and task_ranges.py mirror; every field is 8 bytes

#define WHOLE 65536
#define MOST_READS 6

typedef struct {   // one kernel of the graph
  u64 entry;       // address of its code
  u64 *arguments;  // `words` of them, the tail zeros
  u64 words;       // how many are passed: one of the widths in call()
  u64 core_slot;   // which argument is core_id
  u64 cores;       // it is run with core_id = 0 .. cores-1; 1 and core_slot = ~0 for a kernel without core_id
  u64 ranged;      // one call does several ids in a row: the first one, and above its 32 bits how many more
  u64 n_reads;     // how many of these there are: memory that is not written, whose bytes the tasks first/WHOLE to end/WHOLE read in their order
  struct {
    u64 argument, offset, nbytes, first, end;
  } reads[MOST_READS];
} Kernel;

typedef struct {  // what lies between two synchronisations: one kernel with several tasks, or a row of kernels with one task each
  u64 kernel, kernels;
  u64 claims;  // how many pieces can be claimed, at most 4095
  u64 chunk;   // core ids per claim
} Step;

typedef struct {  // *where = values[value] + addend: a variable or the address of an input buffer
  u64 *where, value, addend;
} Patch;

typedef struct {
  Kernel *kernels;
  Step *steps;
  Patch *patches;
  u64 n_kernels, n_steps, n_patches;
  u64 parallel;   // some step has more than one claim
  u64 *times;     // null, or n_kernels + 1 clock readings: the start, then the end of each kernel
  u64 last_ns;    // how long the last replay took
} Graph;

typedef struct {
  _Alignas(128) u32 futex;
  u64 stolen_ns;  // time in which this thread wanted to run and did not, since the caller last looked
  Graph *reading; // the graph whose descriptors this helper may be looking at: not to be freed
  u64 tasks, parks, yields;
} Slot;

typedef struct {
  u64 word;
  _Alignas(128) u64 parked;  // bit per thread: asleep, or about to be
  _Alignas(128) Graph *graph;
  u64 active;   // helpers 1..active take part in runs; the others sleep
  u64 stop;
  u64 float_mode;  // rounding and denormal control of the calling thread: results must not depend on who computes them
  Syscall syscall;
  Clock clock;
  u64 monotonic_clock, cpu_clock;  // their numbers; the second is the calling thread's CPU time
  u64 futex_number, spin_ns, adaptive;
  Yield yield;
  u64 offered;  // other threads of ours are about to send what the last run has computed: helpers let them run
  _Alignas(128) u64 busy;  // a replay is using the helpers
  u64 helpers;             // how many exist
  u64 wall_ns, stolen_ns;  // of the current observation window
  u64 backoff_ns, resume_at, calm_ns, mark;
  u64 runs, solo_runs, drops, returns;  // counters for tests and benches
  Slot slots[64];  // 0 is the calling thread
} Pool;

enum { REPLAY, HELP, STOP, IN_USE, SIZE };

static long replay(Pool *p, Graph *g, const u64 *values);
static long help(Pool *p, u64 me);
static long control(long op, Pool *p, Graph *g);

long entry(long op, Pool *p, void *graph_or_index, const u64 *values) {
  if (op == REPLAY) return replay(p, (Graph *)graph_or_index, values);
  if (op == HELP) return help(p, (u64)graph_or_index);
  return control(op, p, (Graph *)graph_or_index);
}

// ---- the word

#define INLINE static inline __attribute__((always_inline))
#define COLD static __attribute__((noinline))

#define ONE_CLAIMED (1ull << 12)
#define RUN(w) ((w) >> 42)
#define STEP(w) ((w) >> 24 & 0x3ffff)
#define CLAIMED(w) ((w) >> 12 & 0xfff)
#define DONE(w) ((w) & 0xfff)
#define WORD(run, step, claimed) ((u64)(run) << 42 | (u64)(step) << 24 | (u64)(claimed) << 12)
#define FINISHED 0x3ffffull  // the step after the last one

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_SEQ_CST)
#define LOAD_ACQUIRE(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define LOAD_RELAXED(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define STORE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_SEQ_CST)
#define STORE_RELAXED(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define SWAP_WORD(p, old, new) __atomic_compare_exchange_n(&(p)->word, &(old), (new), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#define MOST_FETCHED 131072          // bytes at a time: a share of the second-level cache
#define WINDOW_NS 30000000ull        // how much run time is judged at a time: a server that sends what a pass has computed is a burst, not a rival
#define FIRST_BACKOFF_NS 20000000ull // how long a dropped helper stays away at first; doubled at each failed return
#define LAST_BACKOFF_NS 500000000ull
#define CALM_NS 300000000ull  // after that much undisturbed run time the backoff starts anew
#define REPORT_NS 4000000ull  // in a long run, stolen time is reported this often
#define SHORT_NS 50000ull     // a replay shorter than this is not worth waking anybody
#define LONG_NS 200000ull     // one longer than this is worth asking what CPU time it took (some 300 ns)

INLINE void pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

INLINE u64 get_float_mode(void) {
#if defined(__x86_64__)
  return __builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
  u64 mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#else
  return 0;
#endif
}

INLINE void set_float_mode(u64 mode) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr((u32)mode);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" ::"r"(mode));
#endif
}

// ---- the system

static u64 read_clock(Pool *p, int id) {
  u64 t[2];  // struct timespec of a 64-bit system
  p->clock(id, t);
  return t[0] * 1000000000ull + t[1];
}
#define NOW(p) read_clock(p, (p)->monotonic_clock)
#define CPU_TIME(p) read_clock(p, (p)->cpu_clock)

#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129

INLINE int asleep_is_right(Pool *p, u64 me, u64 w) {
  return me && LOAD(p->stop) ? 0 : LOAD(p->word) == w || me > LOAD(p->active);
}

// Sleep until wake(), unless the word is no longer w and concerns this thread.
COLD void park(Pool *p, u64 me, u64 w) {
  Slot *s = &p->slots[me];
  u32 ticket = LOAD(s->futex);
  __atomic_fetch_or(&p->parked, 1ull << me, __ATOMIC_SEQ_CST);
  if (asleep_is_right(p, me, w)) {
    s->parks++;
    p->syscall(p->futex_number, (long)&s->futex, FUTEX_WAIT_PRIVATE, ticket, 0, 0, 0);
  }
  __atomic_fetch_and(&p->parked, ~(1ull << me), __ATOMIC_SEQ_CST);
}

COLD void wake_these(Pool *p, u64 mask) {
  for (; mask; mask &= mask - 1) {
    u64 bit = mask & -mask;
    if (!(__atomic_fetch_and(&p->parked, ~bit, __ATOMIC_SEQ_CST) & bit)) continue;
    Slot *s = &p->slots[__builtin_ctzll(bit)];
    __atomic_fetch_add(&s->futex, 1, __ATOMIC_SEQ_CST);
    p->syscall(p->futex_number, (long)&s->futex, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
  }
}

INLINE void wake(Pool *p, u64 mask) {
  mask &= LOAD(p->parked);
  if (mask) wake_these(p, mask);
}

// The threads to wake when there is work for them, a bit each: the calling one always, helpers only for a graph that outlasts their waking up.
INLINE u64 worth_waking(Pool *p, const Graph *g) {
  return LOAD_RELAXED(g->last_ns) > SHORT_NS ? (2ull << LOAD_RELAXED(p->active)) - 1 : 1;
}

// ---- running kernels

// A callee that takes fewer arguments than it is given ignores the rest (SysV and AAPCS64: the caller cleans up).
#define T1 u64
#define T2 T1, T1
#define T4 T2, T2
#define T6 T4, T2
#define T8 T4, T4
#define T12 T8, T4
#define T16 T8, T8
#define T32 T16, T16
#define T64 T32, T32
#define A2(i) a[i], a[i + 1]
#define A4(i) A2(i), A2(i + 2)
#define A8(i) A4(i), A4(i + 4)
#define A16(i) A8(i), A8(i + 8)
#define A32(i) A16(i), A16(i + 16)

static void call(u64 entry, u64 words, const u64 *a) {
  if (words <= 6) ((void (*)(T6))entry)(A4(0), A2(4));
  else if (words <= 8) ((void (*)(T8))entry)(A8(0));
  else if (words <= 12) ((void (*)(T12))entry)(A8(0), A4(8));
  else if (words <= 16) ((void (*)(T16))entry)(A16(0));
  else if (words <= 32) ((void (*)(T32))entry)(A32(0));
  else ((void (*)(T64))entry)(A32(0), A32(32));
}

// core_id is the one argument that differs between threads, so each has a copy of them all
static void run_cores(const Kernel *k, u64 first, u64 end) {
  u64 a[64];
  for (u64 i = 0; i < k->words; i++) a[i] = k->arguments[i];
  u64 step = k->ranged ? end - first : 1;
  for (u64 core = first; core < end; core += step) {
    a[k->core_slot] = core | (step - 1) << 32;
    call(k->entry, k->words, a);
  }
}

INLINE void run_kernel(const Kernel *k) {
  if (k->core_slot == ~0ull) call(k->entry, k->words, k->arguments);
  else run_cores(k, 0, k->cores);
}

static void run_claim(Pool *p, Graph *g, const Step *s, u64 claim, u64 size) {
  const Kernel *k = g->kernels + s->kernel;
  if (s->claims > 1) {
    u64 first = claim * s->chunk, end = first + size * s->chunk;
    run_cores(k, first, end < k->cores ? end : k->cores);
  } else if (!g->times) {
    for (u64 i = 0; i < s->kernels; i++) run_kernel(k + i);
  } else {
    for (u64 i = 0; i < s->kernels; i++) {
      run_kernel(k + i);
      g->times[s->kernel + i + 1] = NOW(p);
    }
  }
}

static void run_alone(Pool *p, Graph *g) {
  if (g->times) g->times[0] = NOW(p);
  for (u64 i = 0; i < g->n_kernels; i++) {
    run_kernel(g->kernels + i);
    if (g->times) g->times[i + 1] = NOW(p);
  }
}

// ---- is another process using our cores?

// A thread's own view: the part of a stretch of wall time in which it was runnable and not running.
typedef struct {
  u64 wall, cpu;
} Stretch;

static void begin_stretch(Pool *p, Stretch *t) {
  t->wall = NOW(p);
  t->cpu = CPU_TIME(p);
}

static void report_stolen(Pool *p, u64 me, Stretch *t) {
  Stretch now;
  begin_stretch(p, &now);
  u64 wall = now.wall - t->wall, cpu = now.cpu - t->cpu;
  if (wall > cpu) __atomic_fetch_add(&p->slots[me].stolen_ns, wall - cpu, __ATOMIC_RELAXED);
  *t = now;
}

// Judge the time since the last look (the calling thread, during and after a run). With n threads, losing the share 1/(n+1) to others costs more than
// working with n-1 threads would: everybody waits for a thread that was taken away while it held a task.
COLD void judge(Pool *p, u64 now) {
  u64 active = p->active;
  p->wall_ns += now - p->mark;
  p->mark = now;
  for (u64 i = 0; i <= active; i++) p->stolen_ns += __atomic_exchange_n(&p->slots[i].stolen_ns, 0, __ATOMIC_RELAXED);
  if (p->wall_ns < WINDOW_NS && p->stolen_ns * (active + 2) <= WINDOW_NS) return;  // what is stolen by now may already decide
  if (p->stolen_ns * (active + 2) > p->wall_ns && active) {
    STORE(p->active, active - 1);
    p->resume_at = now + p->backoff_ns;
    p->backoff_ns = p->backoff_ns * 2 < LAST_BACKOFF_NS ? p->backoff_ns * 2 : LAST_BACKOFF_NS;
    p->calm_ns = 0;
    p->drops++;
  } else if (active == p->helpers && (p->calm_ns += p->wall_ns) > CALM_NS) {
    p->backoff_ns = FIRST_BACKOFF_NS;
  }
  p->wall_ns = p->stolen_ns = 0;
}

// Is a helper that was dropped to be tried again? Asked at the start of a run and, since a pass can last for seconds, between the steps of a long one.
INLINE int helper_is_due(Pool *p) { return p->adaptive && p->active < p->helpers && NOW(p) >= p->resume_at; }

// Its judgement begins now: what was stolen before says nothing of it.
COLD void take_back_a_helper(Pool *p, Stretch *t) {
  if (t) begin_stretch(p, t);
  p->mark = NOW(p);
  for (u64 i = 0; i <= p->active + 1; i++) STORE_RELAXED(p->slots[i].stolen_ns, 0);
  STORE(p->active, p->active + 1);
  p->resume_at = p->mark + p->backoff_ns;  // for the next one, if several were dropped
  p->wall_ns = p->stolen_ns = 0;
  p->returns++;
}

// ---- working together

// Spin until the word is not w, and return it. A helper that has spun long enough, or is not to take part any more, gets w back; the calling thread
// sleeps then, since it has nothing else to do.
static u64 await(Pool *p, u64 me, u64 w, Stretch *stretch) {
  u64 since = 0;
  for (u32 n = 1;; n++) {
    pause();
    u64 seen = LOAD_ACQUIRE(p->word);
    if (seen != w) return seen;
    if (n & 63) continue;
    if (me > LOAD_RELAXED(p->active)) return w;
    u64 now = NOW(p);
    if (!since) since = now;
    if (stretch && now - stretch->wall > REPORT_NS) {
      report_stolen(p, me, stretch);
      if (!me) judge(p, now);
    }
    if (now - since > p->spin_ns) {
      if (me) return w;
      if (stretch) report_stolen(p, me, stretch);
      park(p, me, w);
      if (stretch) begin_stretch(p, stretch);  // sleeping is not being robbed
      since = 0;
    }
  }
}

// How many of the remaining tasks to claim at once: an equal share of them, so that the last ones are single and everybody is done at about the same
// time. Each claim costs: the word's cache line moves between cores (some 100 ns), activations are quantised again, and what was prefetched beyond the
// last task is for another core.
INLINE u64 share(Pool *p, const Step *s, u64 claimed) {
  u64 size = (s->claims - claimed) / (LOAD_RELAXED(p->active) + 1);
  return size ? size : 1;
}

// While others are at the last tasks of a step: bring what the next kernel's tasks read that this thread is likely to claim into its second-level cache.
static void fetch_next(Pool *p, const Graph *g, u64 w) {
  u64 step = STEP(w) + 1;
  while (step < g->n_steps && !g->kernels[g->steps[step].kernel].n_reads) step++;
  if (step == g->n_steps) return;
  const Step *s = g->steps + step;
  const Kernel *k = g->kernels + s->kernel;
  const u64 claimed = share(p, s, 0), size = share(p, s, claimed);  // who ends the step takes the first piece
  const u64 first = WHOLE * claimed / s->claims, end = WHOLE * (claimed + size) / s->claims;
  const char *from[MOST_READS], *until[MOST_READS];
  for (u64 i = 0; i < k->n_reads; i++) {
    const u64 a = first > k->reads[i].first ? first : k->reads[i].first, b = end < k->reads[i].end ? end : k->reads[i].end;
    const u64 tasks = k->reads[i].end - k->reads[i].first, nbytes = k->reads[i].nbytes;
    const char *start = (const char *)k->arguments[k->reads[i].argument] + k->reads[i].offset;
    from[i] = a < b ? start + nbytes * (a - k->reads[i].first) / tasks : 0;
    until[i] = a < b ? start + nbytes * (b - k->reads[i].first) / tasks : 0;
  }
  for (u64 fetched = 0, before = 1; fetched != before && fetched < MOST_FETCHED && LOAD_RELAXED(p->word) == w;) {
    before = fetched;
    for (u64 i = 0; i < k->n_reads; i++)
      for (u64 line = 0; line < 4 && from[i] < until[i]; line++, from[i] += 64, fetched += 64) __builtin_prefetch(from[i], 0, 2);
  }
}

// Take part in `run` until it is finished, or until a helper has found nothing to do for long enough: then the word it has seen all the while is
// returned, otherwise 0. With `holding`, w is the word in which this thread holds the last `holding` claims.
static u64 work(Pool *p, Graph *g, u64 me, u64 run, u64 w, u64 holding, Stretch *stretch) {
  Slot *self = &p->slots[me];
  for (;;) {
    if (!holding) {
      if (me && LOAD_RELAXED(p->offered)) {
        p->yield();
        self->yields++;
        w = LOAD_ACQUIRE(p->word);
      }
      if (RUN(w) != run || STEP(w) == FINISHED || me > LOAD_RELAXED(p->active)) return 0;
      const Step *s = g->steps + STEP(w);
      if (CLAIMED(w) == s->claims) {
        fetch_next(p, g, w);
        u64 seen = await(p, me, w, stretch);
        if (seen == w && me) return w;
        w = seen;
        continue;
      }
      u64 size = share(p, s, CLAIMED(w));
      if (!SWAP_WORD(p, w, w + size * ONE_CLAIMED)) continue;
      w += size * ONE_CLAIMED;
      holding = size;
    }
    const Step *s = g->steps + STEP(w);
    run_claim(p, g, s, CLAIMED(w) - holding, holding);
    self->tasks += holding;
    w = LOAD_ACQUIRE(p->word);  // with what the others computed in this step, should this be its end
    for (;;) {
      // Where all cores compute, a thread that wakes may wait until a running one's slice ends, which is longer than a pass. A helper lets it run
      // between two claims, when nobody waits for what the helper holds.
      int staying = me <= LOAD_RELAXED(p->active) && !(me && LOAD_RELAXED(p->offered));
      if (DONE(w) + holding < s->claims) {
        u64 more = staying && CLAIMED(w) < s->claims ? share(p, s, CLAIMED(w)) : 0;
        u64 next = w + holding + more * ONE_CLAIMED;
        if (!SWAP_WORD(p, w, next)) continue;
        w = next;
        holding = more;
        break;
      }
      // the last tasks of the step: nobody else can change the word now
      u64 step = STEP(w) + 1;
      if (g->times && s->claims > 1) g->times[s->kernel + 1] = NOW(p);
      if (step == g->n_steps) {
        STORE(p->word, WORD(run, FINISHED, 0));
        if (me) wake(p, 1);
        return 0;
      }
      s = g->steps + step;
      if (!me && stretch && helper_is_due(p)) take_back_a_helper(p, stretch);
      holding = staying ? share(p, s, 0) : 0;
      w = WORD(run, step, holding);
      STORE(p->word, w);
      if (s->claims > holding) wake(p, worth_waking(p, g) & ~(1ull << me));
      break;
    }
  }
}

static void replay_together(Pool *p, Graph *g) {
  u64 run = RUN(LOAD(p->word)) + 1, started = NOW(p);
  Stretch stretch, *watched = p->adaptive && g->last_ns > LONG_NS ? &stretch : 0;
  if (watched) begin_stretch(p, watched);
  p->mark = started;
  if (helper_is_due(p)) take_back_a_helper(p, watched);
  p->solo_runs += !p->active;
  if (!p->active && !watched) {
    run_alone(p, g);
  } else {
    if (g->times) g->times[0] = started;
    STORE_RELAXED(p->float_mode, get_float_mode());
    STORE(p->graph, g);
    u64 holding = share(p, g->steps, 0), w = WORD(run, 0, holding);
    STORE(p->word, w);
    if (g->steps->claims > holding) wake(p, worth_waking(p, g));
    work(p, g, 0, RUN(w), w, holding, watched);
    u64 now = LOAD_ACQUIRE(p->word);
    while (STEP(now) != FINISHED) now = await(p, 0, now, watched);
  }
  p->runs++;
  STORE_RELAXED(p->offered, 0);  // whoever was to take it back may be gone
  u64 ended = NOW(p);
  STORE_RELAXED(g->last_ns, ended - started);
  if (watched) {
    report_stolen(p, 0, watched);
    judge(p, ended);
  }
}

static long replay(Pool *p, Graph *g, const u64 *values) {
  for (u64 i = 0; i < g->n_patches; i++) *g->patches[i].where = values[g->patches[i].value] + g->patches[i].addend;
  // a second Python thread that replays at the same time does it alone
  if (!g->parallel || !p->helpers || __atomic_exchange_n(&p->busy, 1, __ATOMIC_ACQUIRE)) {
    run_alone(p, g);
  } else {
    replay_together(p, g);
    __atomic_store_n(&p->busy, 0, __ATOMIC_RELEASE);
  }
  return 0;
}

// A helper's life: in a run, spinning for one, or asleep.
static long help(Pool *p, u64 me) {
  Slot *self = &p->slots[me];
  while (!LOAD(p->stop)) {
    u64 w = LOAD(p->word), tired = 0;
    if (me > LOAD(p->active)) {
      tired = w;
    } else if (STEP(w) == FINISHED) {
      if (await(p, me, w, 0) == w) tired = w;
    } else {
      // Announce what will be read before reading it, then make sure that the run is still on: a graph is freed only when no run is on and nobody
      // has announced it, so it cannot vanish in between.
      Graph *g = LOAD(p->graph);
      STORE(self->reading, g);
      u64 again = LOAD(p->word);
      if (RUN(again) == RUN(w) && STEP(again) != FINISHED) {
        Stretch stretch, *watched = p->adaptive && LOAD_RELAXED(g->last_ns) > LONG_NS ? &stretch : 0;
        if (watched) begin_stretch(p, watched);
        set_float_mode(LOAD_RELAXED(p->float_mode));
        tired = work(p, g, me, RUN(w), again, 0, watched);
        if (watched) report_stolen(p, me, watched);
      }
      STORE(self->reading, 0);
    }
    if (tired) park(p, me, tired);
  }
  return 0;
}

static __attribute__((noinline)) long control(long op, Pool *p, Graph *g) {
  if (op == STOP) {  // a run that is on is finished by its calling thread
    STORE(p->helpers, 0);
    STORE(p->active, 0);
    STORE(p->stop, 1);
    wake(p, ~1ull);
  } else if (op == IN_USE) {
    for (u64 i = 1; i < 64; i++)
      if (LOAD(p->slots[i].reading) == g) return 1;
  } else if (op == SIZE) {
    return sizeof(Pool);
  }
  return 0;
}
