// Memory of several processes and threads: copy on write, short lives, malloc arenas.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void anon_step(const char *name, const char *function, int64_t resident, uint64_t charged) {
    wl_step(&(struct wl_step){.name = name, .function = function, .resident.anon = resident, .charged.anon = (int64_t)charged});
}

WL_FUNCTION void wl_touch_parent(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }
WL_FUNCTION void wl_cow_child(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }
WL_FUNCTION void wl_cow_parent(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

static void pass_byte(int fd) {
    if (write(fd, "x", 1) != 1) wl_die("pipe");
}

static void await_byte(int fd) {
    char byte;
    ssize_t got;
    do got = read(fd, &byte, 1);
    while (got < 0 && errno == EINTR);
    if (got != 1) wl_die("pipe closed");
}

void wl_reap(pid_t child) {
    int status;
    pid_t got;
    do got = waitpid(child, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0) wl_die("waitpid");
    if (status != 0) {
        errno = ECHILD;
        wl_die("a child failed");
    }
}

// The child copies the first half, the parent the second: three halves more than one page for each are never resident at once.
int wl_fork_cow(void) {
    uint64_t bytes = wl_even_bytes(), half = bytes / 2;
    int to_child[2], to_parent[2];
    if (pipe(to_child) != 0 || pipe(to_parent) != 0) wl_die("pipe");
    anon_step("ready", NULL, 0, 0);
    char *start = wl_map_small(bytes);
    wl_touch_parent(start, bytes);
    anon_step("touched", "wl_touch_parent", (int64_t)bytes, bytes);
    pid_t child = fork();
    if (child < 0) wl_die("fork");
    if (child == 0) {
        close(to_child[1]);
        close(to_parent[0]);
        wl_cow_child(start, half);
        pass_byte(to_parent[1]);
        await_byte(to_child[0]);
        _exit(0);
    }
    close(to_child[0]);
    close(to_parent[1]);
    await_byte(to_parent[0]);
    anon_step("child-wrote", "wl_cow_child", (int64_t)half, half);
    wl_cow_parent(start + half, half);
    anon_step("parent-wrote", "wl_cow_parent", (int64_t)half, half);
    pass_byte(to_child[1]);
    wl_reap(child);
    // The child's copies of the first half, and the old pages of the second, which were its alone by then.
    anon_step("child-exited", NULL, -(int64_t)bytes, 0);
    for (uint64_t at = 0; at < bytes; at += 2 * WL_MIB) {
        if (munmap(start + at, WL_MIB) != 0) wl_die("munmap");
    }
    anon_step("freed", NULL, -(int64_t)half, 0);
    if (munmap(start, bytes) != 0) wl_die("munmap");
    anon_step("ended", NULL, -(int64_t)half, 0);
    return 0;
}

WL_FUNCTION void wl_short_child(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

static void live_shortly(uint64_t bytes) {
    wl_short_child(wl_map_small(bytes), bytes);
    struct timespec rest = {.tv_sec = (time_t)(wl_options.milliseconds / 1000), .tv_nsec = (long)(wl_options.milliseconds % 1000) * 1000000};
    nanosleep(&rest, NULL);
}

// Bytes of one process: its share, in pages, at least one.
static uint64_t share(void) {
    uint64_t bytes = wl_options.bytes / wl_options.processes / WL_PAGE * WL_PAGE;
    return bytes ? bytes : WL_PAGE;
}

int wl_short_main(void) {
    live_shortly((wl_options.bytes + WL_PAGE - 1) / WL_PAGE * WL_PAGE);
    return 0;
}

static pid_t spawn_one(uint64_t bytes, const char *bytes_text, const char *milliseconds_text) {
    pid_t child = fork();
    if (child < 0) wl_die("fork");
    if (child > 0) return child;
    if (wl_options.exec) {
        execl("/proc/self/exe", "memtrail-workload", "short-child", "--bytes", bytes_text, "--milliseconds", milliseconds_text, (char *)NULL);
        _exit(127);
    }
    live_shortly(bytes);
    _exit(0);
}

int wl_spawn_short(void) {
    char bytes_text[24], milliseconds_text[24];
    if (!wl_options.processes || wl_options.processes > 100000 || !wl_options.parallel) {
        errno = EINVAL;
        wl_die("--processes from 1 to 100000, --parallel from 1");
    }
    uint64_t each = share(), running = 0;
    snprintf(bytes_text, sizeof bytes_text, "%" PRIu64, each);
    snprintf(milliseconds_text, sizeof milliseconds_text, "%" PRIu64, wl_options.milliseconds);
    anon_step("ready", NULL, 0, 0);
    for (uint64_t i = 0; i < wl_options.processes; i++) {
        if (running == wl_options.parallel) {
            wl_reap(-1);
            running--;
        }
        spawn_one(each, bytes_text, milliseconds_text);
        running++;
    }
    for (; running; running--) wl_reap(-1);
    wl_figure("processes", (double)wl_options.processes);
    wl_figure("bytes_each", (double)each);
    // Each process also copies some pages of its own stack and data: charged is a lower bound here, exact for the function.
    anon_step("spawned", "wl_short_child", 0, each * wl_options.processes);
    return 0;
}

struct arena_thread {
    pthread_t thread;
    char **blocks;
    uint64_t count, bytes;
    unsigned seed;
};
static pthread_barrier_t filled, halved, drained;

WL_FUNCTION void wl_fill_arena(struct arena_thread *self) {
    uint64_t used = 0;
    while (used < self->bytes) {
        self->seed = self->seed * 1103515245u + 12345u;
        uint64_t size = 64u + self->seed / 65536 % 16384;
        char *block = malloc(size);
        if (!block) wl_die("malloc");
        wl_store_pages(block, size, WL_PAGE);
        block[size - 1] = 1;
        self->blocks[self->count++] = block;
        used += size;
    }
}

static void *arena_thread(void *argument) {
    struct arena_thread *self = argument;
    wl_fill_arena(self);
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&halved);
    for (uint64_t i = 0; i < self->count; i += 2) free(self->blocks[i]);
    pthread_barrier_wait(&drained);
    pthread_barrier_wait(&filled);
    return NULL;
}

// How malloc places blocks is its own affair: resident is what was asked for, and the real figure is higher.
int wl_threads_malloc(void) {
    uint64_t threads = wl_options.threads;
    if (!threads || threads > 1024) {
        errno = EINVAL;
        wl_die("--threads from 1 to 1024");
    }
    uint64_t bytes = wl_options.bytes / threads, longest = bytes / 64 + 1;
    struct arena_thread *all = calloc(threads, sizeof *all);
    if (!all) wl_die("calloc");
    pthread_barrier_init(&filled, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&halved, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&drained, NULL, (unsigned)threads + 1);
    anon_step("ready", NULL, 0, 0);
    for (uint64_t i = 0; i < threads; i++) {
        all[i] = (struct arena_thread){.bytes = bytes, .seed = (unsigned)i + 1};
        all[i].blocks = (char **)wl_map_small(longest * sizeof(char *));
        if (pthread_create(&all[i].thread, NULL, arena_thread, &all[i]) != 0) wl_die("pthread_create");
    }
    pthread_barrier_wait(&filled);
    wl_figure("threads", (double)threads);
    anon_step("filled", "wl_fill_arena", (int64_t)(bytes * threads), bytes * threads);
    pthread_barrier_wait(&halved);
    pthread_barrier_wait(&drained);
    // Free blocks stay in their arenas.
    anon_step("half-freed", NULL, 0, 0);
    pthread_barrier_wait(&filled);
    for (uint64_t i = 0; i < threads; i++) pthread_join(all[i].thread, NULL);
    return 0;
}
