// Modules and launches. A module is a shared library that the emulated NVRTC made; its bytes come without their length.
#include "module.h"

#include "grid.h"

enum { MAX_FUNCTIONS = 64 };
struct Module {
  void* library;
  size_t shared_bytes, tls_module;
  int n_functions;
  Function* functions[MAX_FUNCTIONS];
};

struct ElfHeader {
  unsigned char identity[16];
  uint16_t type, machine;
  uint32_t version;
  uint64_t entry, program_offset, section_offset;
  uint32_t flags;
  uint16_t header_size, program_size, program_count, section_size, section_count, names;
};
struct ElfSegment {
  uint32_t type, flags;
  uint64_t offset, address, physical, file_bytes, memory_bytes, align;
};
enum { TLS_SEGMENT = 7, PTX_MARK = 9 };  // the byte of the identity where nvrtc.cpp says which of the two was asked for

static void* open_library(const ElfHeader* header, size_t bytes) {
  const int file = memfd_create("cuda", 1);
  // dlopen() takes a path that it knows for the same library, though the file is another: the bits of a count make each path a new one
  static unsigned long opened;
  char path[300] = "/proc/self/";
  size_t length = strlen(path);
  for (unsigned long bits = ++opened; bits; bits >>= 1) length += (size_t)snprintf(path + length, 8, bits & 1 ? ".//" : "./");
  snprintf(path + length, sizeof path - length, "fd/%d", file);
  char identity[16];
  memcpy(identity, header->identity, sizeof identity);
  memset(identity + PTX_MARK, 0, sizeof identity - PTX_MARK);  // the loader wants zeros there
  bool written = write(file, identity, sizeof identity) == (long)sizeof identity;
  for (size_t at = sizeof identity; written && at < bytes;) {
    const long n = write(file, (const char*)header + at, bytes - at);
    written = n > 0;
    at += written ? (size_t)n : 0;
  }
  void* library = written ? dlopen(path, RTLD_NOW) : nullptr;
  if (!library) report("cannot load a module: %s", dlerror());
  close(file);
  return library;
}

API CUresult cuModuleLoadData(Module** out, const void* image) {
  Call call;
  if (call.status) return call.status;
  const ElfHeader* header = (const ElfHeader*)image;
  if (memcmp(image, "\x7f" "ELF", 4)) {
    report("a module is neither PTX nor a cubin of the emulated NVRTC");
    return strncmp((const char*)image, "//", 2) ? INVALID_IMAGE : INVALID_PTX;
  }
  const bool ptx = header->identity[PTX_MARK] == 'P';
  if (ptx && settings.driver_version < settings.nvrtc_version) {
    report("a driver of version %ld reads no PTX of NVRTC %ld", settings.driver_version, settings.nvrtc_version);
    return UNSUPPORTED_PTX;
  }
  const ElfSegment* segments = (const ElfSegment*)((const char*)image + header->program_offset);
  size_t shared = 0;
  for (int i = 0; i < header->program_count; i++)
    if (segments[i].type == TLS_SEGMENT) shared = segments[i].memory_bytes;
  if (shared > 49152) {
    report("the __shared__ variables of a module take %zu bytes, more than 49152", shared);
    return ptx ? INVALID_PTX : INVALID_IMAGE;
  }
  void* library = open_library(header, header->section_offset + (size_t)header->section_count * header->section_size);
  if (!library) return INVALID_IMAGE;
  const int* arch = (const int*)dlsym(library, "cuda_module_arch");
  // PTX serves every newer device, a cubin those of its major version
  if (!arch || *arch > settings.capability || (!ptx && *arch / 10 != settings.capability / 10)) {
    report("a module for compute capability %d does not run on %ld", arch ? *arch : 0, settings.capability);
    dlclose(library);
    return ptx ? INVALID_PTX : NO_BINARY;
  }
  Module* module = new_zeroed<Module>();
  module->library = library, module->shared_bytes = shared;
  if (shared) dlinfo(library, RTLD_DI_TLS_MODID, &module->tls_module);
  *out = module;
  return SUCCESS;
}
API CUresult cuModuleLoadDataEx(Module** out, const void* image, unsigned, int*, void**) { return cuModuleLoadData(out, image); }

API CUresult cuModuleUnload(Module* module) {
  Call call;
  if (call.status) return call.status;
  if (!module) return INVALID_HANDLE;
  for (int i = 0; i < module->n_functions; i++) free(module->functions[i]);
  dlclose(module->library);
  free(module);
  return SUCCESS;
}

API CUresult cuModuleGetFunction(Function** out, Module* module, const char* name) {
  Call call;
  if (call.status) return call.status;
  if (!module || !name) return INVALID_VALUE;
  for (int i = 0; i < module->n_functions; i++)
    if (!strcmp(module->functions[i]->name, name)) return *out = module->functions[i], SUCCESS;
  char described[300];
  snprintf(described, sizeof described, "cuda_kernel_of_%s", name);
  const CudaKernel* kernel = (const CudaKernel*)dlsym(module->library, described);
  if (!kernel || !dlsym(module->library, name) || module->n_functions == MAX_FUNCTIONS) {  // a C++ function has another name
    report("a module has no function %s", name);
    return NOT_FOUND;
  }
  Function* function = new_zeroed<Function>();
  function->module = module, function->kernel = kernel;
  snprintf(function->name, sizeof function->name, "%s", name);
  module->functions[module->n_functions++] = function;
  *out = function;
  return SUCCESS;
}

API CUresult cuFuncGetAttribute(int* value, int attribute, Function* function) {
  Call call;
  if (call.status) return call.status;
  if (!function) return INVALID_HANDLE;
  const int bound = function->kernel->max_threads;
  switch (attribute) {  // CUfunction_attribute
    case 0: *value = bound ? bound : MAX_THREADS; return SUCCESS;
    case 1: *value = (int)function->module->shared_bytes; return SUCCESS;
    case 2: case 3: case 7: *value = 0; return SUCCESS;
    case 4: *value = 32; return SUCCESS;
    case 5: case 6: *value = (int)settings.capability; return SUCCESS;
    case 8: *value = function->dynamic_shared; return SUCCESS;
  }
  return INVALID_VALUE;
}
API CUresult cuFuncSetAttribute(Function* function, int attribute, int value) {
  Call call;
  if (call.status) return call.status;
  if (!function) return INVALID_HANDLE;
  if (attribute == 8) function->dynamic_shared = value;
  return attribute == 8 || attribute == 9 ? SUCCESS : INVALID_VALUE;
}
API CUresult cuFuncSetCacheConfig(Function* function, int) {
  Call call;
  return call.status ? call.status : function ? SUCCESS : INVALID_HANDLE;
}

CUresult pack_arguments(Function* function, void** parameters, void** extra, char** packed) {
  const CudaKernel* kernel = function->kernel;
  const size_t bytes = (size_t)kernel->argument_bytes;
  *packed = nullptr;
  if (parameters && extra) return INVALID_VALUE;
  if (parameters) {
    *packed = (char*)calloc(1, bytes + 8);
    for (int i = 0; i < kernel->n_arguments; i++) memcpy(*packed + kernel->offsets[i], parameters[i], kernel->sizes[i]);
    return SUCCESS;
  }
  const void* buffer = nullptr;
  size_t size = 0;
  for (void** entry = extra; entry && *entry; entry += 2) {  // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE
    if (*entry == (void*)1) buffer = entry[1];
    else if (*entry == (void*)2) size = *(size_t*)entry[1];
    else return INVALID_VALUE;
  }
  if (size < bytes || size > (bytes + 7) / 8 * 8) {
    report("kernel %s takes %zu bytes of arguments, and was given %zu", function->name, bytes, size);
    return INVALID_VALUE;
  }
  *packed = (char*)calloc(1, bytes + 8);
  if (bytes) memcpy(*packed, buffer, bytes);
  return SUCCESS;
}

CUresult launch(Function* function, const unsigned grid[3], const unsigned block[3], const char* arguments) {
  const int bound = function->kernel->max_threads;
  const uint64_t threads = (uint64_t)block[0] * block[1] * block[2], blocks = (uint64_t)grid[0] * grid[1] * grid[2];
  const bool fits = threads <= (unsigned)(bound ? bound : MAX_THREADS) && block[2] <= 64 && grid[0] <= 2147483647u && grid[1] <= 65535 &&
                    grid[2] <= 65535;
  if (!threads || !blocks || !fits) {
    report("kernel %s cannot be launched with (%u, %u, %u) blocks of (%u, %u, %u) threads", function->name, grid[0], grid[1], grid[2],
           block[0], block[1], block[2]);
    return INVALID_VALUE;
  }
  Launch run = {};
  run.kernel = function->kernel, run.name = function->name, run.arguments = arguments;
  run.grid = {grid[0], grid[1], grid[2]}, run.block = {block[0], block[1], block[2]};
  run.tls_module = function->module->tls_module, run.shared_bytes = function->module->shared_bytes;
  run.n_blocks = blocks;
  run_grid(&run);
  return run.failure ? remember(run.failure) : SUCCESS;
}

API CUresult cuLaunchKernel(Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned shared, void*, void** parameters, void** extra) {
  Call call;
  if (call.status) return call.status;
  if (!function) return INVALID_HANDLE;
  if (shared) {
    report("kernel %s: the emulator has no dynamic shared memory", function->name);
    return INVALID_VALUE;
  }
  char* arguments;
  if (CUresult status = pack_arguments(function, parameters, extra, &arguments)) return status;
  const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  const CUresult status = launch(function, grid, block, arguments);
  free(arguments);
  return status;
}
