/* A GPU that is none, for tests: its memory is a file in /dev/shm, and the handle by which another process reaches
 * that memory is the file's name. Of CUDA's driver and of its runtime there is what a store and its client call.
 * The driver's part is what this project calls, the runtime's what `serverless-llm-store` does.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, UUID_AT = 256, MAPS = 256 };

static const unsigned char UUID[16] = {0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255};

typedef struct { char name[64]; } Handle;

/* What is mapped, by whom it was made or opened. */
static struct { char *at; size_t bytes; char name[64]; int is_own; } maps[MAPS];
static atomic_flag locked = ATOMIC_FLAG_INIT;
static atomic_int made;

static void lock(void) { while (atomic_flag_test_and_set(&locked)) usleep(10); }
static void unlock(void) { atomic_flag_clear(&locked); }

static int map(const char *name, size_t bytes, int is_own, void **at) {
    int file = shm_open(name, is_own ? O_CREAT | O_EXCL | O_RDWR : O_RDWR, 0600);
    struct stat data;
    if (file < 0) return INVALID;
    if (is_own && ftruncate(file, bytes)) return NO_MEMORY;
    if (fstat(file, &data)) return INVALID;
    void *to = mmap(NULL, data.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (to == MAP_FAILED) return NO_MEMORY;
    lock();
    int i = 0;
    while (i < MAPS && maps[i].at) i++;
    if (i < MAPS) {
        maps[i].at = to;
        maps[i].bytes = data.st_size;
        maps[i].is_own = is_own;
        snprintf(maps[i].name, sizeof maps[i].name, "%s", name);
    }
    unlock();
    *at = to;
    return i < MAPS ? OK : NO_MEMORY;
}

static int unmap(void *at) {
    int told = INVALID;
    lock();
    for (int i = 0; i < MAPS; i++)
        if (maps[i].at == at && at) {
            munmap(at, maps[i].bytes);
            if (maps[i].is_own) shm_unlink(maps[i].name);
            maps[i].at = NULL;
            told = OK;
        }
    unlock();
    return told;
}

static int allocate(void **at, size_t bytes) {
    char name[64];
    if (!bytes) return INVALID;
    snprintf(name, sizeof name, "/no-gpu-%d-%d", getpid(), atomic_fetch_add(&made, 1));
    return map(name, bytes, 1, at);
}

static int handle_of(const void *at, Handle *handle) {
    int told = INVALID;
    memset(handle, 0, sizeof *handle);
    lock();
    for (int i = 0; i < MAPS; i++)
        if (maps[i].at == at && at) {
            memcpy(handle->name, maps[i].name, sizeof handle->name);
            told = OK;
        }
    unlock();
    return told;
}

/* The driver. */
int cuInit(unsigned flags) { return flags ? INVALID : OK; }
int cuDriverGetVersion(int *version) { *version = 12080; return OK; }
int cuDeviceGetCount(int *n) { *n = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? INVALID : OK; }
int cuDeviceGetUuid(void *to, int device) { memcpy(to, UUID, 16); return device ? INVALID : OK; }
int cuDeviceGetUuid_v2(void *to, int device) { return cuDeviceGetUuid(to, device); }
int cuDeviceGetAttribute(int *value, int which, int device) { (void)which; *value = 0; return device ? INVALID : OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = maps; return device ? INVALID : OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device ? INVALID : OK; }
static _Thread_local void *current;
int cuCtxSetCurrent(void *context) { current = context; return OK; }
int cuCtxGetCurrent(void **context) { *context = current; return OK; }
int cuCtxSynchronize(void) { return OK; }
int cuMemAlloc_v2(uint64_t *at, size_t bytes) {
    void *to = NULL;
    int told = current ? allocate(&to, bytes) : INVALID;
    *at = (uintptr_t)to;
    return told;
}
int cuMemFree_v2(uint64_t at) { return unmap((void *)(uintptr_t)at); }
int cuIpcGetMemHandle(Handle *handle, uint64_t at) { return handle_of((void *)(uintptr_t)at, handle); }
int cuMemcpyDtoH_v2(void *to, uint64_t at, size_t bytes) { memcpy(to, (void *)(uintptr_t)at, bytes); return OK; }
int cuGetErrorName(int error, const char **name) { (void)error; *name = "CUDA_ERROR_OF_A_STAND_IN"; return OK; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "an error of a GPU that is none"; return OK; }

/* The runtime. */
int cudaGetDeviceCount(int *n) { *n = 1; return OK; }
int cudaSetDevice(int device) { return device ? INVALID : OK; }
int cudaGetDeviceProperties_v2(char *to, int device) { memcpy(to + UUID_AT, UUID, 16); return device ? INVALID : OK; }
int cudaGetDeviceProperties(char *to, int device) { return cudaGetDeviceProperties_v2(to, device); }
int cudaStreamCreate(void **stream) { *stream = maps; return OK; }
int cudaHostRegister(void *at, size_t bytes, unsigned flags) { (void)at, (void)bytes, (void)flags; return OK; }
int cudaHostUnregister(void *at) { (void)at; return OK; }
int cudaMalloc(void **at, size_t bytes) { return allocate(at, bytes); }
int cudaFree(void *at) { return at ? unmap(at) : OK; }
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { (void)kind; memcpy(to, from, bytes); return OK; }
int cudaIpcGetMemHandle(Handle *handle, void *at) { return handle_of(at, handle); }
int cudaIpcOpenMemHandle(void **at, Handle handle, unsigned flags) { (void)flags; return map(handle.name, 0, 0, at); }
int cudaIpcCloseMemHandle(void *at) { return unmap(at); }
int cudaGetLastError(void) { return OK; }
const char *cudaGetErrorString(int error) { return error ? "an error of a GPU that is none" : "no error"; }
