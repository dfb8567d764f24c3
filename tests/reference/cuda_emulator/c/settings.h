// What the environment says of the emulated machine; cuda_emulator_configure() reads it again.
#pragma once

struct Settings {
  long driver_version;     // CUDA_EMULATOR_DRIVER: 12080 for CUDA 12.8
  long nvrtc_version;      // CUDA_EMULATOR_NVRTC, likewise
  long capability;         // CUDA_EMULATOR_CAPABILITY: 90 for 9.0
  long devices;            // CUDA_EMULATOR_DEVICES
  long memory;             // CUDA_EMULATOR_MEMORY: bytes of a device
  long multiprocessors;    // CUDA_EMULATOR_SMS
  long workers;            // CUDA_EMULATOR_WORKERS: cores that run blocks
  unsigned long order;     // CUDA_EMULATOR_ORDER: threads and blocks run 0 forward, 1 in reverse, else at random from this seed
  char name[256];          // CUDA_EMULATOR_NAME
};

extern Settings settings;
extern "C" void cuda_emulator_configure();
