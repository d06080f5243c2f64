// Containers' short lives: some memory of each kind, and then they are gone; what they wrote stays.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Waits of a millisecond for a cgroup to be empty.
#define REMOVE_ATTEMPTS 10000

static char piece[WL_PIECE];

WL_FUNCTION void wl_life_anon(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

WL_INLINE void write_all(int fd, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += WL_PIECE) {
        long put = wl_syscall3(SYS_write, fd, (long)piece, WL_PIECE);
        if (put != (long)WL_PIECE) {
            errno = put < 0 ? (int)-put : ENOSPC;
            wl_die("write");
        }
    }
}

WL_FUNCTION void wl_life_file(int fd, uint64_t bytes) { write_all(fd, bytes); }
WL_FUNCTION void wl_life_shmem(int fd, uint64_t bytes) { write_all(fd, bytes); }

static int made(const char *path) {
    int fd = path ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    if (fd < 0) wl_die(path ? path : "--file");
    return fd;
}

// Touches --bytes of anonymous memory, writes as much to a new file in --dir and to --file, lives for --milliseconds, and says nothing.
int wl_container_life(void) {
    char path[4096], name[64];
    uint64_t bytes = wl_options.bytes / WL_PIECE * WL_PIECE;
    snprintf(name, sizeof name, "memtrail-workload-life.%d", (int)getpid());
    wl_path(path, sizeof path, name);
    wl_life_anon(wl_map_small(bytes), bytes);
    wl_life_file(made(path), bytes);
    wl_life_shmem(made(wl_options.file), bytes);
    struct timespec rest = {.tv_sec = (time_t)(wl_options.milliseconds / 1000), .tv_nsec = (long)(wl_options.milliseconds % 1000) * 1000000};
    nanosleep(&rest, NULL);
    return 0;
}

// Bytes of each kind that life `n` touches: 1 to 4 times --bytes.
static uint64_t life_bytes(uint64_t n) { return wl_options.bytes * (1 + n % 4); }

// 50 to 500 ms.
static uint64_t life_milliseconds(uint64_t n) { return 50 + n * 37 % 450; }

static void cgroup_path(char *path, size_t size, uint64_t round, uint64_t n, const char *file) {
    wl_format(path, size, "--cgroup", "%s/c%" PRIu64 "-%" PRIu64 "%s", wl_options.cgroup, round, n, file);
}

// A folder for a round's files.
static void round_folder(char *path, size_t size, const char *option, const char *root, uint64_t round) {
    wl_format(path, size, option, "%s/%" PRIu64, root, round);
    if (mkdir(path, 0700) != 0) wl_die(path);
}

// Starts a life in a cgroup of its own as a runtime does: a small process forks, the child enters the cgroup and executes.
static pid_t start_life(uint64_t round, uint64_t n, const char *dir, const char *file) {
    char path[4096], bytes[24], milliseconds[24];
    cgroup_path(path, sizeof path, round, n, "");
    if (mkdir(path, 0755) != 0) wl_die(path);
    cgroup_path(path, sizeof path, round, n, "/cgroup.procs");
    snprintf(bytes, sizeof bytes, "%" PRIu64, life_bytes(n));
    snprintf(milliseconds, sizeof milliseconds, "%" PRIu64, life_milliseconds(n));
    pid_t child = fork();
    if (child < 0) wl_die("fork");
    if (child > 0) return child;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) wl_die(path);
    execl("/proc/self/exe", "memtrail-workload", "container-life", "--dir", dir, "--file", file, "--bytes", bytes, "--milliseconds", milliseconds,
          (char *)NULL);
    wl_die("exec");
}

static void end_life(uint64_t round, uint64_t n, pid_t child) {
    char path[4096];
    wl_reap(child);
    cgroup_path(path, sizeof path, round, n, "");
    // The last of a process leaves its cgroup after it was waited for.
    for (int attempts = 0; rmdir(path) != 0; attempts++) {
        if (errno != EBUSY || attempts == REMOVE_ATTEMPTS) wl_die(path);
        usleep(1000);
    }
}

// --rounds of --processes lives, at most --parallel at once, which end in the order of their starts. A round's files stay in folders of its
// number in --dir and --file.
int wl_container_lives(void) {
    uint64_t lives = wl_options.processes, at_once = wl_options.parallel, touched = 0;
    if (!wl_options.cgroup || !wl_options.dir || !wl_options.file || !lives || lives > 10000 || !at_once) {
        errno = EINVAL;
        wl_die("--cgroup, --dir, --file, --processes from 1 to 10000, --parallel from 1");
    }
    pid_t *children = calloc(lives, sizeof *children);
    if (!children) wl_die("calloc");
    for (uint64_t n = 0; n < lives; n++) touched += life_bytes(n);
    wl_step(&(struct wl_step){.name = "ready"});
    for (uint64_t round = 0; round < wl_options.rounds; round++) {
        char dir[4096], files[4096], file[4096];
        round_folder(dir, sizeof dir, "--dir", wl_options.dir, round);
        round_folder(files, sizeof files, "--file", wl_options.file, round);
        uint64_t ended = 0;
        for (uint64_t n = 0; n < lives; n++) {
            for (; n - ended >= at_once; ended++) end_life(round, ended, children[ended]);
            wl_format(file, sizeof file, "--file", "%s/%" PRIu64, files, n);
            children[n] = start_life(round, n, dir, file);
        }
        for (; ended < lives; ended++) end_life(round, ended, children[ended]);
        wl_figure("touched_of_each_kind", (double)touched);
        wl_step(&(struct wl_step){.name = "round"});
    }
    free(children);
    return 0;
}
