// Private anonymous memory in 4 KiB pages: touched, unmapped in parts, moved, locked, recycled.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static void ready(void) { wl_step(&(struct wl_step){.name = "ready"}); }

static void touched(const char *step, const char *function, uint64_t bytes) {
    wl_step(&(struct wl_step){.name = step, .function = function, .resident.anon = (int64_t)bytes, .charged.anon = (int64_t)bytes});
}

static void freed(const char *step, uint64_t bytes) { wl_step(&(struct wl_step){.name = step, .resident.anon = -(int64_t)bytes}); }

static void unmap(char *start, uint64_t bytes) {
    if (munmap(start, bytes) != 0) wl_die("munmap");
}

WL_FUNCTION void wl_touch_anon(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

int wl_anon(void) {
    uint64_t bytes = wl_even_bytes();
    ready();
    char *start = wl_map_small(bytes);
    wl_touch_anon(start, bytes);
    touched("touched", "wl_touch_anon", bytes);
    for (uint64_t at = 0; at < bytes; at += 2 * WL_MIB) unmap(start + at, WL_MIB);
    freed("freed", bytes / 2);
    unmap(start, bytes);
    freed("ended", bytes / 2);
    return 0;
}

int wl_exit_without_free(void) {
    uint64_t bytes = wl_even_bytes();
    ready();
    char *start = wl_map_small(bytes);
    wl_touch_anon(start, bytes);
    touched("touched", "wl_touch_anon", bytes);
    return 0;
}

int wl_holes(void) {
    const uint64_t block = 128ul << 10;
    uint64_t bytes = wl_even_bytes(), gone = 0;
    ready();
    char *start = wl_map_small(bytes);
    wl_touch_anon(start, bytes);
    touched("touched", "wl_touch_anon", bytes);
    for (uint64_t at = 0; at < bytes; at += block) {
        uint64_t hole = (at / block % 16 + 1) * WL_PAGE;
        unmap(start + at + 4 * WL_PAGE, hole);
        gone += hole;
    }
    freed("holes", gone);
    unmap(start, bytes);
    freed("ended", bytes - gone);
    return 0;
}

WL_FUNCTION void wl_touch_grown(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

int wl_mremap(void) {
    uint64_t bytes = wl_even_bytes(), half = bytes / 2;
    ready();
    char *start = wl_map_small(half);
    wl_touch_anon(start, half);
    touched("touched", "wl_touch_anon", half);
    start = mremap(start, half, bytes, MREMAP_MAYMOVE);
    if (start == MAP_FAILED) wl_die("mremap to grow");
    wl_touch_grown(start + half, half);
    touched("grown", "wl_touch_grown", half);
    char *target = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (target == MAP_FAILED) wl_die("mmap of the target");
    start = mremap(start, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    if (start == MAP_FAILED) wl_die("mremap to move");
    touched("moved", NULL, 0);
    start = mremap(start, bytes, half, 0);
    if (start == MAP_FAILED) wl_die("mremap to shrink");
    freed("shrunk", half);
    unmap(start, half);
    freed("ended", half);
    return 0;
}

int wl_mlock(void) {
    uint64_t bytes = wl_even_bytes();
    ready();
    char *start = wl_map_small(bytes);
    // MLOCK_ONFAULT: the pages are made by the touch, not by mlock.
    if (mlock2(start, bytes, MLOCK_ONFAULT) != 0) wl_die("mlock2");
    wl_touch_anon(start, bytes);
    touched("touched", "wl_touch_anon", bytes);
    unmap(start, bytes / 2);
    freed("freed", bytes / 2);
    if (munlock(start + bytes / 2, bytes / 2) != 0) wl_die("munlock");
    touched("unlocked", NULL, 0);
    unmap(start + bytes / 2, bytes / 2);
    freed("ended", bytes / 2);
    return 0;
}

WL_FUNCTION void wl_touch_recycled(char *start) { wl_store_pages(start, 64 * WL_PAGE, WL_PAGE); }

int wl_recycle(void) {
    const uint64_t round = 64 * WL_PAGE;
    uint64_t rounds = wl_options.rounds ? wl_options.rounds : (wl_options.bytes + round - 1) / round;
    ready();
    for (uint64_t i = 0; i < rounds; i++) {
        char *start = wl_map_small(round);
        wl_touch_recycled(start);
        unmap(start, round);
    }
    wl_figure("rounds", (double)rounds);
    wl_step(&(struct wl_step){.name = "recycled", .function = "wl_touch_recycled", .charged.anon = (int64_t)(rounds * round)});
    return 0;
}

WL_FUNCTION void wl_touch_oom(char *start) { wl_store_pages(start, WL_MIB, WL_PAGE); }

// Up to --bytes, so that a missing limit does not take the host down. Exits with 4 when nothing stopped it.
WL_FUNCTION void wl_grow_a_step(char *start) { wl_store_pages(start, WL_MIB, WL_PAGE); }

// Touches 1 MiB every --milliseconds up to --bytes, in a child that ends with this process.
int wl_grow(void) {
    ready();
    pid_t parent = getpid(), child = fork();
    if (child < 0) wl_die("fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) _exit(1);
        for (uint64_t at = 0; at < wl_options.bytes; at += WL_MIB) {
            wl_grow_a_step(wl_map_small(WL_MIB));
            usleep((useconds_t)(wl_options.milliseconds * 1000));
        }
        for (;;) pause();
    }
    wl_figure("child", (double)child);
    touched("growing", "wl_grow_a_step", 0);
    return 0;
}

int wl_oom(void) {
    ready();
    for (uint64_t at = 0; at < wl_options.bytes; at += WL_MIB) wl_touch_oom(wl_map_small(WL_MIB));
    touched("survived", "wl_touch_oom", (wl_options.bytes + WL_MIB - 1) / WL_MIB * WL_MIB);
    return 4;
}
