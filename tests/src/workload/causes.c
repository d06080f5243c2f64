// Causes of usage that the kernel's figures show and no allocator does.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void ready(void) { wl_step(&(struct wl_step){.name = "ready"}); }

WL_FUNCTION void wl_touch_sparsely(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_HUGE); }

WL_FUNCTION void wl_touch_lazily(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

WL_FUNCTION void wl_touch_spike(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

WL_FUNCTION void wl_touch_base(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

// A byte of each huge page; with --keep all of them, and none of them zeros.
int wl_sparse_huge(void) {
    uint64_t bytes = wl_even_bytes();
    ready();
    char *start = mmap(NULL, bytes + WL_HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) wl_die("mmap");
    char *aligned = (char *)(((uintptr_t)start + WL_HUGE - 1) & ~(uintptr_t)(WL_HUGE - 1));
    if (madvise(aligned, bytes, MADV_HUGEPAGE) != 0) wl_die("MADV_HUGEPAGE");
    if (wl_options.keep) {
        wl_touch_lazily(aligned, bytes);
    } else {
        wl_touch_sparsely(aligned, bytes);
    }
    wl_figure("huge", wl_huge_bytes());
    wl_step(&(struct wl_step){.name = "touched"});
    return 0;
}

// Freed with MADV_FREE; with --keep with MADV_DONTNEED.
int wl_lazy(void) {
    uint64_t bytes = wl_even_bytes();
    ready();
    char *start = wl_map_small(bytes);
    wl_touch_lazily(start, bytes);
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_lazily", .resident.anon = (int64_t)bytes, .charged.anon = (int64_t)bytes});
    if (madvise(start, bytes, wl_options.keep ? MADV_DONTNEED : MADV_FREE) != 0) wl_die("MADV_FREE");
    wl_figure("lazy", wl_smaps_bytes("LazyFree"));
    wl_step(&(struct wl_step){.name = "freed"});
    return 0;
}

// Pipes that nobody reads, full.
int wl_pipes(void) {
    uint64_t left = wl_options.bytes, written = 0;
    static char block[WL_PIECE];
    ready();
    while (left > 0) {
        int ends[2];
        if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) wl_die("pipe2");
        // Without the right to a larger one it stays as it is.
        (void)fcntl(ends[1], F_SETPIPE_SZ, (int)WL_MIB);
        ssize_t got;
        while (left > 0 && (got = write(ends[1], block, sizeof block)) > 0) {
            written += (uint64_t)got;
            left -= (uint64_t)got < left ? (uint64_t)got : left;
        }
        if (left > 0 && errno != EAGAIN) wl_die("write to a pipe");
    }
    wl_figure("written", (double)written);
    wl_step(&(struct wl_step){.name = "full"});
    return 0;
}

// --rounds spikes of --bytes, each for --milliseconds and then as long a pause, beside an eighth of that which stays.
int wl_spikes(void) {
    uint64_t bytes = wl_even_bytes();
    char *base = wl_map_small(bytes / 8);
    ready();
    wl_touch_base(base, bytes / 8);
    for (uint64_t round = 0; round < (wl_options.rounds ? wl_options.rounds : 3); round++) {
        char *spike = wl_map_small(bytes);
        wl_touch_spike(spike, bytes);
        usleep((useconds_t)wl_options.milliseconds * 1000);
        if (munmap(spike, bytes) != 0) wl_die("munmap");
        usleep((useconds_t)wl_options.milliseconds * 1000);
    }
    wl_step(&(struct wl_step){.name = "over"});
    return 0;
}
