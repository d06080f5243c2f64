// Storms for benchmarks: a fixed number of events as fast as they go, and the time of one.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char piece[WL_PIECE];

static uint64_t rounds_or(uint64_t otherwise) { return wl_options.rounds ? wl_options.rounds : otherwise; }

static void ready(void) { wl_step(&(struct wl_step){.name = "ready"}); }

static void ended(const char *function, const char *figure, uint64_t began, uint64_t events, struct wl_kinds charged) {
    uint64_t took = wl_now() - began;
    wl_figure("ns", (double)took);
    wl_figure("events", (double)events);
    wl_figure(figure, (double)took / (double)events);
    wl_step(&(struct wl_step){.name = "ended", .function = function, .charged = charged});
}

WL_FUNCTION void wl_storm_faults(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

int wl_fault_storm(void) {
    uint64_t bytes = wl_even_bytes(), rounds = rounds_or(16);
    char *start = wl_map_small(bytes);
    ready();
    uint64_t began = wl_now();
    for (uint64_t i = 0; i < rounds; i++) {
        wl_storm_faults(start, bytes);
        if (madvise(start, bytes, MADV_DONTNEED) != 0) wl_die("MADV_DONTNEED");
    }
    ended("wl_storm_faults", "ns_per_fault", began, rounds * bytes / WL_PAGE, (struct wl_kinds){.anon = (int64_t)(rounds * bytes)});
    return 0;
}

WL_FUNCTION void wl_storm_write(int fd, uint64_t bytes, uint64_t at_once) {
    for (uint64_t at = 0; at < bytes; at += at_once) {
        long put = wl_syscall3(SYS_write, fd, (long)piece, (long)at_once);
        if (put != (long)at_once) {
            errno = put < 0 ? (int)-put : ENOSPC;
            wl_die("write");
        }
    }
}

// Truncated before writeback begins to matter: the cost is that of the page cache, not of the disk.
static uint64_t write_storm(uint64_t bytes, uint64_t rounds, uint64_t at_once) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "memtrail-workload-storm.%d", (int)getpid());
    wl_path(path, sizeof path, name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) wl_die(path);
    if (unlink(path) != 0) wl_die("unlink");
    ready();
    uint64_t began = wl_now();
    for (uint64_t i = 0; i < rounds; i++) {
        wl_storm_write(fd, bytes, at_once);
        if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0) wl_die("ftruncate");
    }
    close(fd);
    return began;
}

static int file_storm(uint64_t at_once) {
    uint64_t bytes = wl_even_bytes(), rounds = rounds_or(16);
    uint64_t began = write_storm(bytes, rounds, at_once);
    ended("wl_storm_write", "ns_per_page", began, rounds * bytes / WL_PAGE, (struct wl_kinds){.file = (int64_t)(rounds * bytes)});
    return 0;
}

// A file system with large folios makes one as large as the write.
int wl_file_storm(void) { return file_storm(WL_PAGE); }

int wl_large_write_storm(void) { return file_storm(WL_PIECE); }

int wl_tmpfs_storm(void) {
    uint64_t bytes = wl_even_bytes(), rounds = rounds_or(16);
    wl_tmpfs_directory();
    uint64_t began = write_storm(bytes, rounds, WL_PAGE);
    ended("wl_storm_write", "ns_per_page", began, rounds * bytes / WL_PAGE, (struct wl_kinds){.shmem = (int64_t)(rounds * bytes)});
    wl_tmpfs_leave();
    return 0;
}

WL_FUNCTION void wl_storm_map(void) {
    long at = wl_syscall6(SYS_mmap, 0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((at < 0 && at > -4096) || wl_syscall3(SYS_munmap, at, 65536, 0) != 0) wl_die("mmap and munmap");
}

int wl_mmap_storm(void) {
    uint64_t rounds = rounds_or(1000000);
    ready();
    uint64_t began = wl_now();
    for (uint64_t i = 0; i < rounds; i++) wl_storm_map();
    ended("wl_storm_map", "ns_per_pair", began, rounds, (struct wl_kinds){0});
    return 0;
}

int wl_getppid_storm(void) {
    uint64_t rounds = rounds_or(10000000);
    ready();
    uint64_t began = wl_now();
    for (uint64_t i = 0; i < rounds; i++) wl_syscall3(SYS_getppid, 0, 0, 0);
    ended(NULL, "ns_per_call", began, rounds, (struct wl_kinds){0});
    return 0;
}

int wl_start_storm(void) {
    uint64_t rounds = rounds_or(400);
    ready();
    uint64_t began = wl_now();
    for (uint64_t i = 0; i < rounds; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(127);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) wl_die("a program that is started");
    }
    ended(NULL, "ns_per_start", began, rounds, (struct wl_kinds){0});
    return 0;
}
