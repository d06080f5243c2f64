// Shared memory: tmpfs files, memfd, shared anonymous mappings.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

static char piece[WL_PIECE];
static bool private_mount;

static void step(const char *name, const char *function, int64_t resident, uint64_t charged) {
    wl_step(&(struct wl_step){.name = name, .function = function, .resident.shmem = resident, .charged.shmem = (int64_t)charged});
}

const char *wl_tmpfs_directory(void) {
    struct statfs place;
    if (wl_options.dir) {
        if (statfs(wl_options.dir, &place) != 0) wl_die(wl_options.dir);
        // A disk's page cache would be measured and compared as tmpfs.
        errno = EINVAL;
        if (place.f_type != TMPFS_MAGIC) wl_die("--dir is not on a tmpfs");
        return wl_options.dir;
    }
    // A mount namespace of its own: the mount ends with the process, and no other process sees it.
    if (unshare(CLONE_NEWNS) != 0) wl_die("unshare");
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) wl_die("making mounts private");
    if (mount("memtrail-workload", "/mnt", "tmpfs", 0, "size=100%,huge=never") != 0 && mount("memtrail-workload", "/mnt", "tmpfs", 0, "size=100%") != 0) wl_die("mounting tmpfs at /mnt");
    private_mount = true;
    return wl_options.dir = "/mnt";
}

void wl_tmpfs_leave(void) {
    if (private_mount && umount2("/mnt", MNT_DETACH) != 0) wl_die("unmounting /mnt");
}

WL_FUNCTION void wl_write_tmpfs(int fd, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += WL_PIECE) {
        long put = wl_syscall3(SYS_write, fd, (long)piece, WL_PIECE);
        if (put != (long)WL_PIECE) {
            errno = put < 0 ? (int)-put : ENOSPC;
            wl_die("write");
        }
    }
}

static void tmpfs_name(char *path, size_t size, uint64_t index) {
    char name[64];
    snprintf(name, sizeof name, "memtrail-workload-%05llu", (unsigned long long)index);
    wl_path(path, size, name);
}

int wl_tmpfs(void) {
    char path[4096];
    uint64_t bytes = wl_even_bytes(), files = bytes / WL_MIB;
    wl_store_pages(piece, sizeof piece, WL_PAGE);
    wl_tmpfs_directory();
    step("ready", NULL, 0, 0);
    for (uint64_t i = 0; i < files; i++) {
        tmpfs_name(path, sizeof path, i);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0) wl_die(path);
        wl_write_tmpfs(fd, WL_MIB);
        close(fd);
    }
    step("written", "wl_write_tmpfs", (int64_t)bytes, bytes);
    for (uint64_t i = 0; i < files; i += 2) {
        tmpfs_name(path, sizeof path, i);
        if (unlink(path) != 0) wl_die("unlink");
    }
    step("unlinked", NULL, -(int64_t)(bytes / 2), 0);
    if (wl_options.keep) return 0;
    for (uint64_t i = 1; i < files; i += 2) {
        tmpfs_name(path, sizeof path, i);
        if (unlink(path) != 0) wl_die("unlink");
    }
    wl_tmpfs_leave();
    step("ended", NULL, -(int64_t)(bytes / 2), 0);
    return 0;
}

WL_FUNCTION void wl_touch_memfd(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

int wl_memfd(void) {
    uint64_t bytes = wl_even_bytes();
    step("ready", NULL, 0, 0);
    int fd = memfd_create("memtrail-workload", MFD_CLOEXEC);
    if (fd < 0) wl_die("memfd_create");
    if (ftruncate(fd, (off_t)bytes) != 0) wl_die("ftruncate");
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) wl_die("mmap");
    wl_touch_memfd(start, bytes);
    step("touched", "wl_touch_memfd", (int64_t)bytes, bytes);
    for (uint64_t at = 0; at < bytes; at += 2 * WL_MIB) {
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, WL_MIB) != 0) wl_die("fallocate");
    }
    step("punched", NULL, -(int64_t)(bytes / 2), 0);
    if (munmap(start, bytes) != 0) wl_die("munmap");
    close(fd);
    step("ended", NULL, -(int64_t)(bytes / 2), 0);
    return 0;
}

WL_FUNCTION void wl_touch_shared(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

int wl_shared_anon(void) {
    uint64_t bytes = wl_even_bytes();
    step("ready", NULL, 0, 0);
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) wl_die("mmap");
    wl_touch_shared(start, bytes);
    step("touched", "wl_touch_shared", (int64_t)bytes, bytes);
    for (uint64_t at = 0; at < bytes; at += 2 * WL_MIB) {
        if (madvise(start + at, WL_MIB, MADV_REMOVE) != 0) wl_die("MADV_REMOVE");
    }
    step("removed", NULL, -(int64_t)(bytes / 2), 0);
    if (munmap(start, bytes) != 0) wl_die("munmap");
    step("ended", NULL, -(int64_t)(bytes / 2), 0);
    return 0;
}
