#include "kernels.h"

bool read_file(const char* path, Text* text) {
  const int file = open(path, O_RDONLY);
  if (file < 0) return false;
  char part[65536];
  long n;
  while ((n = read(file, part, sizeof part)) > 0) text->add(part, (size_t)n);
  close(file);
  return n == 0;
}

bool write_file(const char* path, const Text& text) {
  const int file = open(path, O_WRONLY_CREATE | 01000, 0600);  // truncated
  if (file < 0) return false;
  size_t at = 0;
  while (at < text.size) {
    const long n = write(file, text.bytes + at, text.size - at);
    if (n <= 0) break;
    at += (size_t)n;
  }
  close(file);
  return at == text.size;
}

struct LibraryOf {  // Dl_info
  const char* file;
  void* base;
  const char* symbol;
  void* address;
};
extern "C" int dladdr(const void*, LibraryOf*);

const char* header_folder() {
  static char folder[1024];
  LibraryOf library;
  if (!folder[0] && dladdr((const void*)header_folder, &library)) {
    snprintf(folder, sizeof folder, "%s", library.file);
    if (char* end = strrchr(folder, '/')) *end = 0;
  }
  return folder;
}

// strings have brackets of their own
const char* behind_brackets(const char* p) {
  for (int depth = 0; *p; p++) {
    if (*p == '"')
      for (p++; *p && *p != '"'; p++) p += *p == '\\';
    depth += *p == '(', depth -= *p == ')';
    if (*p == ')' && !depth) return p + 1;
  }
  return p;
}

void declare_kernels(Text* text) {
  static const char MARK[] = "annotate(\"cuda_global\")", BOUNDS[] = "annotate(\"cuda_launch_bounds\",";
  Text declared = {};
  for (const char* p = text->bytes; (p = strstr(p, MARK));) {
    // the name comes before the first bracket that is no attribute's; the bounds may come anywhere before it
    const char *name = nullptr, *bounds = nullptr;
    size_t length = 0;
    for (p += sizeof MARK - 1; *p && *p != '{' && *p != ';';) {
      if (is_name(*p)) {
        for (name = p; is_name(*p); p++) {}
        length = (size_t)(p - name);
      } else if (*p == '(') {
        const char* end = behind_brackets(p);
        if (length != strlen("__attribute__") || strncmp(name, "__attribute__", length)) break;
        const char* found = strstr(p, BOUNDS);
        if (found && found < end) bounds = found + sizeof BOUNDS - 1;
        p = end;
      } else
        p++;
    }
    if (*p != '(' || !name) continue;
    const char* after = behind_brackets(p);
    while (*after == ' ' || *after == '\n') after++;
    if (*after == ';') continue;  // declared here, defined elsewhere
    declared.add("\nextern \"C\" __attribute__((visibility(\"default\"), used)) extern const CudaKernel cuda_kernel_of_");
    declared.add(name, length);
    declared.add(" = CudaCall<&");
    declared.add(name, length);
    declared.add(">::kernel(");
    if (bounds) {
      const char* end = bounds;
      for (int depth = 0; *end && !(depth == 0 && (*end == ',' || *end == ')')); end++) depth += *end == '(', depth -= *end == ')';
      declared.add(bounds, (size_t)(end - bounds));
    } else
      declared.add("0");
    declared.add(");\n");
  }
  if (declared.size) text->add(declared.bytes, declared.size);
  declared.release();
}
