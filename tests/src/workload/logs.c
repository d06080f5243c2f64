// Files as containers leave them: logs written line by line, many small files, System V segments, writes past the page cache.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE 128
static char line[LINE];

// Small writes, as loggers make them: the second to a page counts it as used again, and the kernel moves it to the active list.
WL_FUNCTION void wl_append_lines(int fd, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += LINE) {
        long put = wl_syscall3(SYS_write, fd, (long)line, LINE);
        if (put != LINE) {
            errno = put < 0 ? (int)-put : ENOSPC;
            wl_die("write");
        }
    }
}

// Appends --bytes to --file, makes --file if it is not there, and keeps it open. With --pin, the pages are locked.
int wl_append_log(void) {
    uint64_t bytes = wl_even_bytes();
    memset(line, 'x', sizeof line);
    line[LINE - 1] = '\n';
    wl_step(&(struct wl_step){.name = "ready"});
    if (!wl_options.file) {
        errno = EINVAL;
        wl_die("--file");
    }
    int fd = open(wl_options.file, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) wl_die(wl_options.file);
    wl_append_lines(fd, bytes);
    if (wl_options.pin) {
        char *start = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (start == MAP_FAILED) wl_die("mmap to pin");
        if (mlock(start, bytes) != 0) wl_die("mlock to pin");
    }
    wl_step(&(struct wl_step){.name = "appended", .function = "wl_append_lines", .resident.file = (int64_t)bytes, .charged.file = (int64_t)bytes});
    return 0;
}

// --processes files of one page each in --dir.
int wl_many_files(void) {
    static char page[WL_PAGE];
    char path[4096], name[64];
    uint64_t count = wl_options.processes;
    wl_store_pages(page, sizeof page, WL_PAGE);
    wl_step(&(struct wl_step){.name = "ready"});
    for (uint64_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "memtrail-workload-%05llu", (unsigned long long)i);
        wl_path(path, sizeof path, name);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0) wl_die(path);
        if (write(fd, page, sizeof page) != (ssize_t)sizeof page) wl_die("write");
        close(fd);
    }
    int64_t bytes = (int64_t)(count * WL_PAGE);
    wl_step(&(struct wl_step){.name = "written", .resident.shmem = bytes, .charged.shmem = bytes});
    return 0;
}

WL_FUNCTION void wl_touch_segment(char *start, uint64_t bytes) { wl_store_pages(start, bytes, WL_PAGE); }

// A System V segment with the key 0x6d74.
int wl_sysv(void) {
    uint64_t bytes = wl_even_bytes();
    wl_step(&(struct wl_step){.name = "ready"});
    int id = shmget(0x6d74, bytes, IPC_CREAT | IPC_EXCL | 0600);
    if (id < 0) wl_die("shmget");
    char *start = shmat(id, NULL, 0);
    // Gone with the last process that has it attached, however this ends.
    if (shmctl(id, IPC_RMID, NULL) != 0) wl_die("IPC_RMID");
    if (start == (char *)-1) wl_die("shmat");
    wl_touch_segment(start, bytes);
    wl_step(&(struct wl_step){.name = "touched", .function = "wl_touch_segment", .resident.shmem = (int64_t)bytes, .charged.shmem = (int64_t)bytes});
    return 0;
}

// Writes --file over and over, a whole --bytes each time, from a child that ends with this process: what the disk has is dirty again at once.
int wl_rewrite(void) {
    static char piece[WL_PIECE];
    uint64_t bytes = wl_even_bytes();
    wl_store_pages(piece, sizeof piece, WL_PAGE);
    wl_step(&(struct wl_step){.name = "ready"});
    int fd = wl_options.file ? open(wl_options.file, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) wl_die("--file");
    pid_t parent = getpid(), child = fork();
    if (child < 0) wl_die("fork");
    for (int first = 1; child == 0 || first; first = 0) {
        if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)) _exit(1);
        for (uint64_t at = 0; at < bytes; at += sizeof piece) {
            if (pwrite(fd, piece, sizeof piece, (off_t)at) != (ssize_t)sizeof piece) wl_die("pwrite");
        }
    }
    wl_step(&(struct wl_step){.name = "rewriting", .resident.file = (int64_t)bytes, .charged.file = (int64_t)bytes});
    return 0;
}

WL_FUNCTION void wl_write_once(int fd, const char *piece, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += WL_PIECE) {
        long put = wl_syscall3(SYS_write, fd, (long)piece, WL_PIECE);
        if (put != (long)WL_PIECE) {
            errno = put < 0 ? (int)-put : ENOSPC;
            wl_die("write");
        }
    }
}

// Writes --bytes to --file, over what is there.
int wl_write_once_over(void) {
    static char piece[WL_PIECE];
    wl_store_pages(piece, sizeof piece, WL_PAGE);
    wl_step(&(struct wl_step){.name = "ready"});
    int fd = wl_options.file ? open(wl_options.file, O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0) wl_die("--file");
    wl_write_once(fd, piece, wl_even_bytes());
    wl_step(&(struct wl_step){.name = "written"});
    return 0;
}

// Writes --bytes to --file past the page cache.
int wl_direct_write(void) {
    uint64_t bytes = wl_even_bytes();
    void *piece = NULL;
    if (posix_memalign(&piece, WL_PAGE, WL_PIECE) != 0) wl_die("posix_memalign");
    wl_store_pages(piece, WL_PIECE, WL_PAGE);
    wl_step(&(struct wl_step){.name = "ready"});
    int fd = wl_options.file ? open(wl_options.file, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) wl_die("--file, with O_DIRECT");
    for (uint64_t at = 0; at < bytes; at += WL_PIECE) {
        if (pwrite(fd, piece, WL_PIECE, (off_t)at) != (ssize_t)WL_PIECE) wl_die("pwrite");
    }
    wl_step(&(struct wl_step){.name = "written"});
    return 0;
}
