// Known times: how long memory lives, and how long reads wait for memory.
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char page[WL_PAGE];

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

// Smallest of the sorted values that the share of all does not exceed.
static double quantile(const uint64_t *sorted, uint64_t count, double share) {
    uint64_t rank = (uint64_t)(share * (double)count + 0.999999);
    return (double)sorted[rank > 0 ? rank - 1 : 0];
}

// Figures "p50SUFFIX" and so on.
static void tell(const char *suffix, uint64_t *values, uint64_t count) {
    static const struct {
        const char *name;
        double share;
    } quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"max", 1.0}};
    qsort(values, count, sizeof *values, by_value);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s%s", quantiles[i].name, suffix);
        wl_figure(name, count ? quantile(values, count, quantiles[i].share) : 0);
    }
}

// On one CPU: memory that another one still has in a batch is freed later than it is unmapped.
static void stay_here(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) wl_die("sched_setaffinity");
}

// Before all others, as far as that is allowed: what waits for the CPU runs when a reclaim is over, which is when the read goes on.
static void go_first(void) {
    struct sched_param first = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO, &first) != 0 && setpriority(PRIO_PROCESS, 0, -20) != 0) wl_die("setpriority");
}

#define BLOCK (4 * WL_PAGE)
#define SHORTEST_NS 10000000ul
#define EVERY_NS 400000ul

struct block {
    char *start;
    uint64_t born, touched, lives;
};

WL_FUNCTION void wl_touch_block(char *start) { wl_store_pages(start, BLOCK, WL_PAGE); }

// Blocks are born one after the other and live for 10 to 100 ms, as many as that in each tenth of this range.
int wl_lifetimes(void) {
    uint64_t count = wl_options.rounds ? wl_options.rounds : 2000;
    struct block *blocks = calloc(count, sizeof *blocks);
    // From the end of the touch to the beginning of the unmapping, and from the beginning to the end: the truth is between.
    uint64_t *least = calloc(count, sizeof *least), *most = calloc(count, sizeof *most);
    if (!blocks || !least || !most) wl_die("calloc");
    stay_here();
    for (uint64_t i = 0; i < count; i++) {
        blocks[i].lives = SHORTEST_NS + i * 7919 % count * (9 * SHORTEST_NS) / count;
        least[i] = most[i] = 0;
    }
    wl_step(&(struct wl_step){.name = "ready"});
    uint64_t began = wl_now(), born = 0, ended = 0, oldest = 0;
    while (ended < count) {
        if (born < count && wl_now() >= began + born * EVERY_NS) {
            blocks[born].start = wl_map_small(BLOCK);
            blocks[born].born = wl_now();
            wl_touch_block(blocks[born].start);
            blocks[born++].touched = wl_now();
        }
        for (uint64_t i = oldest; i < born; i++) {
            uint64_t now = wl_now();
            if (!blocks[i].start || now < blocks[i].born + blocks[i].lives) continue;
            least[ended] = now - blocks[i].touched;
            if (munmap(blocks[i].start, BLOCK) != 0) wl_die("munmap");
            most[ended++] = wl_now() - blocks[i].born;
            blocks[i].start = NULL;
        }
        while (oldest < born && !blocks[oldest].start) oldest++;
    }
    tell("_least_ns", least, count);
    tell("_most_ns", most, count);
    wl_figure("pages", (double)(count * BLOCK / WL_PAGE));
    wl_step(&(struct wl_step){.name = "ended", .function = "wl_touch_block", .charged = {.anon = (int64_t)(count * BLOCK)}});
    return 0;
}

WL_FUNCTION void wl_touch_high(char *start) { wl_store_pages(start, WL_PAGE, WL_PAGE); }

// Shorter waits can be anything; the kernel's own shortest for being over memory.high is 10 ms.
#define HELD_UP_NS 5000000ul
#define LONGEST 5

// Touches page by page and says how long those touches took that were held up, the longest one by one.
int wl_held_up(void) {
    uint64_t bytes = wl_even_bytes(), count = bytes / WL_PAGE, held = 0;
    uint64_t *took = calloc(count, sizeof *took);
    char *start = wl_map_small(bytes);
    if (!took) wl_die("calloc");
    for (uint64_t i = 0; i < count; i++) took[i] = 1;
    wl_step(&(struct wl_step){.name = "ready"});
    for (uint64_t i = 0; i < count; i++) {
        uint64_t began = wl_now();
        wl_touch_high(start + i * WL_PAGE);
        uint64_t now = wl_now();
        if (now - began >= HELD_UP_NS) took[held++] = now - began;
    }
    wl_figure("count", (double)held);
    tell("_ns", took, held);
    for (uint64_t i = 0; i < LONGEST && i < held; i++) {
        char name[32];
        snprintf(name, sizeof name, "longest_%d_ns", (int)i);
        wl_figure(name, (double)took[held - 1 - i]);
    }
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_high", .resident.anon = (int64_t)bytes, .charged.anon = (int64_t)bytes});
    return 0;
}

WL_FUNCTION void wl_read_page(int fd, uint64_t at) {
    if (pread(fd, page, WL_PAGE, (off_t)at) != (ssize_t)WL_PAGE) wl_die("pread");
}

// Counts a tracepoint in this thread: which reads meet a reclaim is known then, however busy the machine. -1 without a number.
static int count_tracepoint(const char *number) {
    if (!number) return -1;
    struct perf_event_attr attribute = {.type = PERF_TYPE_TRACEPOINT, .size = sizeof attribute, .config = strtoull(number, NULL, 10)};
    int fd = (int)syscall(SYS_perf_event_open, &attribute, 0, -1, -1, 0);
    if (fd < 0) wl_die("perf_event_open");
    return fd;
}

static uint64_t counted(int fd) {
    uint64_t count = 0;
    if (fd >= 0 && read(fd, &count, sizeof count) != sizeof count) wl_die("read of a counter");
    return count;
}

#define READS_AT_ONCE 32

// Reads a file of holes page by page: no disk, and at the cgroup's limit a reclaim of clean pages now and then. With the number of a
// tracepoint in MEMTRAIL_RECLAIM_ID those reads are slow in which it fires once, else those that take four times the median; what they take
// beyond the median is their wait.
int wl_slow_reads(void) {
    uint64_t bytes = wl_even_bytes(), count = bytes / WL_PAGE, slow = 0;
    char name[64], path[4096];
    snprintf(name, sizeof name, "memtrail-workload-holes.%d", (int)getpid());
    wl_path(path, sizeof path, name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) wl_die(path);
    if (unlink(path) != 0 || ftruncate(fd, (off_t)bytes) != 0) wl_die("ftruncate");
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM) != 0) wl_die("posix_fadvise");
    uint64_t *took = calloc(count, sizeof *took), *sorted = calloc(count, sizeof *sorted);
    if (!took || !sorted) wl_die("calloc");
    bool *reclaimed = calloc(count, sizeof *reclaimed);
    if (!reclaimed) wl_die("calloc");
    for (uint64_t i = 0; i < count; i++) took[i] = sorted[i] = reclaimed[i] = 1;
    int reclaims = count_tracepoint(getenv("MEMTRAIL_RECLAIM_ID"));
    stay_here();
    if (reclaims >= 0) go_first();
    wl_step(&(struct wl_step){.name = "ready"});
    for (uint64_t i = 0; i < count; i++) {
        // Others must run too, and the kernel stops who never lets them.
        if (reclaims >= 0 && i % READS_AT_ONCE == 0) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        uint64_t before = counted(reclaims), began = wl_now();
        wl_read_page(fd, i * WL_PAGE);
        sorted[i] = took[i] = wl_now() - began;
        reclaimed[i] = counted(reclaims) == before + 1;
    }
    qsort(sorted, count, sizeof *sorted, by_value);
    uint64_t median = sorted[count / 2];
    for (uint64_t i = 0; i < count; i++)
        if (reclaims >= 0 ? reclaimed[i] : took[i] >= 4 * median) took[slow++] = took[i] - median;
    wl_figure("count", (double)slow);
    tell("_ns", took, slow);
    wl_figure("median_ns", (double)median);
    wl_step(&(struct wl_step){.name = "ended", .function = "wl_read_page"});
    return 0;
}
