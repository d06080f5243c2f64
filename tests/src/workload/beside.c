// What else a machine does while a test runs: short processes, kills, page cache, io_uring, and kills by a limit. Bounded in rate by pauses, in memory by
// the cgroup that it is started in, in time by --milliseconds. It ends with its input, and so with the test that holds the other end.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_BYTES (4 * WL_MIB)
#define ENTRIES 8

// What was done so far: shared by the processes that do it.
static struct did {
    atomic_ulong forks, kills, file_bytes, uring_calls, oom_kills;
} *did;

static uint64_t ends;
static char piece[WL_PIECE];

static bool goes_on(void) { return wl_now() < ends; }

// A process that does one of the works until the time is over, or its parent is gone.
static pid_t worker(void (*work)(void)) {
    pid_t parent = getpid(), child = fork();
    if (child < 0) wl_die("fork");
    if (child > 0) return child;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) wl_die("PR_SET_PDEATHSIG");
    if (getppid() == parent) work();
    _exit(0);
}

static void touch(uint64_t bytes) {
    char *start = wl_map_small(bytes);
    wl_store_pages(start, bytes, WL_PAGE);
}

static void touch_and_exit(void) { touch(16 * WL_PAGE); }

static void touch_and_wait(void) {
    touch(16 * WL_PAGE);
    pause();
}

static void execute(void) { execl("/proc/self/exe", "memtrail-workload", "short-child", "--bytes", "64K", "--milliseconds", "1", (char *)NULL); }

// Processes that end by themselves, after an exec or without, and such as are killed.
static void make_processes(void) {
    for (unsigned long n = 0; goes_on(); n++) {
        void (*const sorts[])(void) = {touch_and_exit, execute, touch_and_wait};
        pid_t child = worker(sorts[n % 3]);
        usleep(2000);
        if (n % 3 == 2) {
            kill(child, SIGKILL);
            did->kills++;
        }
        if (waitpid(child, NULL, 0) != child) wl_die("waitpid");
        did->forks++;
        usleep(2000);
    }
}

static int scratch_file(const char *name) {
    char path[4096];
    wl_path(path, sizeof path, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) wl_die(path);
    return fd;
}

// Page cache that comes and goes, some of it written to the disk.
static void make_page_cache(void) {
    int fd = scratch_file("beside.pages");
    for (unsigned long n = 0; goes_on(); n++) {
        for (uint64_t at = 0; at < FILE_BYTES && goes_on(); at += WL_PIECE) {
            if (pwrite(fd, piece, WL_PIECE, (off_t)at) != (ssize_t)WL_PIECE) wl_die("write");
            did->file_bytes += WL_PIECE;
            usleep(4000);
        }
        if (n % 4 == 0 && fdatasync(fd) != 0) wl_die("fdatasync");
        if (ftruncate(fd, 0) != 0) wl_die("ftruncate");
    }
}

struct ring {
    int fd;
    _Atomic unsigned *sq_tail, *cq_head, *cq_tail;
    unsigned *sq_mask, *sq_array, *cq_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *results;
};

static char *mapped(int fd, uint64_t bytes, off_t offset) {
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    if (at == MAP_FAILED) wl_die("mmap of io_uring");
    return at;
}

// False where the kernel has none, or does not let us have one.
static bool open_ring(struct ring *ring) {
    struct io_uring_params params = {0};
    ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
    if (ring->fd < 0) return false;
    char *sq = mapped(ring->fd, params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char *cq = mapped(ring->fd, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    ring->entries = (struct io_uring_sqe *)mapped(ring->fd, params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring->sq_tail = (_Atomic unsigned *)(sq + params.sq_off.tail);
    ring->sq_mask = (unsigned *)(sq + params.sq_off.ring_mask);
    ring->sq_array = (unsigned *)(sq + params.sq_off.array);
    ring->cq_head = (_Atomic unsigned *)(cq + params.cq_off.head);
    ring->cq_tail = (_Atomic unsigned *)(cq + params.cq_off.tail);
    ring->cq_mask = (unsigned *)(cq + params.cq_off.ring_mask);
    ring->results = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
    return true;
}

// By a thread of io_uring's own, which has no user stack.
static void queue(struct ring *ring, unsigned char code, int fd, char *memory, uint64_t offset) {
    unsigned tail = atomic_load(ring->sq_tail), at = tail & *ring->sq_mask;
    ring->entries[at] = (struct io_uring_sqe){
        .opcode = code, .flags = IOSQE_ASYNC, .fd = fd, .addr = (uint64_t)memory, .len = WL_PIECE, .off = offset};
    ring->sq_array[at] = at;
    atomic_store(ring->sq_tail, tail + 1);
}

static void complete(struct ring *ring, unsigned calls) {
    if (syscall(SYS_io_uring_enter, ring->fd, calls, calls, IORING_ENTER_GETEVENTS, NULL, 0) != (long)calls) wl_die("io_uring_enter");
    for (unsigned head = atomic_load(ring->cq_head); head != atomic_load(ring->cq_tail); atomic_store(ring->cq_head, ++head)) {
        int result = ring->results[head & *ring->cq_mask].res;
        if (result < 0) {
            errno = -result;
            wl_die("a call through io_uring");
        }
        did->uring_calls++;
    }
}

static void make_uring_calls(void) {
    struct ring ring;
    if (!open_ring(&ring)) return;
    int fd = scratch_file("beside.uring");
    while (goes_on()) {
        // The memory is new each time, so that a thread of io_uring touches it first.
        char *memory = wl_map_small(WL_PIECE);
        for (uint64_t at = 0; at < FILE_BYTES / 4 && goes_on(); at += WL_PIECE) {
            queue(&ring, IORING_OP_WRITE, fd, piece, at);
            queue(&ring, IORING_OP_READ, fd, memory, at);
            complete(&ring, 2);
            usleep(5000);
        }
        if (munmap(memory, WL_PIECE) != 0 || ftruncate(fd, 0) != 0) wl_die("io_uring's memory and file");
    }
}

// In the cgroup of --cgroup, whose limit ends it.
static void touch_without_end(void) {
    char path[4096];
    wl_format(path, sizeof path, "--cgroup", "%s/cgroup.procs", wl_options.cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) wl_die(path);
    // Four times the limit that it is to have, should it have none.
    touch(64 * WL_MIB);
}

static void make_oom_kills(void) {
    while (goes_on()) {
        pid_t child = worker(touch_without_end);
        int status;
        if (waitpid(child, &status, 0) != child) wl_die("waitpid");
        did->oom_kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        usleep(700000);
    }
}

int wl_beside(void) {
    did = mmap(NULL, sizeof *did, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (did == MAP_FAILED) wl_die("mmap");
    void (*const works[])(void) = {make_processes, make_page_cache, make_uring_calls, make_oom_kills};
    unsigned count = sizeof works / sizeof works[0] - (wl_options.cgroup ? 0 : 1);
    pid_t children[sizeof works / sizeof works[0]];
    struct ring ring;
    bool has_uring = open_ring(&ring);
    if (has_uring) close(ring.fd);
    ends = wl_now() + wl_options.milliseconds * 1000000;
    for (unsigned i = 0; i < count; i++) children[i] = worker(works[i]);
    wl_figure("has_uring", has_uring);
    // It waits here while they work; at the end of the input it ends, and they with it.
    wl_step(&(struct wl_step){.name = "ready"});
    for (unsigned i = 0; i < count; i++) {
        int status;
        if (waitpid(children[i], &status, WNOHANG) == children[i]) {
            // One that came to the end of the time is none that failed.
            if (status != 0) {
                errno = ECHILD;
                wl_die("a part of the load failed");
            }
            continue;
        }
        kill(children[i], SIGKILL);
        if (waitpid(children[i], NULL, 0) != children[i]) wl_die("waitpid");
    }
    wl_figure("forks", (double)did->forks);
    wl_figure("kills", (double)did->kills);
    wl_figure("file_bytes", (double)did->file_bytes);
    wl_figure("uring_calls", (double)did->uring_calls);
    wl_figure("oom_kills", (double)did->oom_kills);
    wl_step(&(struct wl_step){.name = "ended"});
    return 0;
}
