// Compiled without frame pointers: stacks from here must be shown as cut, never joined to a caller that did not call.
#define _GNU_SOURCE
#include "workload.h"

#include <sys/mman.h>

// The frame-pointer register holds a counter, as it often does in optimised code: it points nowhere.
WL_FUNCTION void nofp_touch(char *start, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += WL_PAGE) {
        __asm__ volatile("mov %1, %%rbp\n\tmovb $1, (%0)" : : "r"(start + at), "r"(at / WL_PAGE + 1) : "rbp", "memory");
    }
}

WL_FUNCTION void nofp_middle(char *start, uint64_t bytes) {
    nofp_touch(start, bytes / 2);
    nofp_touch(start + bytes / 2, bytes / 2);
}

WL_FUNCTION void nofp_outer(char *start, uint64_t bytes) {
    nofp_middle(start, bytes / 2);
    nofp_middle(start + bytes / 2, bytes / 2);
}

int wl_omit_fp(void) {
    uint64_t bytes = wl_even_bytes();
    wl_step(&(struct wl_step){.name = "ready"});
    char *start = wl_map_small(bytes);
    nofp_outer(start, bytes);
    wl_step(&(struct wl_step){.name = "touched", .function = "nofp_touch", .resident.anon = (int64_t)bytes, .charged.anon = (int64_t)bytes});
    if (munmap(start, bytes) != 0) wl_die("munmap");
    wl_step(&(struct wl_step){.name = "ended", .resident.anon = -(int64_t)bytes});
    return 0;
}
