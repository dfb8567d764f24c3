// Device and pinned memory. Every allocation lies between pages that cannot be touched, ends at one, and is full of 0xff, which floats read as NaN.
#include "driver.h"

enum { PAGE = 4096, GRAIN = 256 };  // a device's allocations are aligned to 256 bytes

struct Allocation {
  CUdeviceptr start;
  size_t bytes, room;  // asked for, and its pages, without the two guards
  int device;          // -1: pinned memory of the host
};
static Allocation* all;  // by address
static size_t count, capacity, used[MAX_DEVICES];

static size_t first_after(CUdeviceptr address) {
  size_t low = 0, high = count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (all[middle].start <= address) low = middle + 1; else high = middle;
  }
  return low;
}
static size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

static CUresult allocate(size_t bytes, int device, CUdeviceptr* address) {
  *address = 0;
  if (!bytes) return INVALID_VALUE;
  const size_t size = rounded(bytes, GRAIN), room = rounded(size, PAGE);
  if (device >= 0 && (size > (size_t)settings.memory || used[device] + size > (size_t)settings.memory)) return OUT_OF_MEMORY;
  char* guard = (char*)mmap(nullptr, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (guard == MAP_FAILED) return OUT_OF_MEMORY;
  char* pages = guard + PAGE;
  mprotect(pages, room, PROT_READ | PROT_WRITE);
  memset(pages, 0xff, room);
  if (count == capacity) all = (Allocation*)realloc(all, (capacity = 2 * capacity + 64) * sizeof(Allocation));
  *address = (CUdeviceptr)pages + room - size;
  const size_t place = first_after(*address);
  memmove(all + place + 1, all + place, (count++ - place) * sizeof(Allocation));
  all[place] = {*address, bytes, room, device};
  if (device >= 0) used[device] += size;
  return SUCCESS;
}

static CUresult release(CUdeviceptr address, bool pinned) {
  if (!address) return SUCCESS;
  const size_t after = first_after(address);
  if (!after || all[after - 1].start != address || (all[after - 1].device < 0) != pinned) return INVALID_VALUE;
  const Allocation a = all[after - 1];
  const size_t size = rounded(a.bytes, GRAIN);
  CUresult status = SUCCESS;
  for (long i = (long)size - (long)a.room; i < (long)size; i++)
    if ((i < 0 || i >= (long)a.bytes) && ((unsigned char*)address)[i] != 0xff) {
      report("an allocation of %zu bytes was written at byte %ld", a.bytes, i);
      status = remember(ILLEGAL_ADDRESS);
      break;
    }
  memmove(all + after - 1, all + after, (count-- - after) * sizeof(Allocation));
  if (a.device >= 0) used[a.device] -= size;
  munmap((char*)address + size - a.room - PAGE, a.room + 2 * PAGE);
  return status;
}

bool is_device_memory(CUdeviceptr address, size_t bytes) {
  const size_t after = first_after(address);
  if (!after) return false;
  const Allocation& a = all[after - 1];
  return address - a.start <= a.bytes && bytes <= a.bytes - (address - a.start);
}

void describe_address(uintptr_t address, char* text, size_t size) {
  const size_t after = first_after(address);
  const Allocation* a = after ? all + after - 1 : nullptr;
  if (a && address - a->start < 1 << 20)
    snprintf(text, size, "reaches byte %zu of an allocation of %zu bytes", (size_t)(address - a->start), a->bytes);
  else if (after < count && all[after].start - address < 1 << 20)
    snprintf(text, size, "reaches %zu bytes before an allocation of %zu bytes", (size_t)(all[after].start - address), all[after].bytes);
  else
    snprintf(text, size, "reaches address %#zx, which is in no allocation", (size_t)address);
}

static CUresult copy(void* to, const void* from, size_t bytes, bool to_device, bool from_device, const char* name) {
  Call call;
  if (call.status) return call.status;
  const bool known = (!to_device || is_device_memory((CUdeviceptr)to, bytes)) && (!from_device || is_device_memory((CUdeviceptr)from, bytes));
  if (!known) {
    report("%s of %zu bytes leaves the allocation", name, bytes);
    return INVALID_VALUE;
  }
  memmove(to, from, bytes);
  return SUCCESS;
}

static CUresult set(CUdeviceptr address, unsigned value, unsigned width, size_t n, const char* name) {
  Call call;
  if (call.status) return call.status;
  if (address % width || !is_device_memory(address, n * width)) {
    report("%s of %zu elements leaves the allocation", name, n);
    return INVALID_VALUE;
  }
  for (size_t i = 0; i < n; i++) memcpy((char*)address + i * width, &value, width);
  return SUCCESS;
}

API CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  Call call;
  return call.status ? call.status : allocate(bytes, current_context()->device, address);
}
API CUresult cuMemFree_v2(CUdeviceptr address) {
  Call call;
  return call.status ? call.status : release(address, false);
}
API CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  Call call;
  return call.status ? call.status : allocate(bytes, -1, (CUdeviceptr*)address);
}
API CUresult cuMemAllocHost_v2(void** address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }
API CUresult cuMemFreeHost(void* address) {
  Call call;
  return call.status ? call.status : release((CUdeviceptr)address, true);
}
API CUresult cuMemGetInfo_v2(size_t* available, size_t* total) {
  Call call;
  if (call.status) return call.status;
  *total = (size_t)settings.memory;
  const size_t taken = used[current_context()->device];
  *available = taken < *total ? *total - taken : 0;
  return SUCCESS;
}
API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t n) { return copy((void*)to, from, n, true, false, "cuMemcpyHtoD"); }
API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t n, void*) { return cuMemcpyHtoD_v2(to, from, n); }
API CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t n) { return copy(to, (void*)from, n, false, true, "cuMemcpyDtoH"); }
API CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t n, void*) { return cuMemcpyDtoH_v2(to, from, n); }
API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t n) { return copy((void*)to, (void*)from, n, true, true, "cuMemcpyDtoD"); }
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, void*) { return cuMemcpyDtoD_v2(to, from, n); }
API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t n) { return copy((void*)to, (void*)from, n, false, false, "cuMemcpy"); }
API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t n, void*) { return cuMemcpy(to, from, n); }
API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t n) { return set(to, value, 1, n, "cuMemsetD8"); }
API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, void*) { return cuMemsetD8_v2(to, value, n); }
API CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t n) { return set(to, value, 4, n, "cuMemsetD32"); }
API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t n, void*) { return cuMemsetD32_v2(to, value, n); }
