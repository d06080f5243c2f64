// One process with memory of each region class that malloc and threads make, of known sizes.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// Below glibc's threshold for mappings of their own, above what its caches of small blocks keep.
#define BLOCK (96ul << 10)
#define STACK_BYTES (256ul << 10)
#define MAPPED_BYTES (8 * WL_MIB)

static pthread_barrier_t filled, ended;
static uint64_t bytes_each;

// Without huge pages: what is touched is what is resident.
static void ready(void) {
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) wl_die("PR_SET_THP_DISABLE");
    wl_step(&(struct wl_step){.name = "ready"});
}

// Stores, not memset: its frame would hide the caller's.
WL_INLINE void touch_blocks(uint64_t bytes) {
    for (uint64_t done = 0; done < bytes; done += BLOCK) {
        char *block = malloc(BLOCK);
        if (!block) wl_die("malloc");
        wl_store_pages(block, BLOCK, WL_PAGE);
        *(volatile char *)(block + BLOCK - 1) = 1;
    }
}

WL_FUNCTION void wl_fill_heap(uint64_t bytes) { touch_blocks(bytes); }

WL_FUNCTION void wl_fill_thread_arena(uint64_t bytes) { touch_blocks(bytes); }

WL_FUNCTION void wl_fill_stack(void) {
    char space[STACK_BYTES];
    wl_store_pages(space, sizeof space, WL_PAGE);
    __asm__ volatile("" : : "r"(space) : "memory");
}

static void *thread(void *argument) {
    (void)argument;
    wl_fill_stack();
    wl_fill_thread_arena(bytes_each);
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&ended);
    return NULL;
}

// Sum of the numbers that follow `what` from `text` on; how often it is there in `count`.
static double sum(const char *text, const char *what, double *count) {
    double total = 0;
    *count = 0;
    for (const char *at = text; at && (at = strstr(at, what)); *count += 1) {
        at += strlen(what);
        total += strtod(at, NULL);
    }
    return total;
}

// What glibc itself says of its arenas other than the main one.
static void arena_figures(void) {
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    if (!stream || malloc_info(0, stream) != 0 || fclose(stream) != 0) wl_die("malloc_info");
    double arenas, unused;
    sum(text, "<heap nr=\"", &arenas);
    // From the first arena after the main one to the end of the last: what follows sums all of them up.
    char *others = strstr(text, "<heap nr=\"1\""), *end = others;
    for (char *at = others; at; at = strstr(at + 1, "</heap>")) end = at;
    if (end) *end = 0;
    wl_figure("arenas", arenas);
    wl_figure("arena_committed", sum(others, "<aspace type=\"mprotect\" size=\"", &unused));
    wl_figure("heaps", sum(others, "<aspace type=\"subheaps\" size=\"", &unused));
    free(text);
}

int wl_regions(void) {
    uint64_t threads = wl_options.threads ? wl_options.threads : 1;
    if (threads > 1024) {
        errno = EINVAL;
        wl_die("--threads from 1 to 1024");
    }
    bytes_each = wl_options.bytes / threads / BLOCK * BLOCK;
    pthread_barrier_init(&filled, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&ended, NULL, (unsigned)threads + 1);
    ready();
    wl_fill_heap(bytes_each);
    char *mapped = malloc(MAPPED_BYTES);
    if (!mapped) wl_die("malloc");
    wl_store_pages(mapped, MAPPED_BYTES, WL_PAGE);
    pthread_t *all = calloc(threads, sizeof *all);
    if (!all) wl_die("calloc");
    for (uint64_t i = 0; i < threads; i++) {
        if (pthread_create(&all[i], NULL, thread, NULL) != 0) wl_die("pthread_create");
    }
    pthread_barrier_wait(&filled);
    arena_figures();
    wl_figure("heap_bytes", (double)bytes_each);
    wl_figure("thread_bytes", (double)(bytes_each * threads));
    wl_figure("stack_bytes", (double)(STACK_BYTES * threads));
    wl_figure("mapped_bytes", (double)MAPPED_BYTES);
    wl_step(&(struct wl_step){.name = "filled"});
    pthread_barrier_wait(&ended);
    for (uint64_t i = 0; i < threads; i++) pthread_join(all[i], NULL);
    free(all);
    free(mapped);
    return 0;
}

// A parent that fills its heap and ends: only its child maps that memory then.
int wl_left_behind(void) {
    ready();
    wl_fill_heap(wl_options.bytes / BLOCK * BLOCK);
    pid_t parent = getpid(), child = fork();
    if (child < 0) wl_die("fork");
    if (child > 0) _exit(0);
    // Also where a subreaper takes it.
    while (getppid() == parent) usleep(1000);
    wl_figure("heap_bytes", (double)(wl_options.bytes / BLOCK * BLOCK));
    wl_step(&(struct wl_step){.name = "left"});
    return 0;
}

// The calls themselves, not libc's functions, which have no frame pointers.
WL_FUNCTION char *wl_map_untouched(uint64_t bytes, uint64_t protection) {
    long at = wl_syscall6(SYS_mmap, 0, (long)bytes, (long)protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at < 0 && at > -4096) {
        errno = (int)-at;
        wl_die("mmap");
    }
    return (char *)at;
}

WL_FUNCTION void wl_grow_heap(uint64_t bytes) {
    long end = wl_syscall3(SYS_brk, 0, 0, 0);
    if (wl_syscall3(SYS_brk, end + (long)bytes, 0, 0) != end + (long)bytes) {
        errno = ENOMEM;
        wl_die("brk");
    }
}

WL_FUNCTION void wl_open_half(char *start, uint64_t bytes) {
    if (wl_syscall3(SYS_mprotect, (long)start, (long)(bytes / 2), PROT_READ | PROT_WRITE) != 0) wl_die("mprotect");
}

WL_FUNCTION char *wl_move(char *start, uint64_t from, uint64_t to) {
    long at = wl_syscall6(SYS_mremap, (long)start, (long)from, (long)to, MREMAP_MAYMOVE, 0, 0);
    if (at < 0 && at > -4096) wl_die("mremap");
    return (char *)at;
}

// Address space that nobody touches: --bytes by mmap, as much reserved and half of that opened, a quarter by brk, an eighth that is
// made twice as long by mremap; and a sixteenth that is given back. With --rounds after a storm of so many mappings, and a pause.
int wl_reserve(void) {
    uint64_t bytes = wl_even_bytes();
    ready();
    for (uint64_t i = 0; i < wl_options.rounds; i++) wl_storm_map();
    if (wl_options.rounds) wl_step(&(struct wl_step){.name = "stormed"});
    wl_map_untouched(bytes, PROT_READ | PROT_WRITE);
    char *reserved = wl_map_untouched(bytes, PROT_NONE);
    wl_open_half(reserved, bytes);
    wl_grow_heap(bytes / 4);
    char *small = wl_map_untouched(bytes / 8, PROT_READ);
    wl_move(small, bytes / 8, bytes / 4);
    char *back = wl_map_untouched(bytes / 16, PROT_READ);
    if (munmap(back, bytes / 16) != 0) wl_die("munmap");
    wl_step(&(struct wl_step){.name = "reserved"});
    return 0;
}

// Address space in known sizes: the n-th of 120 mappings has 1 + n * n / 8 pages, and the n-th of 60 growths of the heap has n pages. Fewer calls
// than a storm, so that each counts for itself.
int wl_sizes(void) {
    ready();
    for (uint64_t n = 1; n <= 120; n++) wl_map_untouched((1 + n * n / 8) * WL_PAGE, PROT_NONE);
    for (uint64_t n = 1; n <= 60; n++) wl_grow_heap(n * WL_PAGE);
    wl_step(&(struct wl_step){.name = "asked"});
    return 0;
}

// --rounds mappings of a page, which the kernel cannot merge.
int wl_many_mappings(void) {
    ready();
    for (uint64_t n = 0; n < wl_options.rounds; n++) wl_map_untouched(WL_PAGE, n % 2 ? PROT_READ : PROT_READ | PROT_WRITE);
    wl_step(&(struct wl_step){.name = "mapped"});
    return 0;
}
