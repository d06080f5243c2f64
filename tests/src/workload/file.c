// Page cache of files on disk: written, truncated, read.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char piece[WL_PIECE];
static struct pin {
    char *start;
    uint64_t bytes;
} pinned[2];
static int pins;

WL_FUNCTION void wl_write_file(int fd, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += WL_PIECE) {
        long put = wl_syscall3(SYS_write, fd, (long)piece, WL_PIECE);
        if (put != (long)WL_PIECE) {
            errno = put < 0 ? (int)-put : ENOSPC;
            wl_die("write");
        }
    }
}

WL_FUNCTION void wl_read_file(int fd, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes;) {
        long got = wl_syscall3(SYS_read, fd, (long)piece, WL_PIECE);
        if (got <= 0) {
            errno = got < 0 ? (int)-got : ENODATA;
            wl_die("read");
        }
        at += (uint64_t)got;
    }
}

static int create(char *path, size_t size, const char *name) {
    char unique[64];
    snprintf(unique, sizeof unique, "%s.%d", name, (int)getpid());
    wl_path(path, size, unique);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) wl_die(path);
    // Nobody else needs the names: without them nothing is left behind, however this ends.
    if (unlink(path) != 0) wl_die("unlink");
    return fd;
}

static void sync_data(int fd) {
    if (fdatasync(fd) != 0) wl_die("fdatasync");
}

// With --pin: locks what is in the page cache. Some hosts reclaim cold page cache all the time (DAMON), and no figure of a file would
// hold still there.
static void pin(int fd, uint64_t bytes) {
    if (!wl_options.pin) return;
    char *start = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) wl_die("mmap to pin");
    /* Or khugepaged puts huge pages into the cache, where the kernel has that for files, and charges for them. */
    if (madvise(start, bytes, MADV_NOHUGEPAGE) != 0) wl_die("MADV_NOHUGEPAGE");
    if (mlock(start, bytes) != 0) wl_die("mlock to pin");
    pinned[pins++] = (struct pin){start, bytes};
}

static void unpin_all(void) {
    while (pins) {
        pins--;
        if (munmap(pinned[pins].start, pinned[pins].bytes) != 0) wl_die("munmap to unpin");
    }
}

int wl_file(void) {
    char path[4096];
    uint64_t bytes = wl_even_bytes(), half = bytes / 2;
    piece[0] = 1; // the buffer's own pages are no part of the steps
    wl_store_pages(piece, sizeof piece, WL_PAGE);
    wl_step(&(struct wl_step){.name = "ready"});

    int other = create(path, sizeof path, "memtrail-workload-other");
    wl_write_file(other, half);
    sync_data(other);
    if (posix_fadvise(other, 0, 0, POSIX_FADV_DONTNEED) != 0) wl_die("POSIX_FADV_DONTNEED");
    wl_step(&(struct wl_step){.name = "prepared", .function = "wl_write_file", .charged.file = (int64_t)half});

    int fd = create(path, sizeof path, "memtrail-workload-file");
    wl_write_file(fd, bytes);
    sync_data(fd);
    pin(fd, bytes);
    wl_step(&(struct wl_step){.name = "written", .function = "wl_write_file", .resident.file = (int64_t)bytes, .charged.file = (int64_t)bytes});
    if (ftruncate(fd, (off_t)half) != 0) wl_die("ftruncate");
    wl_step(&(struct wl_step){.name = "truncated", .resident.file = -(int64_t)half});
    if (lseek(other, 0, SEEK_SET) != 0) wl_die("lseek");
    wl_read_file(other, half);
    pin(other, half);
    wl_step(&(struct wl_step){.name = "read", .function = "wl_read_file", .resident.file = (int64_t)half, .charged.file = (int64_t)half});
    unpin_all();
    close(other);
    close(fd);
    wl_step(&(struct wl_step){.name = "ended", .resident.file = -(int64_t)bytes});
    return 0;
}

// The file is made, and dropped from the cache, by whoever starts the readers.
int wl_file_two_readers(void) {
    wl_store_pages(piece, sizeof piece, WL_PAGE);
    wl_step(&(struct wl_step){.name = "ready"});
    if (!wl_options.file) {
        errno = EINVAL;
        wl_die("--file");
    }
    int fd = open(wl_options.file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) wl_die(wl_options.file);
    struct stat stat;
    if (fstat(fd, &stat) != 0) wl_die("fstat");
    uint64_t bytes = (uint64_t)stat.st_size;
    wl_read_file(fd, bytes);
    pin(fd, bytes);
    int64_t mine = wl_options.second ? 0 : (int64_t)((bytes + WL_PAGE - 1) / WL_PAGE * WL_PAGE);
    wl_step(&(struct wl_step){.name = "read", .function = "wl_read_file", .resident.file = mine, .charged.file = mine});
    close(fd);
    return 0;
}
