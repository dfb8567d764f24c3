// The few declarations of the C library (glibc, Linux) that the emulator needs. clang alone builds it, on machines without the library's
// headers too; types of the library's own are opaque and large enough.
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

typedef union { char bytes[64]; long align; } pthread_mutex_t;  // all zeros is the initial state, as for pthread_cond_t
typedef pthread_mutex_t pthread_cond_t;
typedef unsigned long pthread_t;
struct timespec { long tv_sec, tv_nsec; };

extern "C" {
void* malloc(size_t);
void* calloc(size_t, size_t);
void* realloc(void*, size_t);
void free(void*);
void* memcpy(void*, const void*, size_t);
void* memmove(void*, const void*, size_t);
void* memset(void*, int, size_t);
int memcmp(const void*, const void*, size_t);
size_t strlen(const char*);
int strcmp(const char*, const char*);
int strncmp(const char*, const char*, size_t);
char* strdup(const char*);
char* strchr(const char*, int);
char* strrchr(const char*, int);
char* strstr(const char*, const char*);
long strtol(const char*, char**, int);
int snprintf(char*, size_t, const char*, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char*, size_t, const char*, va_list);
int dprintf(int, const char*, ...) __attribute__((format(printf, 2, 3)));
char* getenv(const char*);
int getpid();
long sysconf(int);
int clock_gettime(int, timespec*);

int open(const char*, int, ...);
long read(int, void*, size_t);
long write(int, const void*, size_t);
int close(int);
int unlink(const char*);
int rmdir(const char*);
int rename(const char*, const char*);
char* mkdtemp(char*);
int memfd_create(const char*, unsigned);
void* mmap(void*, size_t, int, int, int, long);
int munmap(void*, size_t);
int mprotect(void*, size_t, int);

int posix_spawnp(int*, const char*, const void*, const void*, char* const*, char* const*);
int waitpid(int, int*, int);
extern char** environ;

void* dlopen(const char*, int);
void* dlsym(void*, const char*);
int dlclose(void*);
char* dlerror();
int dlinfo(void*, int, void*);

int pthread_create(pthread_t*, const void*, void* (*)(void*), void*);
int pthread_mutex_lock(pthread_mutex_t*);
int pthread_mutex_unlock(pthread_mutex_t*);
int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*);
int pthread_cond_broadcast(pthread_cond_t*);
}

enum { PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20, MAP_NORESERVE = 0x4000 };
enum { RTLD_NOW = 2, RTLD_DI_TLS_MODID = 9, CLOCK_MONOTONIC = 1, SC_NPROCESSORS_ONLN = 84, O_RDONLY = 0, O_WRONLY_CREATE = 0101 };
#define MAP_FAILED ((void*)-1)
