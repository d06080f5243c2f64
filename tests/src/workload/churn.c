// A container's short life: some memory of each kind, and then it is gone; what it wrote stays.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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
