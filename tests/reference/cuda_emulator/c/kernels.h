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

inline bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }
const char* behind_brackets(const char*);  // behind the bracket that closes the one there

// both change a source that has been through the preprocessor
void translate_ptx(Text*);
void declare_kernels(Text*);  // appends what the driver calls each __global__ function by
