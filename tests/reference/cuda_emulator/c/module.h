#pragma once
#include "driver.h"

struct Module;
struct Function {
  Module* module;
  const CudaKernel* kernel;
  int dynamic_shared;
  char name[256];
};
