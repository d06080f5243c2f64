// What the workloads share: options, the step protocol, touching.
//
// Protocol. After each step a workload prints one JSON line and waits for a newline on stdin (not with --no-wait; end of input ends the
// program). A line tells what the step did to the cgroup since the line before:
//
//   {"step":"freed","pid":7,"bytes":67108864,"function":"wl_touch_anon",
//    "resident":{"anon":-33554432,"file":0,"shmem":0},      change of memory.stat's anon, file without shmem, shmem
//    "charged":{"anon":0,"file":0,"shmem":0},               newly charged bytes
//    "unmapped":0, ...}                                     change of bytes charged but no longer mapped
//
// "function" caused the step's charges, or is null. Further keys are figures of one workload. The first line is "ready": nothing of the
// workload's memory is touched before it.
//
// Functions that touch memory begin with wl_, are never inlined or cloned, and make their system calls inline, so that the instruction
// that faults or charges is in them and not in a frameless libc stub that would hide its caller.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define WL_PAGE 4096ul
#define WL_MIB (1ul << 20)
#define WL_HUGE (2 * WL_MIB)
#define WL_PIECE (64ul << 10)
// A function whose name and frame must be found on the stack.
#define WL_FUNCTION __attribute__((noinline, noclone, noipa, used))
#define WL_INLINE static inline __attribute__((always_inline))

struct wl_options {
    uint64_t bytes;      // rounded up to 4 MiB where halves must be exact
    bool wait;           // false after --no-wait
    const char *dir;     // where files go
    const char *file;    // one given file
    const char *cgroup;  // the directory of a memory cgroup
    bool keep;           // leave files behind
    bool pin;            // keep file pages from being reclaimed
    bool second;         // the file was read by another cgroup before
    bool exec;           // short processes exec themselves
    uint64_t rounds;     // 0: derived from bytes
    uint64_t processes;
    uint64_t parallel;
    uint64_t threads;
    uint64_t milliseconds;
};

struct wl_kinds {
    int64_t anon, file, shmem;
};

struct wl_step {
    const char *name;
    const char *function;
    struct wl_kinds resident;
    struct wl_kinds charged;
    int64_t unmapped;
};

extern struct wl_options wl_options;

// Adds `"key":value` to the next step's line.
void wl_figure(const char *key, double value);
// Prints the step's line and waits.
void wl_step(const struct wl_step *step);
// Prints what failed with errno and exits with status 1.
__attribute__((noreturn)) void wl_die(const char *what);
// Waits for a child, any with -1, which must have succeeded.
void wl_reap(pid_t child);
// Bytes rounded up to 4 MiB.
uint64_t wl_even_bytes(void);
// Nanoseconds of the monotonic clock.
uint64_t wl_now(void);
// Sum of a field over this process's mappings, as smaps says.
double wl_smaps_bytes(const char *field);
// Bytes of this process in huge pages.
double wl_huge_bytes(void);
// Maps private anonymous memory with 4 KiB pages.
char *wl_map_small(uint64_t bytes);
// Writes a path; one that does not fit ends the program and names the option that it came from.
__attribute__((format(printf, 4, 5))) void wl_format(char *path, size_t size, const char *option, const char *format, ...);
// The path of `name` below --dir, or below the current directory.
void wl_path(char *path, size_t size, const char *name);

// Makes the function keep a frame: gcc leaves it out of a leaf that has no use for the stack, -fno-omit-frame-pointer or not.
#define WL_FRAME() __asm__ volatile("" : : "r"(__builtin_frame_address(0)))

// A system call with its instruction in the calling function.
WL_INLINE long wl_syscall3(long number, long a, long b, long c) {
    long result;
    WL_FRAME();
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

WL_INLINE long wl_syscall6(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long fourth __asm__("r10") = d, fifth __asm__("r8") = e, sixth __asm__("r9") = f;
    WL_FRAME();
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return result;
}

// One store a page.
WL_INLINE void wl_store_pages(char *start, uint64_t bytes, uint64_t stride) {
    WL_FRAME();
    for (uint64_t at = 0; at < bytes; at += stride) *(volatile char *)(start + at) = 1;
}

int wl_anon(void);
int wl_beside(void);
int wl_lazy(void);
int wl_pipes(void);
int wl_sparse_huge(void);
int wl_spikes(void);
int wl_exit_without_free(void);
int wl_holes(void);
int wl_mremap(void);
int wl_mlock(void);
int wl_recycle(void);
int wl_oom(void);
int wl_grow(void);
int wl_thp_whole(void);
int wl_thp_holes(void);
int wl_hugetlb(void);
int wl_swap(void);
int wl_collapse(void);
int wl_collapse_memfd(void);
int wl_file(void);
int wl_file_two_readers(void);
int wl_append_log(void);
int wl_rewrite(void);
int wl_direct_write(void);
int wl_write_once_over(void);
int wl_container_life(void);
int wl_container_lives(void);
int wl_many_files(void);
int wl_sysv(void);
int wl_tmpfs(void);
int wl_memfd(void);
int wl_shared_anon(void);
int wl_fork_cow(void);
int wl_spawn_short(void);
int wl_short_main(void);
int wl_threads_malloc(void);
int wl_regions(void);
int wl_reserve(void);
int wl_sizes(void);
int wl_many_mappings(void);
void wl_storm_map(void);
int wl_left_behind(void);
int wl_fault_storm(void);
int wl_file_storm(void);
int wl_large_write_storm(void);
int wl_tmpfs_storm(void);
int wl_mmap_storm(void);
int wl_getppid_storm(void);
int wl_start_storm(void);
int wl_lifetimes(void);
int wl_slow_reads(void);
int wl_held_up(void);
int wl_omit_fp(void);
int wl_chains(void);
int wl_hung(void);

// tmpfs at a given or private place; used by the workload and by the storm. Returns the directory.
const char *wl_tmpfs_directory(void);
// Ends the private tmpfs.
void wl_tmpfs_leave(void);
