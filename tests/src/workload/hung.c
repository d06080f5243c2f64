// A process whose address space stays locked, because a file server does not answer.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define TARGET_BYTES (64 * WL_PAGE)

static int cached, direct;
static char *target;
static char buffer[WL_PAGE];
static volatile bool reading, mapping;

static void pause_ms(long milliseconds) {
    struct timespec pause = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

// Its page stays locked until the answer comes.
static void *read_through_the_cache(void *unused) {
    reading = true;
    if (read(cached, buffer, sizeof buffer) >= 0) fprintf(stderr, "the server answered\n");
    return unused;
}

// A file that is read past the page cache has its cached pages dropped when it is mapped: that waits for the locked page, in mmap, which holds
// the address space. What is mapped over is taken out before, so that no reader gets past it either.
static void *map_past_the_cache(void *unused) {
    mapping = true;
    mmap(target, TARGET_BYTES, PROT_READ, MAP_PRIVATE | MAP_FIXED, direct, 0);
    return unused;
}

int wl_hung(void) {
    pthread_t reader, mapper;
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) wl_die("PR_SET_THP_DISABLE");
    wl_step(&(struct wl_step){.name = "ready"});
    wl_store_pages(wl_map_small(wl_options.bytes), wl_options.bytes, WL_PAGE);
    target = wl_map_small(3 * TARGET_BYTES) + TARGET_BYTES;
    wl_store_pages(target, TARGET_BYTES, WL_PAGE);
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_hung"});
    cached = open(wl_options.file, O_RDONLY | O_CLOEXEC);
    direct = open(wl_options.file, O_RDONLY | O_CLOEXEC);
    if (cached < 0 || direct < 0) wl_die(wl_options.file);
    if (pthread_create(&reader, NULL, read_through_the_cache, NULL) != 0) wl_die("pthread_create");
    while (!reading) pause_ms(1);
    pause_ms(100);
    for (uint64_t i = 0; i < wl_options.rounds; i++) wl_storm_map();
    if (pthread_create(&mapper, NULL, map_past_the_cache, NULL) != 0) wl_die("pthread_create");
    while (!mapping) pause_ms(1);
    pause_ms(100);
    wl_step(&(struct wl_step){.name = "hung"});
    return 0;
}
