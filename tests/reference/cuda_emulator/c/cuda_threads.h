// Barriers, warp operations and atomics of CUDA C.
#pragma once
CUDA_FN void __syncthreads(int line = __builtin_LINE(), int column = __builtin_COLUMN()) {
  CudaThread* self = cuda_self();
  self->services->barrier(self, line, column);
}
CUDA_FN void __trap() {
  CudaThread* self = cuda_self();
  self->services->stop(self, "calls __trap()");
}
CUDA_FN void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
CUDA_FN void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
CUDA_FN void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

CUDA_FN void cuda_warp(unsigned mask, CudaComplete complete, void* operand, const char* name, int line) {
  CudaThread* self = cuda_self();
  self->services->warp(self, mask, complete, operand, name, line);
}

static void cuda_complete_nothing(CudaThread**, unsigned) {}
CUDA_FN void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  cuda_warp(mask, cuda_complete_nothing, nullptr, "__syncwarp", line);
}

template <class T> struct CudaShuffle {
  T value, result;
  int source;
};
template <class T> static void cuda_complete_shuffle(CudaThread** lanes, unsigned mask) {
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    CudaShuffle<T>* own = (CudaShuffle<T>*)lanes[lane]->operand;
    // the value of a lane that does not take part is undefined: all bits set show it
    if (mask >> own->source & 1)
      own->result = ((CudaShuffle<T>*)lanes[own->source]->operand)->value;
    else
      __builtin_memset(&own->result, 0xff, sizeof(T));
  }
}
template <class T> CUDA_FN T cuda_shuffle(unsigned mask, T value, int source, const char* name, int line) {
  CudaShuffle<T> operand = {value, value, source};
  cuda_warp(mask, cuda_complete_shuffle<T>, &operand, name, line);
  return operand.result;
}
// the warp is cut into parts of `width` lanes; a source beyond one's own part is oneself
template <class T> CUDA_FN T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  const int lane = (int)cuda_self()->lane;
  return cuda_shuffle(mask, value, (lane & -width) | (source & (width - 1)), "__shfl_sync", line);
}
template <class T> CUDA_FN T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
  const int lane = (int)cuda_self()->lane, source = lane ^ lanes;
  return cuda_shuffle(mask, value, source > (lane | (width - 1)) ? lane : source & 31, "__shfl_xor_sync", line);
}
template <class T> CUDA_FN T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = (int)cuda_self()->lane, source = lane + (int)delta;
  return cuda_shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, "__shfl_down_sync", line);
}
template <class T> CUDA_FN T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = (int)cuda_self()->lane, source = lane - (int)delta;
  return cuda_shuffle(mask, value, source < (lane & -width) ? lane : source, "__shfl_up_sync", line);
}

struct CudaVote {
  int predicate;
  unsigned ballot;
};
static void cuda_complete_vote(CudaThread** lanes, unsigned mask) {
  unsigned ballot = 0;
  for (unsigned rest = mask; rest; rest &= rest - 1)
    if (((CudaVote*)lanes[__builtin_ctz(rest)]->operand)->predicate) ballot |= rest & -rest;
  for (unsigned rest = mask; rest; rest &= rest - 1) ((CudaVote*)lanes[__builtin_ctz(rest)]->operand)->ballot = ballot;
}
CUDA_FN unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  CudaVote operand = {predicate, 0};
  cuda_warp(mask, cuda_complete_vote, &operand, "__ballot_sync", line);
  return operand.ballot;
}
CUDA_FN int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) { return __ballot_sync(mask, predicate, line) != 0; }
CUDA_FN int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) { return __ballot_sync(mask, predicate, line) == mask; }

// ---- atomics: each returns what was there before
template <class T, class F> CUDA_FN T cuda_atomic(T* p, F change) {
  T old, changed;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do changed = change(old);
  while (!__atomic_compare_exchange(p, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
#define CUDA_ATOMIC(name, type, expression) \
  CUDA_FN type name(type* p, type x) { return cuda_atomic(p, [&](type old) -> type { return expression; }); }
#define CUDA_ATOMICS(type)                       \
  CUDA_ATOMIC(atomicAdd, type, old + x)          \
  CUDA_ATOMIC(atomicSub, type, old - x)          \
  CUDA_ATOMIC(atomicMin, type, old < x ? old : x)\
  CUDA_ATOMIC(atomicMax, type, old > x ? old : x)\
  CUDA_ATOMIC(atomicAnd, type, old & x)          \
  CUDA_ATOMIC(atomicOr, type, old | x)           \
  CUDA_ATOMIC(atomicXor, type, old ^ x)          \
  CUDA_ATOMIC(atomicExch, type, x)               \
  CUDA_FN type atomicCAS(type* p, type expected, type x) { return cuda_atomic(p, [&](type old) { return old == expected ? x : old; }); }
CUDA_ATOMICS(int) CUDA_ATOMICS(unsigned) CUDA_ATOMICS(unsigned long long) CUDA_ATOMICS(long long)
CUDA_ATOMIC(atomicAdd, float, old + x) CUDA_ATOMIC(atomicAdd, double, old + x) CUDA_ATOMIC(atomicExch, float, x)
CUDA_ATOMIC(atomicInc, unsigned, old >= x ? 0 : old + 1)
CUDA_ATOMIC(atomicDec, unsigned, old == 0 || old > x ? x : old - 1)
#undef CUDA_ATOMICS
#undef CUDA_ATOMIC
