// A vendor's OpenCL driver with one GPU, for machines without: PoCL does its work, and its device says that it is a GPU called CARD.
//
// An OpenCL object begins with the address of its driver's function table. This driver loads a copy of PoCL of its own (POCL), so that
// PoCL itself may be registered beside it, and puts three functions of its own into the table.
typedef unsigned int uint;
typedef unsigned long ulong;
typedef int Info(void*, uint, ulong, void*, ulong*);
typedef int Devices(void*, ulong, uint, void**, uint*);
typedef int Platforms(uint, void**, uint*);
typedef void* FunctionOf(const char*);

void* dlopen(const char*, int);
void* dlsym(void*, const char*);
void* memcpy(void*, const void*, ulong);
int strcmp(const char*, const char*);

enum { GET_PLATFORM_INFO = 1, GET_DEVICE_IDS, GET_DEVICE_INFO, ENTRIES = 128 };  // of the table of cl_icd.h
enum { PLATFORM_NAME = 0x0902, DEVICE_TYPE = 0x1000, DEVICE_NAME = 0x102B, PCI_BUS_ID = 0x4008, PCI_SLOT_ID = 0x4009 };
enum { NO_DEVICE = -1, INVALID_VALUE = -30, NO_PLATFORM = -1001 };

static Info *platform_info_of, *device_info_of;
static Devices* devices_of;
static FunctionOf* function_of;
static void* table[ENTRIES];

static int answer(const void* value, ulong nbytes, ulong room, void* out, ulong* needed) {
  if (needed) *needed = nbytes;
  if (out && room < nbytes) return INVALID_VALUE;
  if (out) memcpy(out, value, nbytes);
  return 0;
}

static int device_info(void* device, uint key, ulong room, void* out, ulong* needed) {
  const ulong gpu = 4;
  const uint bus = 1, slot = 0;
  if (key == DEVICE_TYPE) return answer(&gpu, sizeof gpu, room, out, needed);
  if (key == DEVICE_NAME) return answer(CARD, sizeof CARD, room, out, needed);
  if (key == PCI_BUS_ID) return answer(&bus, sizeof bus, room, out, needed);
  if (key == PCI_SLOT_ID) return answer(&slot, sizeof slot, room, out, needed);
  return device_info_of(device, key, room, out, needed);
}

static int platform_info(void* platform, uint key, ulong room, void* out, ulong* needed) {
  const char name[] = "Stub OpenCL";
  return key == PLATFORM_NAME ? answer(name, sizeof name, room, out, needed) : platform_info_of(platform, key, room, out, needed);
}

static int device_ids(void* platform, ulong kinds, uint room, void** out, uint* count) {
  const ulong cpu = 2, gpu = 4;
  if (!(kinds & gpu)) return NO_DEVICE;
  const int status = devices_of(platform, cpu, room, out, count);
  if (status == 0 && out && room) *(void**)out[0] = table;
  return status;
}

int clIcdGetPlatformIDsKHR(uint room, void** out, uint* count) {
  static void* platform;
  if (!platform) {
    const int lazy = 1;
    void* library = dlopen(POCL, lazy);
    if (!library) return NO_PLATFORM;
    function_of = (FunctionOf*)dlsym(library, "clGetExtensionFunctionAddress");
    void* found = 0;
    if (((Platforms*)function_of("clIcdGetPlatformIDsKHR"))(1, &found, 0) || !found) return NO_PLATFORM;
    memcpy(table, *(void**)found, sizeof table);
    platform_info_of = (Info*)table[GET_PLATFORM_INFO];
    devices_of = (Devices*)table[GET_DEVICE_IDS];
    device_info_of = (Info*)table[GET_DEVICE_INFO];
    table[GET_PLATFORM_INFO] = (void*)platform_info;
    table[GET_DEVICE_IDS] = (void*)device_ids;
    table[GET_DEVICE_INFO] = (void*)device_info;
    *(void**)found = table;
    platform = found;
  }
  if (count) *count = 1;
  if (out && room) out[0] = platform;
  return 0;
}

int clGetPlatformInfo(void* platform, uint key, ulong room, void* out, ulong* needed) {
  return platform_info(platform, key, room, out, needed);
}

void* clGetExtensionFunctionAddress(const char* name) {
  if (!strcmp(name, "clIcdGetPlatformIDsKHR")) return (void*)clIcdGetPlatformIDsKHR;
  return function_of ? function_of(name) : 0;
}
