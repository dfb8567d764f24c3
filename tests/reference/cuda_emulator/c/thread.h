// What the emulated driver and the compiled kernels share: one CUDA thread, which lies at the top of the stack that it runs on.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct uint3 { unsigned x, y, z; };

enum { STACK_BYTES = 256 * 1024, THREAD_BYTES = 256, WARP = 32, MAX_THREADS = 1024 };

struct CudaThread;
struct CudaWorker;
// a warp operation, done once all its lanes are there: reads and writes lanes[i]->operand for each bit i of the mask
typedef void (*CudaComplete)(CudaThread** lanes, unsigned mask);

struct CudaServices {  // functions of the driver that kernels call
  void (*barrier)(CudaThread*, int line, int column);
  void (*warp)(CudaThread*, unsigned mask, CudaComplete, void* operand, const char* name, int line);
  void (*stop)(CudaThread*, const char* reason);  // ends the launch with an error; does not return
};

struct CudaThread {
  uint3 index, block, block_dim, grid_dim;
  const CudaServices* services;
  unsigned number, lane;  // within the block, within the warp
  // the driver's own
  CudaWorker* worker;
  void* stack_pointer;  // while it does not run
  CudaThread* next_free;
  CudaComplete complete;  // the operation that it waits for, and its lanes
  void* operand;
  unsigned mask;
  int waiting;  // 0 runs or may run, 1 at a barrier, 2 in a warp operation
  const char* waits_in;
  int line, column;
};
static_assert(sizeof(CudaThread) <= THREAD_BYTES, "");

struct CudaKernel {  // a __global__ function as the driver calls it
  void (*call)(const char* arguments);
  int n_arguments, argument_bytes, max_threads;  // max_threads: 0 without __launch_bounds__
  const unsigned short *offsets, *sizes;
};

// __asm__: what is called asm is PTX in a kernel's source
static inline __attribute__((always_inline)) CudaThread* cuda_self() {
  uintptr_t stack;
#if defined(__x86_64__)
  __asm__("mov %%rsp, %0" : "=r"(stack));
#elif defined(__aarch64__)
  __asm__("mov %0, sp" : "=r"(stack));
#else
#error the CUDA emulator runs on x86-64 and aarch64
#endif
  return (CudaThread*)((stack & ~(uintptr_t)(STACK_BYTES - 1)) + STACK_BYTES - THREAD_BYTES);
}
