// An address that a kernel must not touch: the fault ends the launch with CUDA_ERROR_ILLEGAL_ADDRESS, not the process.
#include "driver.h"

struct Action {  // struct sigaction
  void (*handler)(int, struct Info*, char* context);
  unsigned long mask[16];
  int flags;
  void (*restorer)();
};
struct Info {
  int signal, error, code, padding;
  uintptr_t address;
};
struct AlternateStack {  // stack_t
  void* memory;
  int flags;
  size_t bytes;
};
extern "C" int sigaction(int, const Action*, Action*);
extern "C" int sigaltstack(const AlternateStack*, AlternateStack*);
enum { SIGSEGV = 11, SA_SIGINFO = 4, SA_ONSTACK = 0x08000000, SS_DISABLE = 2, HANDLER_BYTES = 128 * 1024 };

// where ucontext_t keeps the first argument, the stack pointer and the program counter
#if defined(__x86_64__)
enum { ARGUMENT = 40 + 8 * 8, STACK = 40 + 15 * 8, COUNTER = 40 + 16 * 8, PUSHED = 8 };
#else
enum { ARGUMENT = 184, STACK = 184 + 31 * 8, COUNTER = 184 + 32 * 8, PUSHED = 0 };
#endif

static __thread volatile bool in_kernel;
static __thread uintptr_t fault_address;
static Action before;

static void faulted(CudaThread* t) {
  char text[200];
  if (fault_address / STACK_BYTES == (uintptr_t)t / STACK_BYTES)
    snprintf(text, sizeof text, "needs more than %d bytes of stack", (int)STACK_BYTES);
  else
    describe_address(fault_address, text, sizeof text);
  end_launch(t, ILLEGAL_ADDRESS, text);
}

static void handle(int, Info* info, char* context) {
  if (!in_kernel) {  // somebody else's: it happens again, and comes to who was there before
    sigaction(SIGSEGV, &before, nullptr);
    return;
  }
  // the thread goes on in faulted(), at the other end of its stack, which nothing needs any more
  uintptr_t* stack = (uintptr_t*)(context + STACK);
  CudaThread* t = (CudaThread*)((*stack & ~(uintptr_t)(STACK_BYTES - 1)) + STACK_BYTES - THREAD_BYTES);
  fault_address = info->address;
  *(uintptr_t*)(context + ARGUMENT) = (uintptr_t)t;
  *(uintptr_t*)(context + COUNTER) = (uintptr_t)faulted;
  *stack = (((uintptr_t)t - 1024) & ~(uintptr_t)63) - PUSHED;
}

void watch_faults() {
  Action action = {};
  action.handler = handle, action.flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &before);
}

void enter_kernel() {
  static __thread bool prepared;
  if (!prepared) {  // a stack that has overflowed cannot hold the handler
    AlternateStack stack = {};
    sigaltstack(nullptr, &stack);
    if (stack.flags & SS_DISABLE || stack.bytes < HANDLER_BYTES) {
      stack = {malloc(HANDLER_BYTES), 0, HANDLER_BYTES};
      sigaltstack(&stack, nullptr);
    }
    fault_address = 0;  // so that the handler finds its thread-local variables made
    prepared = true;
  }
  in_kernel = true;
}
void leave_kernel() { in_kernel = false; }
