// A stand-in for CUPTI that lies in the ways which the real one is known for.
//
// What it does is told by a file beside it, `<its own path>.script`, of lines `key=number`:
//
//   version          what it says that it is (default: 24, or 130101 for libcupti.so.13)
//   taken            another tool holds the subscription; to register buffers then ends the process
//   refuse           the code that enabling answers
//   told_stride      size that it says kernels have; written ones are as large as the version's
//   zero_times       every nth kernel has no instants
//   backwards        every nth kernel ends before it began
//   unfinished       a forced flush delivers one more kernel, without its end
//   foreign          after n records one of a kind that nobody knows
//   cut              bytes that each buffer is delivered short of
//   drops            records that it says it dropped, once
//   lazy             only a forced flush delivers
//   state_errors     how often a forced flush reports that its state is one of an error
//   elsewhere        buffers are completed by a thread of its own
//
// Sizes are written down here a second time, so that they are held to those that are tested.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID_PARAMETER = 1, MAX_LIMIT = 12, NOT_INITIALIZED = 15, INVALID_KIND = 21 };
enum { TAKEN = 39, UNKNOWN = 999 };
enum { MEMCPY = 1, MEMSET = 2, KERNEL = 3, DRIVER = 4, RUNTIME = 5, CONCURRENT = 10, OVERHEAD = 17 };
enum { MEMCPY2 = 22, GRAPH_TRACE = 51, KINDS = 64 };

typedef void (*requested_t)(uint8_t **, size_t *, size_t *);
typedef void (*completed_t)(void *, uint32_t, uint8_t *, size_t, size_t);
typedef void (*callback_t)(void *, uint32_t, uint32_t, const void *);

struct kernel {
    uint32_t kind;
    uint8_t caches[2];
    uint16_t registers;
    uint32_t partitioned[2];
    uint64_t start, end, completed;
    uint32_t device, context, stream;
    int32_t grid[3], block[3], static_shared, dynamic_shared;
    uint32_t local[2], correlation;
    int64_t grid_id;
    const char *name;
    void *reserved;
    uint64_t queued, submitted;
    uint8_t launch[4];
    uint32_t shared_executed;
    uint64_t graph_node;
    uint32_t shared_limit, graph;
    void *window;
    uint32_t channel[2], cluster[3], scheduling;
    uint64_t local_total;
    uint32_t clusters[2];
    uint8_t later[40];
};
_Static_assert(sizeof(struct kernel) == 248, "the newest kernel");
_Static_assert(offsetof(struct kernel, name) == 104, "the name of a kernel");
_Static_assert(offsetof(struct kernel, cluster) == 176, "the cluster of a kernel");

struct copy {
    uint32_t kind;
    uint8_t copy_kind, source, destination, flags;
    uint64_t bytes, start, end;
    uint32_t device, context, stream, correlation, runtime_correlation, pad;
    void *reserved;
    uint64_t graph_node;
    uint32_t graph, channel[2], pad2;
    uint8_t later[24];
};
_Static_assert(sizeof(struct copy) == 112, "the newest copy");

struct call {
    uint32_t kind, cbid;
    uint64_t start, end;
    uint32_t process, thread, correlation, returned;
};
_Static_assert(sizeof(struct call) == 40, "a call");

struct callback_data {
    uint32_t site;
    const char *function;
    const void *parameters;
    void *returned;
    const char *symbol;
    void *context;
    uint32_t context_uid;
    uint64_t *correlation_data;
    uint32_t correlation;
};
_Static_assert(sizeof(struct callback_data) == 72, "what a callback is told");

static char script[4096] = "\n";
static pthread_mutex_t lock;
static int flushing;
static struct {
    uint32_t version;
    int enabled[KINDS];
    int subscribed, subscriptions;
    callback_t callback;
    void *user;
    int wanted[8][1024];
    requested_t requested;
    completed_t completed;
    uint8_t *buffer;
    size_t size, used;
    uint64_t kernels, records, dropped;
} now;

static long setting(const char *key, long otherwise) {
    char line[64];
    snprintf(line, sizeof line, "\n%s=", key);
    const char *at = strstr(script, line);
    return at ? strtol(at + strlen(line), NULL, 10) : otherwise;
}

static void die(const char *why) {
    fprintf(stderr, "fake CUPTI: %s\n", why);
    abort();
}

static void enter(void) {
    if (pthread_mutex_lock(&lock) == EDEADLK) die("called from within a callback of its own");
}

static void leave(void) { pthread_mutex_unlock(&lock); }

static int has_driver(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (driver) dlclose(driver);
    return driver != NULL;
}

// What a call answers in a process without a driver, or 0.
static uint32_t without_driver(int is_harmless) {
    if (has_driver()) return OK;
    if (now.version >= 130200 && now.version < 130300) raise(SIGSEGV);
    if (now.version >= 130300) return UNKNOWN;
    if (is_harmless) return OK;
    return now.version >= 130000 ? UNKNOWN : NOT_INITIALIZED;
}

static uint64_t instant(void) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static size_t stride(uint32_t kind) {
    uint32_t v = now.version;
    switch (kind) {
    case KERNEL:
    case CONCURRENT:
        return v < 130000 ? 208 : v < 130100 ? 216 : v < 130300 ? 224 : v < 130400 ? 232 : 248;
    case MEMCPY: return v < 25 ? 88 : v < 130400 ? 96 : 112;
    case MEMSET: return v < 130400 ? 88 : 104;
    case MEMCPY2: return 96;
    case DRIVER:
    case RUNTIME: return 40;
    case 12: return 56;
    case 13: return v < 130000 ? 32 : 40;
    case OVERHEAD: return v < 21 ? 40 : v < 22 ? 48 : 56;
    case 38: return v < 25 ? 40 : 56;
    case 39: return 24;
    case GRAPH_TRACE: return v < 21 ? 48 : 56;
    default: return 0;
    }
}

struct delivery {
    uint8_t *buffer;
    size_t size, valid;
};

static void *deliver_elsewhere(void *of) {
    struct delivery *it = of;
    now.completed(NULL, 0, it->buffer, it->size, it->valid);
    return NULL;
}

// With the lock held, as the real one holds locks while it calls back.
static void deliver(void) {
    if (!now.buffer) return;
    size_t cut = (size_t)setting("cut", 0);
    struct delivery it = {now.buffer, now.size, now.used > cut ? now.used - cut : 0};
    now.buffer = NULL;
    if (!setting("elsewhere", 0)) {
        deliver_elsewhere(&it);
        return;
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, deliver_elsewhere, &it)) die("no thread");
    pthread_join(thread, NULL);
}

// With the lock held.
static void append(const void *record, size_t size) {
    if (!now.requested) return;
    if (now.buffer && now.used + size > now.size) deliver();
    if (!now.buffer) {
        size_t most = 0;
        now.requested(&now.buffer, &now.size, &most);
        now.used = 0;
        if (!now.buffer && now.version < 27) die("it was given no buffer");
        if (!now.buffer || now.size < size) {
            now.dropped++;
            return;
        }
        if ((uintptr_t)now.buffer % 8) die("a buffer is not aligned");
    }
    memcpy(now.buffer + now.used, record, size);
    now.used += size;
    now.records++;
    uint32_t strange[4] = {60, 0, 0, 0};
    if (now.records == (uint64_t)setting("foreign", 0)) append(strange, sizeof strange);
}

static void append_kernel(struct kernel *kernel) {
    long zero = setting("zero_times", 0), backwards = setting("backwards", 0);
    now.kernels++;
    if (zero && now.kernels % (uint64_t)zero == 0) kernel->start = kernel->end = 0;
    if (backwards && now.kernels % (uint64_t)backwards == 0) kernel->end = kernel->start - 5;
    append(kernel, stride(CONCURRENT));
}

static struct kernel kernel_of(const char *name, uint64_t start, uint64_t ns, uint32_t correlation) {
    struct kernel kernel = {0};
    kernel.kind = CONCURRENT;
    kernel.registers = 32;
    kernel.start = start;
    kernel.end = start + ns;
    kernel.context = 1;
    kernel.stream = 7;
    kernel.grid[0] = 4;
    kernel.grid[1] = kernel.grid[2] = kernel.block[1] = kernel.block[2] = 1;
    kernel.block[0] = 128;
    kernel.dynamic_shared = 1024;
    kernel.correlation = correlation;
    kernel.name = name;
    memset(kernel.later, 0xee, sizeof kernel.later);
    return kernel;
}

static void tell(uint32_t site, uint32_t domain, uint32_t cbid, uint32_t correlation) {
    if (!now.subscribed || !now.wanted[domain][cbid]) return;
    struct callback_data data = {0};
    data.site = site;
    data.function = "launch";
    data.correlation = correlation;
    now.callback(now.user, domain, cbid, &data);
}

// The driver's stand-in calls it for each launch: of a kernel, of a graph with nodes, or of a copy of bytes.
void fake_launch(const char *name, uint64_t ns, uint32_t graph, uint64_t nodes, uint64_t bytes) {
    static uint32_t last;
    uint32_t correlation = __sync_add_and_fetch(&last, 1);
    uint32_t cbid = graph ? 514 : 307;
    tell(0, 1, cbid, correlation);
    enter();
    uint64_t start = instant();
    if (now.enabled[DRIVER]) {
        struct call call = {DRIVER, cbid, start, start + 2000, 1, 2, correlation, 0};
        append(&call, sizeof call);
    }
    if (now.enabled[MEMCPY] && bytes) {
        struct copy copy = {0};
        copy.kind = MEMCPY;
        copy.copy_kind = 1;
        copy.source = 1;
        copy.destination = 3;
        copy.bytes = bytes;
        copy.start = start + 1000;
        copy.end = start + 1000 + ns;
        copy.context = 1;
        copy.stream = 7;
        copy.correlation = correlation;
        append(&copy, stride(MEMCPY));
    }
    // Known of 13.0: from the second session on graphs have wrong correlation ids.
    int is_wrong = now.version >= 130000 && now.version < 130101 && now.subscriptions > 1;
    if (now.enabled[CONCURRENT] && !bytes) {
        uint64_t count = graph ? nodes : 1;
        for (uint64_t node = 0; node < count; node++) {
            struct kernel kernel = kernel_of(name, start + 1000 + node * ns, ns, correlation);
            kernel.graph = graph;
            kernel.graph_node = graph ? node + 1 : 0;
            if (graph && is_wrong) kernel.correlation += 1000;
            append_kernel(&kernel);
        }
    }
    leave();
    // It lasts as long as it says, so that nothing is told before it was.
    uint64_t end = start + 1000 + (graph ? nodes : 1) * ns;
    while (instant() <= end) {}
    tell(1, 1, cbid, correlation);
}

__attribute__((constructor)) static void begin(void) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&lock, &kind);
    Dl_info info;
    char path[4096];
    if (!dladdr((void *)begin, &info)) die("it does not find itself");
    snprintf(path, sizeof path, "%s.script", info.dli_fname);
    FILE *file = fopen(path, "r");
    if (file) {
        size_t read = fread(script + 1, 1, sizeof script - 2, file);
        script[read + 1] = 0;
        fclose(file);
    }
    now.version = (uint32_t)setting("version", strstr(info.dli_fname, ".so.13") ? 130101 : 24);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    void **hook = driver ? dlsym(driver, "fake_cuda_hook") : NULL;
    if (hook) *hook = (void *)fake_launch;
}

uint32_t cuptiGetVersion(uint32_t *version) {
    uint32_t answer = without_driver(1);
    if (!answer) *version = now.version;
    return answer;
}

uint32_t cuptiGetTimestamp(uint64_t *at) {
    uint32_t answer = without_driver(1);
    if (!answer) *at = instant();
    return answer;
}

uint32_t cuptiSubscribe(void **subscriber, callback_t callback, void *user) {
    uint32_t answer = without_driver(0);
    if (answer) return answer;
    if (setting("taken", 0) || now.subscribed) return TAKEN;
    now.callback = callback;
    now.user = user;
    now.subscribed = 1;
    now.subscriptions++;
    *subscriber = &now;
    return OK;
}

uint32_t cuptiUnsubscribe(void *subscriber) {
    if (subscriber != &now || !now.subscribed) return INVALID_PARAMETER;
    now.subscribed = 0;
    memset(now.wanted, 0, sizeof now.wanted);
    return OK;
}

uint32_t cuptiEnableDomain(uint32_t on, void *subscriber, uint32_t domain) {
    if (subscriber != &now || domain >= 8) return INVALID_PARAMETER;
    for (int cbid = 0; cbid < 1024; cbid++) now.wanted[domain][cbid] = (int)on;
    return OK;
}

static uint32_t set_enabled(uint32_t kind, int on) {
    uint32_t answer = without_driver(0);
    if (answer) return answer;
    if (kind >= KINDS || !stride(kind)) return INVALID_KIND;
    if (on && setting("refuse", 0)) return (uint32_t)setting("refuse", 0);
    if (kind == KERNEL) die("kernels were enabled one at a time");
    enter();
    now.enabled[kind] = on;
    leave();
    return OK;
}

uint32_t cuptiActivityEnable(uint32_t kind) { return set_enabled(kind, 1); }

uint32_t cuptiActivityDisable(uint32_t kind) { return set_enabled(kind, 0); }

uint32_t cuptiActivityEnableDriverApi(uint32_t cbid, uint8_t on) {
    return cbid == 307 ? set_enabled(DRIVER, on) : OK;
}

uint32_t cuptiActivityEnableRuntimeApi(uint32_t cbid, uint8_t on) {
    (void)on;
    // Known of versions: they do not know the calls of later ones.
    return cbid > 500 && now.version < 130000 ? INVALID_PARAMETER : OK;
}

uint32_t cuptiActivityRegisterCallbacks(requested_t requested, completed_t completed) {
    uint32_t answer = without_driver(1);
    if (answer) return answer;
    if (setting("taken", 0)) die("another tool's buffers were taken from it");
    now.requested = requested;
    now.completed = completed;
    return OK;
}

uint32_t cuptiActivityFlushAll(uint32_t forced) {
    uint32_t answer = without_driver(0);
    if (answer) return answer;
    if (__sync_lock_test_and_set(&flushing, 1)) die("flushed by two threads at once");
    enter();
    if (forced && setting("unfinished", 0)) {
        struct kernel kernel = kernel_of("still_running", instant(), 0, 1);
        kernel.end = 0;
        append_kernel(&kernel);
    }
    if (forced || !setting("lazy", 0)) deliver();
    leave();
    for (long i = 0; forced && i < setting("state_errors", 0); i++)
        if (now.subscribed && now.wanted[6][2]) now.callback(now.user, 6, 2, NULL);
    __sync_lock_release(&flushing);
    return OK;
}

uint32_t cuptiActivityGetNextRecord(uint8_t *buffer, size_t size, uint8_t **record) {
    uint32_t answer = without_driver(1);
    if (answer) return answer;
    uint8_t *at = buffer;
    if (*record) {
        uint32_t kind;
        memcpy(&kind, *record, sizeof kind);
        size_t step = stride(kind);
        if (kind == CONCURRENT) step = (size_t)setting("told_stride", (long)step);
        if (!step) return INVALID_KIND;
        at = *record + step;
    }
    if (at >= buffer + size) return MAX_LIMIT;
    uint32_t kind;
    memcpy(&kind, at, sizeof kind);
    if (!stride(kind)) return INVALID_KIND;
    *record = at;
    return OK;
}

uint32_t cuptiActivityGetStructSize(uint32_t kind, uint32_t version, size_t *size) {
    (void)version;
    uint32_t answer = without_driver(0);
    if (answer) return answer;
    if (!stride(kind)) return INVALID_KIND;
    *size = stride(kind);
    if (kind == CONCURRENT) *size = (size_t)setting("told_stride", (long)*size);
    return OK;
}

uint32_t cuptiActivityGetNumDroppedRecords(void *context, uint32_t stream, size_t *dropped) {
    (void)context, (void)stream;
    enter();
    *dropped = now.dropped + (size_t)setting("drops", 0);
    now.dropped = 0;
    leave();
    return OK;
}

uint32_t cuptiActivitySetAttribute(uint32_t attribute, size_t *size, void *value) {
    (void)value;
    uint32_t answer = without_driver(0);
    if (answer) return answer;
    if (attribute > 9 || *size != (attribute == 5 || attribute == 9 ? 1 : 8)) return INVALID_PARAMETER;
    return OK;
}

uint32_t cuptiSetThreadIdType(uint32_t type) { return type == 1 ? OK : INVALID_PARAMETER; }
