// Runs the threads of one block after the other on one core: every thread that waits keeps its stack, and another one goes on.
#pragma once
#include "libc.h"
#include "thread.h"

struct Launch {
  const CudaKernel* kernel;
  const char* name;
  const char* arguments;
  uint3 grid, block;
  size_t tls_module, shared_bytes;  // the module's __shared__ variables, which are thread-local ones of the host
  unsigned long n_blocks, next_block;
  int failure;  // CUresult
};

CudaWorker* new_worker();
void run_block(CudaWorker*, Launch*, unsigned long block);
void report(const char* format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void end_launch(CudaThread*, int status, const char* text);  // on the thread's own stack
void enter_kernel();  // between these two, a fault on this core is a kernel's
void leave_kernel();
