#include "settings.h"

#include "libc.h"

Settings settings;

static long number(const char* name, long otherwise) {
  const char* value = getenv(name);
  return value && *value ? strtol(value, nullptr, 10) : otherwise;
}

extern "C" __attribute__((constructor, visibility("default"))) void cuda_emulator_configure() {
  const long cores = sysconf(SC_NPROCESSORS_ONLN);
  const char* name = getenv("CUDA_EMULATOR_NAME");
  settings.driver_version = number("CUDA_EMULATOR_DRIVER", 12080);
  settings.nvrtc_version = number("CUDA_EMULATOR_NVRTC", 12080);
  settings.capability = number("CUDA_EMULATOR_CAPABILITY", 90);
  settings.devices = number("CUDA_EMULATOR_DEVICES", 1);
  settings.memory = number("CUDA_EMULATOR_MEMORY", 1l << 30);
  settings.multiprocessors = number("CUDA_EMULATOR_SMS", 8);
  settings.workers = number("CUDA_EMULATOR_WORKERS", cores < 1 ? 1 : cores > 8 ? 8 : cores);
  settings.order = (unsigned long)number("CUDA_EMULATOR_ORDER", 0);
  snprintf(settings.name, sizeof settings.name, "%s", name && *name ? name : "Emulated CUDA device");
}
