// Small pages that become huge ones in place: by khugepaged, or by MADV_COLLAPSE.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

// Longest wait for khugepaged, milliseconds. Emulated machines are slow.
#define PATIENCE 120000

WL_FUNCTION void wl_touch_small(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

static char *map_aligned(uint64_t bytes, int fd) {
    char *start = mmap(NULL, bytes + WL_HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) wl_die("mmap to reserve");
    char *aligned = (char *)(((uintptr_t)start + WL_HUGE - 1) & ~(uintptr_t)(WL_HUGE - 1));
    int flags = MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
    if (mmap(aligned, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED) wl_die("mmap");
    return aligned;
}

static void pause_briefly(void) { nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); }

// Not charged to anything that the row compares: khugepaged charges the huge pages, then uncharges the small ones.
int wl_collapse(void) {
    uint64_t bytes = wl_even_bytes();
    wl_step(&(struct wl_step){.name = "ready"});
    char *start = map_aligned(bytes, -1);
    if (madvise(start, bytes, MADV_NOHUGEPAGE) != 0) wl_die("MADV_NOHUGEPAGE");
    wl_touch_small(start, bytes);
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_small", .resident.anon = (int64_t)bytes, .charged.anon = (int64_t)bytes});
    if (madvise(start, bytes, MADV_HUGEPAGE) != 0) wl_die("MADV_HUGEPAGE");
    uint64_t begin = wl_now();
    while (wl_huge_bytes() < (double)bytes && wl_now() - begin < PATIENCE * 1000000ull) pause_briefly();
    if (madvise(start, bytes, MADV_NOHUGEPAGE) != 0) wl_die("MADV_NOHUGEPAGE");
    wl_figure("huge", wl_huge_bytes());
    wl_step(&(struct wl_step){.name = "collapsed", .charged.anon = (int64_t)wl_huge_bytes()});
    if (munmap(start, bytes) != 0) wl_die("munmap");
    wl_step(&(struct wl_step){.name = "ended", .resident.anon = -(int64_t)bytes});
    return 0;
}

WL_FUNCTION void wl_collapse_now(char *start, uint64_t bytes) {
    int error = (int)-wl_syscall3(28 /* madvise */, (long)start, (long)bytes, MADV_COLLAPSE);
    wl_figure("collapse_error", error);
}

int wl_collapse_memfd(void) {
    uint64_t bytes = wl_even_bytes();
    wl_step(&(struct wl_step){.name = "ready"});
    int fd = memfd_create("memtrail-workload", MFD_CLOEXEC);
    if (fd < 0) wl_die("memfd_create");
    if (ftruncate(fd, (off_t)bytes) != 0) wl_die("ftruncate");
    char *start = map_aligned(bytes, fd);
    wl_touch_small(start, bytes);
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_small", .resident.shmem = (int64_t)bytes, .charged.shmem = (int64_t)bytes});
    wl_collapse_now(start, bytes);
    wl_step(&(struct wl_step){.name = "collapsed", .function = "wl_collapse_now", .charged.shmem = (int64_t)bytes});
    if (munmap(start, bytes) != 0) wl_die("munmap");
    close(fd);
    wl_step(&(struct wl_step){.name = "ended", .resident.shmem = -(int64_t)bytes});
    return 0;
}
