// Private anonymous memory in 2 MiB pages.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

WL_FUNCTION void wl_touch_huge(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

double wl_smaps_bytes(const char *field) {
    FILE *smaps = fopen("/proc/self/smaps", "re");
    if (!smaps) wl_die("/proc/self/smaps");
    char line[512];
    size_t length = strlen(field);
    unsigned long kib, sum = 0;
    while (fgets(line, sizeof line, smaps)) {
        if (strncmp(line, field, length) == 0 && sscanf(line + length, ": %lu kB", &kib) == 1) sum += kib;
    }
    fclose(smaps);
    return (double)sum * 1024;
}

double wl_huge_bytes(void) { return wl_smaps_bytes("AnonHugePages"); }

// Reserves, aligns and touches; the mapping begins at the aligned address.
static char *touch_aligned(uint64_t bytes) {
    char *start = mmap(NULL, bytes + WL_HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) wl_die("mmap");
    char *aligned = (char *)(((uintptr_t)start + WL_HUGE - 1) & ~(uintptr_t)(WL_HUGE - 1));
    if (madvise(aligned, bytes, MADV_HUGEPAGE) != 0) wl_die("MADV_HUGEPAGE");
    wl_step(&(struct wl_step){.name = "ready"});
    wl_touch_huge(aligned, bytes);
    /* Or khugepaged makes the holes whole again, and charges for it. */
    if (madvise(aligned, bytes, MADV_NOHUGEPAGE) != 0) wl_die("MADV_NOHUGEPAGE");
    wl_figure("huge", wl_huge_bytes());
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_huge", .resident.anon = (int64_t)bytes, .charged.anon = (int64_t)bytes});
    return aligned;
}

int wl_thp_whole(void) {
    uint64_t bytes = wl_even_bytes();
    char *start = touch_aligned(bytes);
    for (uint64_t at = 0; at < bytes; at += 2 * WL_HUGE) {
        if (munmap(start + at, WL_HUGE) != 0) wl_die("munmap");
    }
    wl_step(&(struct wl_step){.name = "freed", .resident.anon = -(int64_t)(bytes / 2)});
    if (munmap(start, bytes) != 0) wl_die("munmap");
    wl_step(&(struct wl_step){.name = "ended", .resident.anon = -(int64_t)(bytes / 2)});
    return 0;
}

int wl_thp_holes(void) {
    uint64_t bytes = wl_even_bytes();
    char *start = touch_aligned(bytes);
    for (uint64_t at = 0; at < bytes; at += 2 * WL_PAGE) {
        if (madvise(start + at, WL_PAGE, MADV_DONTNEED) != 0) wl_die("MADV_DONTNEED");
    }
    // The folios stay charged whole until reclaim splits them.
    wl_step(&(struct wl_step){.name = "holes", .resident.anon = -(int64_t)(bytes / 2), .unmapped = (int64_t)(bytes / 2)});
    if (munmap(start, bytes) != 0) wl_die("munmap");
    wl_step(&(struct wl_step){.name = "ended", .resident.anon = -(int64_t)(bytes / 2), .unmapped = -(int64_t)(bytes / 2)});
    return 0;
}

WL_FUNCTION void wl_touch_hugetlb(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_HUGE); }

// Pages of hugetlbfs. Whether they are charged at all depends on the kernel and on how its cgroups are mounted.
int wl_hugetlb(void) {
    uint64_t bytes = wl_even_bytes();
    wl_step(&(struct wl_step){.name = "ready"});
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (start == MAP_FAILED) wl_die("mmap of huge pages");
    wl_touch_hugetlb(start, bytes);
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_hugetlb"});
    if (munmap(start, bytes) != 0) wl_die("munmap");
    wl_step(&(struct wl_step){.name = "ended"});
    // Shared: pages of a file of the kernel's own.
    start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (start == MAP_FAILED) wl_die("mmap of shared huge pages");
    wl_touch_hugetlb(start, bytes);
    wl_step(&(struct wl_step){.name = "shared", .function = "wl_touch_hugetlb"});
    if (munmap(start, bytes) != 0) wl_die("munmap");
    wl_step(&(struct wl_step){.name = "over"});
    return 0;
}
