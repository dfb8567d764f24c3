// Text of any length, files, and the search for a source's kernels.
#pragma once
#include "libc.h"

struct Text {
  char* bytes;
  size_t size, capacity;
  void add(const char* more, size_t n) {
    if (size + n + 1 > capacity) bytes = (char*)realloc(bytes, capacity = 2 * capacity + n + 4096);
    memcpy(bytes + size, more, n);
    bytes[size += n] = 0;
  }
  void add(const char* more) { add(more, strlen(more)); }
  void clear() { size = 0; }
  void release() { free(bytes), bytes = nullptr, size = capacity = 0; }
};

bool read_file(const char* path, Text*);  // adds to the text
bool write_file(const char* path, const Text&);
const char* header_folder();
// appends what the driver calls each __global__ function by; the text is a source after the preprocessor
void declare_kernels(Text*);
