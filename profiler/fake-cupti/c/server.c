// A stand-in for a server: does on its standard input's word what a process with a GPU does, and answers each
// line with one of its own. Its argument is the driver's stand-in.
//
//   init              initialises the driver
//   kernel N          launches N kernels, of two names in turn, of 1000 and 2000 ns
//   graph N NODES     launches one graph N times, of kernels of 500 ns
//   copy N BYTES      copies
//   nvtx              loads what `NVTX_INJECTION64_PATH` names, as the headers of NVTX do
//   step N            launches N kernels, each in a range, in which is one of a domain with a registered text
//   fork              goes on as a child of its own; the parent waits for it and answers what it ended with
//   leave             ends, as Python's forked children do: nothing that was registered for the end runs
//   kill              ends itself as SIGKILL does

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef void (*launch_t)(const char *, uint64_t, uint32_t, uint64_t, uint64_t);

// The tables of one shared object's NVTX.
static void *core[16], *core2[16];

static int table_of(unsigned module, void ****table, unsigned *size) {
    static void **slots[2][16];
    if (module != 1 && module != 5) return 0;
    void **functions = module == 1 ? core : core2;
    for (int i = 1; i < 16; i++) slots[module == 5][i] = &functions[i];
    *table = slots[module == 5];
    *size = 16;
    return 1;
}

static const void *export_table(uint32_t id) {
    static const struct {
        size_t size;
        int (*table_of)(unsigned, void ****, unsigned *);
    } exports = {sizeof exports, table_of};
    return id == 1 ? &exports : NULL;
}

static void load_nvtx(void) {
    const char *path = getenv("NVTX_INJECTION64_PATH");
    void *injected = path ? dlopen(path, RTLD_NOW) : NULL;
    int (*initialize)(const void *(*)(uint32_t)) =
        injected ? (int (*)(const void *(*)(uint32_t)))dlsym(injected, "InitializeInjectionNvtx2") : NULL;
    if (!initialize || initialize(export_table) != 1) fprintf(stderr, "no NVTX\n");
}

struct attributes {
    uint16_t version, size;
    uint32_t category, color_type, color, payload_type, reserved;
    uint64_t payload;
    uint32_t message_type;
    const void *message;
};

static void step(launch_t launch) {
    static void *domain, *text;
    if (!domain) {
        domain = ((void *(*)(const char *))core2[12])("engine");
        text = ((void *(*)(void *, const char *))core2[10])(domain, "forward");
    }
    struct attributes attributes = {3, sizeof attributes, 0, 0, 0, 0, 0, 0, 3, text};
    int outer = ((int (*)(const char *))core[9])("execute_context_1(8)_generation_0(0)");
    int inner = ((int (*)(void *, const struct attributes *))core2[4])(domain, &attributes);
    launch("_Z4gemmPfS_i", 1000, 0, 0, 0);
    int inner_left = ((int (*)(void *))core2[5])(domain);
    int outer_left = ((int (*)(void))core[11])();
    if (outer || inner || inner_left || outer_left) fprintf(stderr, "levels are wrong\n");
}

int main(int count, char **arguments) {
    void *driver = count == 2 ? dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL) : NULL;
    if (!driver) return fprintf(stderr, "no driver: %s\n", dlerror()), 2;
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(driver, "cuInit");
    launch_t launch = (launch_t)dlsym(driver, "fake_cuda_launch");
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long n = 0, of = 0;
        char word[32] = "";
        sscanf(line, "%31s %llu %llu", word, &n, &of);
        if (!strcmp(word, "init")) init(0);
        for (unsigned long long i = 0; i < n; i++) {
            if (!strcmp(word, "kernel"))
                launch(i % 2 ? "_Z4gemmPfS_i" : "_Z7rmsnormPfi", i % 2 ? 2000 : 1000, 0, 0, 0);
            if (!strcmp(word, "graph")) launch("_Z6decodePf", 500, 9, of, 0);
            if (!strcmp(word, "copy")) launch("", 3000, 0, 0, of);
        }
        for (unsigned long long i = 0; i < n && !strcmp(word, "step"); i++) step(launch);
        if (!strcmp(word, "nvtx")) load_nvtx();
        if (!strcmp(word, "leave")) _exit(0);
        if (!strcmp(word, "kill")) kill(getpid(), SIGKILL);
        if (!strcmp(word, "fork")) {
            int status = 0;
            pid_t child = fork();
            if (child > 0) {
                waitpid(child, &status, 0);
                printf("child %d\n", status);
                fflush(stdout);
                continue;
            }
        }
        printf("%s %d\n", word, (int)getpid());
        fflush(stdout);
    }
    // As Python's forked children leave: nothing that was registered for the end runs.
    _exit(0);
}
