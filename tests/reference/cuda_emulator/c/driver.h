// The parts of the emulated driver: its state, and what its files ask of each other.
#pragma once
#include "fibers.h"
#include "settings.h"

typedef int CUresult;
typedef unsigned long CUdeviceptr;
enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
  NO_BINARY = 209, INVALID_PTX = 218, UNSUPPORTED_PTX = 222, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
  PEER_ALREADY = 704, LAUNCH_FAILED = 719,
};
#define API extern "C" __attribute__((visibility("default")))

enum { MAX_DEVICES = 8 };
struct Context { int device; };
extern Context contexts[MAX_DEVICES];
extern bool initialized;

// one call at a time; a kernel's error stays, as on a device, until cuda_emulator_forget()
struct Call {
  CUresult status;
  explicit Call(bool needs_context = true);
  ~Call();
};
Context* current_context();
void set_current_context(Context*);
CUresult remember(CUresult);  // an error that every later call returns

bool is_device_memory(CUdeviceptr, size_t bytes);  // within one allocation

template <class T> T* new_zeroed() { return (T*)calloc(1, sizeof(T)); }

void describe_address(uintptr_t, char* text, size_t size);  // one that belongs to no allocation
void watch_faults();

struct Event;
void record(Event*);

struct Function;
CUresult launch(Function*, const unsigned grid[3], const unsigned block[3], const char* arguments);
// copies a launch's arguments, from kernelParams or from extra, as one packed block of malloc()
CUresult pack_arguments(Function*, void** parameters, void** extra, char** packed);
