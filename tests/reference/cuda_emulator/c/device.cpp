// Devices, contexts, errors, events and streams. Every stream is the one order of calls: a call has done its work when it returns.
#include "driver.h"

Context contexts[MAX_DEVICES];
bool initialized;

static pthread_mutex_t lock;
static CUresult sticky;
static char last_report[1024];
static __thread Context* current;

Call::Call(bool needs_context) {
  pthread_mutex_lock(&lock);
  status = !initialized ? (CUresult)NOT_INITIALIZED : needs_context && !current ? (CUresult)INVALID_CONTEXT : sticky;
}
Call::~Call() { pthread_mutex_unlock(&lock); }
Context* current_context() { return current; }
void set_current_context(Context* context) { current = context; }
CUresult remember(CUresult status) { return sticky = status; }

void report(const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(last_report, sizeof last_report, format, values);
  va_end(values);
  dprintf(2, "CUDA emulator: %s\n", last_report);
}

// the sentence of the last error, for tests
API const char* cuda_emulator_report() { return last_report; }
API void cuda_emulator_forget() { sticky = SUCCESS, last_report[0] = 0; }

static const struct { CUresult status; const char *name, *text; } ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NO_BINARY, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {UNSUPPORTED_PTX, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {PEER_ALREADY, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access is already enabled"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
};

API CUresult cuGetErrorString(CUresult status, const char** text) {
  *text = nullptr;
  for (const auto& error : ERRORS)
    if (error.status == status) *text = error.text;
  return *text ? SUCCESS : INVALID_VALUE;
}
API CUresult cuGetErrorName(CUresult status, const char** name) {
  *name = nullptr;
  for (const auto& error : ERRORS)
    if (error.status == status) *name = error.name;
  return *name ? SUCCESS : INVALID_VALUE;
}

API CUresult cuInit(unsigned flags) {
  if (flags) return INVALID_VALUE;
  for (int i = 0; i < MAX_DEVICES; i++) contexts[i].device = i;
  if (!initialized) watch_faults();
  initialized = true;
  return SUCCESS;
}
API CUresult cuDriverGetVersion(int* version) {
  *version = (int)settings.driver_version;
  return SUCCESS;
}
API CUresult cuDeviceGetCount(int* count) {
  Call call(false);
  *count = (int)settings.devices;
  return call.status;
}
static CUresult check_device(const Call& call, int device) {
  return call.status ? call.status : device < 0 || device >= settings.devices || device >= MAX_DEVICES ? INVALID_DEVICE : SUCCESS;
}
API CUresult cuDeviceGet(int* device, int ordinal) {
  Call call(false);
  *device = ordinal;
  return check_device(call, ordinal);
}
API CUresult cuDeviceGetName(char* name, int size, int device) {
  Call call(false);
  if (size > 0) snprintf(name, (size_t)size, "%s", settings.name);
  return check_device(call, device);
}
API CUresult cuDeviceComputeCapability(int* major, int* minor, int device) {
  Call call(false);
  *major = (int)settings.capability / 10, *minor = (int)settings.capability % 10;
  return check_device(call, device);
}
API CUresult cuDeviceTotalMem_v2(size_t* bytes, int device) {
  Call call(false);
  *bytes = (size_t)settings.memory;
  return check_device(call, device);
}
API CUresult cuDeviceCanAccessPeer(int* can, int device, int other) {
  Call call(false);
  *can = device != other;
  return check_device(call, device) ? check_device(call, device) : check_device(call, other);
}
API CUresult cuCtxEnablePeerAccess(Context*, unsigned) {
  Call call;
  return call.status;
}

enum { SHARED_STATIC = 49152, SHARED_OPT_IN = 232448 };  // bytes per block, an H100's
static const int ATTRIBUTES[][2] = {  // CUdevice_attribute and its value, an H100's where settings.h has none
    {1, MAX_THREADS}, {2, MAX_THREADS}, {3, MAX_THREADS}, {4, 64},  // threads of a block, its x, y, z
    {5, 2147483647}, {6, 65535}, {7, 65535},                        // the grid's x, y, z
    {8, SHARED_STATIC}, {97, SHARED_OPT_IN}, {81, SHARED_OPT_IN + 1024}, {9, 65536}, {111, 1024},  // shared and constant memory
    {10, WARP}, {12, 65536}, {82, 65536}, {39, 2048}, {106, 32},  // warp, registers, threads and blocks of a multiprocessor
    {13, 1980000}, {36, 2619000}, {37, 5120}, {38, 50 << 20},     // clocks in kHz, width of the bus, bytes of the L2 cache
    {14, 512}, {17, 0}, {18, 0}, {19, 1}, {20, 0}, {31, 1}, {32, 1}, {34, 0}, {35, 0}, {40, 3}, {41, 1}, {50, 0}, {78, 1}, {83, 1},
    {84, 0}, {88, 0}, {89, 1}, {90, 1}, {95, 1}, {102, 1}, {115, 1}, {120, 0},
};

API CUresult cuDeviceGetAttribute(int* value, int attribute, int device) {
  Call call(false);
  if (CUresult status = check_device(call, device)) return status;
  switch (attribute) {
    case 16: *value = (int)settings.multiprocessors; return SUCCESS;
    case 33: *value = device + 1; return SUCCESS;  // PCI bus
    case 75: *value = (int)settings.capability / 10; return SUCCESS;
    case 76: *value = (int)settings.capability % 10; return SUCCESS;
  }
  for (const auto& pair : ATTRIBUTES)
    if (pair[0] == attribute) return *value = pair[1], SUCCESS;
  return INVALID_VALUE;
}
API CUresult cuDeviceGetPCIBusId(char* text, int size, int device) {
  Call call(false);
  snprintf(text, (size_t)size, "0000:%02X:00.0", device + 1);
  return check_device(call, device);
}
API CUresult cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  Call call(false);
  for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)(i ? 0xe0 + i : device);
  return check_device(call, device);
}

API CUresult cuCtxCreate_v2(Context** context, unsigned, int device) {
  Call call(false);
  if (CUresult status = check_device(call, device)) return status;
  current = *context = &contexts[device];
  return SUCCESS;
}
API CUresult cuDevicePrimaryCtxRetain(Context** context, int device) {
  Call call(false);
  if (CUresult status = check_device(call, device)) return status;
  *context = &contexts[device];
  return SUCCESS;
}
API CUresult cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API CUresult cuCtxDestroy_v2(Context* context) { return context ? SUCCESS : INVALID_CONTEXT; }
API CUresult cuCtxSetCurrent(Context* context) {
  Call call(false);
  current = context;
  return call.status == NOT_INITIALIZED ? call.status : SUCCESS;
}
API CUresult cuCtxGetCurrent(Context** context) {
  Call call(false);
  *context = current;
  return call.status;
}
API CUresult cuCtxGetDevice(int* device) {
  Call call;
  if (current) *device = current->device;
  return call.status;
}
API CUresult cuCtxSynchronize() {
  Call call;
  return call.status;
}
API CUresult cuCtxSetLimit(int, size_t) {
  Call call;
  return call.status;
}

struct Stream { unsigned flags; };
struct Event {
  timespec time;
  bool recorded;
};

API CUresult cuStreamCreate(Stream** stream, unsigned flags) {
  Call call;
  *stream = new_zeroed<Stream>();
  (*stream)->flags = flags;
  return call.status;
}
API CUresult cuStreamDestroy_v2(Stream* stream) {
  Call call;
  free(stream);
  return call.status;
}
API CUresult cuStreamSynchronize(Stream*) {
  Call call;
  return call.status;
}
API CUresult cuStreamQuery(Stream*) {
  Call call;
  return call.status;
}
API CUresult cuStreamWaitEvent(Stream*, Event* event, unsigned) {
  Call call;
  return call.status ? call.status : event ? SUCCESS : INVALID_HANDLE;
}

API CUresult cuEventCreate(Event** event, unsigned) {
  Call call;
  *event = new_zeroed<Event>();
  return call.status;
}
API CUresult cuEventDestroy_v2(Event* event) {
  Call call;
  free(event);
  return call.status;
}
void record(Event* event) {
  clock_gettime(CLOCK_MONOTONIC, &event->time);
  event->recorded = true;
}
API CUresult cuEventRecord(Event* event, Stream*) {
  Call call;
  if (!event) return INVALID_HANDLE;
  record(event);
  return call.status;
}
API CUresult cuEventSynchronize(Event* event) {
  Call call;
  return call.status ? call.status : event ? SUCCESS : INVALID_HANDLE;
}
API CUresult cuEventQuery(Event* event) {
  Call call;
  return call.status ? call.status : event ? SUCCESS : INVALID_HANDLE;
}
API CUresult cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
  Call call;
  if (!start || !end || !start->recorded || !end->recorded) return INVALID_HANDLE;
  *milliseconds = (float)(end->time.tv_sec - start->time.tv_sec) * 1e3f + (float)(end->time.tv_nsec - start->time.tv_nsec) * 1e-6f;
  return call.status;
}
