// Anonymous memory that goes to swap and comes back.
#define _GNU_SOURCE
#include "workload.h"

#include <sys/mman.h>
#include <time.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

// Longest wait for the pages to leave, milliseconds.
#define PATIENCE 60000

WL_FUNCTION void wl_touch_first(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }
WL_FUNCTION void wl_touch_again(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

static double swapped_bytes(void) { return wl_smaps_bytes("Swap"); }

int wl_swap(void) {
    uint64_t bytes = wl_even_bytes();
    wl_step(&(struct wl_step){.name = "ready"});
    char *start = wl_map_small(bytes);
    wl_touch_first(start, bytes);
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_first", .resident.anon = (int64_t)bytes, .charged.anon = (int64_t)bytes});
    // Pages under writeback come out of the cache at the next attempt.
    uint64_t begin = wl_now();
    do {
        if (madvise(start, bytes, MADV_PAGEOUT) != 0) wl_die("MADV_PAGEOUT");
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    } while (swapped_bytes() < 0.98 * (double)bytes && wl_now() - begin < PATIENCE * 1000000ull);
    double swapped = swapped_bytes();
    wl_figure("swapped", swapped);
    wl_step(&(struct wl_step){.name = "swapped", .resident.anon = -(int64_t)swapped});
    wl_touch_again(start, bytes);
    wl_figure("swapped", swapped_bytes());
    wl_step(&(struct wl_step){.name = "back", .function = "wl_touch_again", .resident.anon = (int64_t)swapped, .charged.anon = (int64_t)swapped});
    return 0;
}
