// A stand-in for the driver: it loads the injected library at `cuInit`, as the real one does, and tells the
// stand-in for CUPTI of each launch. A file beside it, `<its own path>.script`, may say `driver=NUMBER`.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*launch_t)(const char *, uint64_t, uint32_t, uint64_t, uint64_t);

launch_t fake_cuda_hook;

int cuDriverGetVersion(int *version) {
    Dl_info info;
    char path[4096];
    *version = 13000;
    if (!dladdr((void *)cuDriverGetVersion, &info)) return 1;
    snprintf(path, sizeof path, "%s.script", info.dli_fname);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "driver=%d", version) != 1) *version = 0;
    fclose(file);
    return 0;
}

int cuInit(unsigned flags) {
    static int is_done;
    (void)flags;
    const char *path = getenv("CUDA_INJECTION64_PATH");
    if (is_done++ || !path || !strcmp(path, "none")) return 0;
    void *injected = dlopen(path, RTLD_NOW);
    if (!injected) {
        fprintf(stderr, "fake driver: %s\n", dlerror());
        return 0;
    }
    int (*initialize)(void) = (int (*)(void))dlsym(injected, "InitializeInjection");
    if (!initialize || initialize() != 1) fprintf(stderr, "fake driver: not initialised\n");
    return 0;
}

void fake_cuda_launch(const char *name, uint64_t ns, uint32_t graph, uint64_t nodes, uint64_t bytes) {
    if (fake_cuda_hook) fake_cuda_hook(name, ns, graph, nodes, bytes);
}
