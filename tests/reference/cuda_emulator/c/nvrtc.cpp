// The emulated NVRTC: clang compiles the source, behind cuda_on_cpu.h, to a shared library, which stands for PTX and for a cubin.
#include "libc.h"
#include "kernels.h"
#include "settings.h"

#define API extern "C" __attribute__((visibility("default")))
enum { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6, INTERNAL_ERROR = 11 };
enum { PTX_MARK = 9, CLANG_ARGUMENTS = 256 };

struct Program {
  Text source, log, image;
};

static const int ARCHITECTURES[] = {75, 80, 86, 87, 89, 90, 100, 120};

API const char* nvrtcGetErrorString(int status) {
  switch (status) {
    case SUCCESS: return "NVRTC_SUCCESS";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case COMPILATION: return "NVRTC_ERROR_COMPILATION";
    case INTERNAL_ERROR: return "NVRTC_ERROR_INTERNAL_ERROR";
  }
  return "NVRTC_ERROR unknown";
}
API int nvrtcVersion(int* major, int* minor) {
  *major = (int)settings.nvrtc_version / 1000, *minor = (int)settings.nvrtc_version % 1000 / 10;
  return SUCCESS;
}
API int nvrtcGetNumSupportedArchs(int* count) {
  *count = sizeof ARCHITECTURES / sizeof *ARCHITECTURES;
  return SUCCESS;
}
API int nvrtcGetSupportedArchs(int* archs) {
  memcpy(archs, ARCHITECTURES, sizeof ARCHITECTURES);
  return SUCCESS;
}

API int nvrtcCreateProgram(Program** out, const char* source, const char*, int n_headers, const char**, const char**) {
  if (!source || n_headers) return INVALID_INPUT;
  Program* program = (Program*)calloc(1, sizeof(Program));
  program->source.add(source, strlen(source));
  *out = program;
  return SUCCESS;
}
API int nvrtcDestroyProgram(Program** program) {
  if (!program || !*program) return INVALID_PROGRAM;
  (*program)->source.release(), (*program)->log.release(), (*program)->image.release();
  free(*program);
  *program = nullptr;
  return SUCCESS;
}

// ---- running clang

struct Files {  // of one compilation, in a folder of its own
  char folder[200], source[240], expanded[240], library[240], messages[240];
  bool make() {
    const char* temporary = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/cuda_emulator_XXXXXX", temporary && *temporary ? temporary : "/tmp");
    if (!mkdtemp(folder)) return false;
    snprintf(source, sizeof source, "%s/source.cu", folder);
    snprintf(expanded, sizeof expanded, "%s/expanded.ii", folder);
    snprintf(library, sizeof library, "%s/library.so", folder);
    snprintf(messages, sizeof messages, "%s/messages", folder);
    return true;
  }
  void remove() {
    unlink(source), unlink(expanded), unlink(library), unlink(messages);
    rmdir(folder);
  }
};

// runs a program with its errors written to a file; -> whether it succeeded
static bool run(const char* const* command, const char* messages) {
  // a shell only redirects; the command comes as its arguments
  const char* shell[CLANG_ARGUMENTS + 5] = {"sh", "-c", "exec \"$@\" 2>\"$0\"", messages};
  int n = 4;
  for (; *command; command++) shell[n++] = *command;
  shell[n] = nullptr;
  int child, status = -1;
  if (posix_spawnp(&child, "sh", nullptr, nullptr, (char* const*)shell, environ)) return false;
  while (waitpid(child, &status, 0) != child) {}
  return status == 0;
}

static bool compile(Program* program, const char* const* defines, int n_defines, int arch, Files& files) {
  char folder[300], arch_define[64], target[64];
  snprintf(folder, sizeof folder, "-I%s", header_folder());
  snprintf(arch_define, sizeof arch_define, "-D__CUDA_ARCH__=%d", arch * 10);
  snprintf(target, sizeof target, "-DCUDA_MODULE_ARCH=%d", arch);
  const char* expand[CLANG_ARGUMENTS] = {CLANG,  "-xc++", "-std=c++20", "-E", "-nostdlibinc", "-march=native", "-include", "cuda_on_cpu.h",
                                         folder, arch_define, target, files.source, "-o", files.expanded};
  int n = 0;
  while (expand[n]) n++;
  for (int i = 0; i < n_defines && n < CLANG_ARGUMENTS - 1; i++) expand[n++] = defines[i];
  if (!write_file(files.source, program->source) || !run(expand, files.messages)) return false;
  Text expanded = {};
  if (!read_file(files.expanded, &expanded)) return false;
  translate_ptx(&expanded);
  declare_kernels(&expanded);
  const bool written = write_file(files.expanded, expanded);
  expanded.release();
  const char* build[] = {CLANG, "-xc++-cpp-output", "-std=c++20", "-O2", "-march=native", "-ffp-contract=fast", "-fno-math-errno",
                         "-Xclang", "-ffloat16-excess-precision=none", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
                         "-fno-threadsafe-statics", "-fno-stack-protector", "-fstack-clash-protection", "-fno-strict-aliasing", "-w", "-shared", "-nostdlib",
                         "-fuse-ld=lld", files.expanded, "-o", files.library, nullptr};
  return written && run(build, files.messages) && read_file(files.library, &program->image);
}

API int nvrtcCompileProgram(Program* program, int n_options, const char* const* options) {
  if (!program) return INVALID_PROGRAM;
  int arch = 52, n_defines = 0;
  const char* defines[64];
  for (int i = 0; i < n_options; i++) {
    const char* value = strchr(options[i], '=');
    if (!strncmp(options[i], "--gpu-architecture=", 19) || !strncmp(options[i], "-arch=", 6)) arch = (value = strrchr(value, '_')) ? (int)strtol(value + 1, nullptr, 10) : 0;
    // the system's own headers are not for a compiler that has none of it; tinygrad names the folder where it knows no toolkit
    if ((!strncmp(options[i], "-D", 2) || (!strncmp(options[i], "-I", 2) && strcmp(options[i], "-I/usr/include"))) && n_defines < 64)
      defines[n_defines++] = options[i];
  }
  bool known = false;
  for (int one : ARCHITECTURES) known |= one == arch;
  program->log.clear(), program->image.clear();
  if (!known) {
    program->log.add("nvrtc: error: invalid value for --gpu-architecture (-arch)\n");
    return INVALID_OPTION;
  }
  Files files;
  if (!files.make()) return INTERNAL_ERROR;
  const bool compiled = compile(program, defines, n_defines, arch, files);
  read_file(files.messages, &program->log);
  files.remove();
  return compiled ? SUCCESS : COMPILATION;
}

// ---- results

static int give(const Text& text, char* out, size_t end) {
  memcpy(out, text.bytes, text.size);
  if (end) out[text.size] = 0;
  return SUCCESS;
}
API int nvrtcGetProgramLogSize(Program* program, size_t* size) {
  if (!program) return INVALID_PROGRAM;
  *size = program->log.size + 1;
  return SUCCESS;
}
API int nvrtcGetProgramLog(Program* program, char* log) { return program ? give(program->log, log, 1) : INVALID_PROGRAM; }
API int nvrtcGetPTXSize(Program* program, size_t* size) {
  if (!program || !program->image.size) return INVALID_PROGRAM;
  *size = program->image.size + 1;
  return SUCCESS;
}
API int nvrtcGetPTX(Program* program, char* ptx) {
  if (!program || !program->image.size) return INVALID_PROGRAM;
  give(program->image, ptx, 1);
  ptx[PTX_MARK] = 'P';
  return SUCCESS;
}
API int nvrtcGetCUBINSize(Program* program, size_t* size) {
  if (!program || !program->image.size) return INVALID_PROGRAM;
  *size = program->image.size;
  return SUCCESS;
}
API int nvrtcGetCUBIN(Program* program, char* cubin) {
  return program && program->image.size ? give(program->image, cubin, 0) : INVALID_PROGRAM;
}
