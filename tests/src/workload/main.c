// Options, the step protocol and the table of subcommands.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct wl_options wl_options = {.bytes = 64 * WL_MIB, .wait = true, .processes = 1000, .parallel = 8, .threads = 8, .milliseconds = 5};

static const struct {
    const char *name;
    int (*run)(void);
    const char *help;
} commands[] = {
    {"anon", wl_anon, "touch 4 KiB pages, unmap every second 1 MiB"},
    {"beside", wl_beside, "for --milliseconds: short processes, kills, page cache and io_uring calls with files in --dir, and kills at the limit of --cgroup"},
    {"fork-cow", wl_fork_cow, "touch, fork, child and parent write one half each"},
    {"thp-whole", wl_thp_whole, "touch 2 MiB pages, free every second one whole"},
    {"thp-holes", wl_thp_holes, "touch 2 MiB pages, free every second 4 KiB of them"},
    {"lazy", wl_lazy, "touch, free with MADV_FREE (--keep: with MADV_DONTNEED)"},
    {"pipes", wl_pipes, "write --bytes into pipes that nobody reads"},
    {"sparse-huge", wl_sparse_huge, "touch a byte of each huge page (--keep: all of them)"},
    {"spikes", wl_spikes, "touch an eighth of --bytes that stays, and --bytes for --milliseconds, --rounds times"},
    {"hugetlb", wl_hugetlb, "touch pages of hugetlbfs"},
    {"swap", wl_swap, "touch, send to swap with MADV_PAGEOUT, touch again"},
    {"collapse", wl_collapse, "touch 4 KiB pages and wait until khugepaged has made 2 MiB pages of them"},
    {"collapse-memfd", wl_collapse_memfd, "touch a memfd and collapse it with MADV_COLLAPSE; collapse_error is its errno"},
    {"file", wl_file, "write a file, truncate it to half, read another one of half the size (--pin)"},
    {"file-two-readers", wl_file_two_readers, "read --file through; --second if another cgroup has read it before (--pin)"},
    {"append-log", wl_append_log, "append --bytes to --file in lines of 128 bytes (--pin)"},
    {"rewrite", wl_rewrite, "write --bytes to --file again and again"},
    {"write-once", wl_write_once_over, "write --bytes to --file, over what is there"},
    {"direct-write", wl_direct_write, "write --bytes to --file past the page cache"},
    {"container-life", wl_container_life, "touch --bytes, write as much in --dir and to --file, and live for --milliseconds"},
    {"container-lives", wl_container_lives, "--rounds of --processes of them, --parallel at once, each in a new cgroup below --cgroup; a folder a round in --dir and --file"},
    {"many-files", wl_many_files, "write --processes files of one page each in --dir"},
    {"sysv", wl_sysv, "touch a System V segment"},
    {"tmpfs", wl_tmpfs, "write 1 MiB files in tmpfs, unlink every second one (--dir: not in a tmpfs of its own; --keep)"},
    {"memfd", wl_memfd, "touch a memfd, punch out half of it"},
    {"shared-anon", wl_shared_anon, "touch shared anonymous memory, remove half of it"},
    {"mremap", wl_mremap, "touch half, grow, touch the rest, move"},
    {"mlock", wl_mlock, "touch mlocked pages, unmap half"},
    {"holes", wl_holes, "unmap holes of 4 to 64 KiB"},
    {"exit-without-free", wl_exit_without_free, "touch and exit"},
    {"recycle", wl_recycle, "map, touch and unmap 64 pages again and again (--rounds, else --bytes in all)"},
    {"spawn-short", wl_spawn_short, "--processes of --milliseconds, each touching its share of --bytes (--parallel, --exec)"},
    {"short-child", wl_short_main, "what spawn-short --exec runs"},
    {"threads-malloc", wl_threads_malloc, "--threads that malloc --bytes in all and free every second block"},
    {"regions", wl_regions, "fill malloc's heap, a mapped block, and arenas and stacks of --threads with --bytes in all"},
    {"left-behind", wl_left_behind, "fill malloc's heap, fork, and end; the child stays"},
    {"reserve", wl_reserve, "ask for address space by mmap, brk, mprotect and mremap, and touch none of it (--rounds: after a storm)"},
    {"sizes", wl_sizes, "ask for address space in known sizes, and touch none of it"},
    {"many-mappings", wl_many_mappings, "--rounds mappings of a page"},
    {"omit-fp", wl_omit_fp, "touch from functions without frame pointers"},
    {"chains", wl_chains, "touch --bytes through known chains of callers without frame pointers"},
    {"oom", wl_oom, "touch up to --bytes without a pause"},
    {"grow", wl_grow, "touch 1 MiB every --milliseconds up to --bytes, in a child"},
    {"fault-storm", wl_fault_storm, "touch and drop --bytes, --rounds times; ns a fault"},
    {"file-storm", wl_file_storm, "write a file page by page and truncate it, --rounds times; ns a page"},
    {"large-write-storm", wl_large_write_storm, "the same with writes of 64 KiB"},
    {"tmpfs-storm", wl_tmpfs_storm, "the same page by page in tmpfs"},
    {"lifetimes", wl_lifetimes, "--rounds blocks of four pages that live for 10 to 100 ms; quantiles of what they really lived"},
    {"slow-reads", wl_slow_reads, "read --bytes of holes page by page; quantiles of the slow reads' waits"},
    {"held-up", wl_held_up, "touch --bytes page by page; quantiles of the touches of 5 ms and more"},
    {"mmap-storm", wl_mmap_storm, "map and unmap 64 KiB, --rounds times, touching nothing; ns a pair"},
    {"hung", wl_hung, "touch --bytes, map --rounds times, and stay in mmap of --file, whose server does not answer reads"},
    {"getppid-storm", wl_getppid_storm, "--rounds calls of getppid; ns a call"},
    {"start-storm", wl_start_storm, "start /bin/true --rounds times, one after the other; ns a start"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static char figures[512];

void wl_die(const char *what) {
    fprintf(stderr, "memtrail-workload: %s: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t wl_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t wl_even_bytes(void) { return (wl_options.bytes + 4 * WL_MIB - 1) / (4 * WL_MIB) * (4 * WL_MIB); }

char *wl_map_small(uint64_t bytes) {
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) wl_die("mmap");
    // EINVAL: a kernel without THP, which is as good.
    if (madvise(start, bytes, MADV_NOHUGEPAGE) != 0 && errno != EINVAL) wl_die("MADV_NOHUGEPAGE");
    return start;
}

void wl_format(char *path, size_t size, const char *option, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int length = vsnprintf(path, size, format, values);
    va_end(values);
    if (length < 0 || (size_t)length >= size) {
        errno = ENAMETOOLONG;
        wl_die(option);
    }
}

void wl_path(char *path, size_t size, const char *name) { wl_format(path, size, "--dir", "%s/%s", wl_options.dir ? wl_options.dir : ".", name); }

void wl_figure(const char *key, double value) {
    size_t used = strlen(figures);
    int length = snprintf(figures + used, sizeof figures - used, ",\"%s\":%.15g", key, value);
    if (length < 0 || (size_t)length >= sizeof figures - used) {
        errno = ENOSPC;
        wl_die("figures of a step");
    }
}

static void wait_for_newline(void) {
    char byte = 0;
    while (byte != '\n') {
        ssize_t got = read(0, &byte, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) wl_die("stdin");
        if (got == 0) {
            fprintf(stderr, "memtrail-workload: input ended\n");
            exit(3);
        }
    }
}

void wl_step(const struct wl_step *step) {
    char line[1024];
    char function[80] = "null";
    if (step->function) snprintf(function, sizeof function, "\"%s\"", step->function);
    int length = snprintf(line, sizeof line,
                          "{\"step\":\"%s\",\"pid\":%d,\"bytes\":%" PRIu64 ",\"function\":%s,"
                          "\"resident\":{\"anon\":%" PRId64 ",\"file\":%" PRId64 ",\"shmem\":%" PRId64 "},"
                          "\"charged\":{\"anon\":%" PRId64 ",\"file\":%" PRId64 ",\"shmem\":%" PRId64 "},"
                          "\"unmapped\":%" PRId64 "%s}\n",
                          step->name, (int)getpid(), wl_options.bytes, function, step->resident.anon, step->resident.file, step->resident.shmem,
                          step->charged.anon, step->charged.file, step->charged.shmem, step->unmapped, figures);
    figures[0] = 0;
    if (length < 0 || (size_t)length >= sizeof line) {
        errno = ENOSPC;
        wl_die("line of a step");
    }
    for (int at = 0; at < length;) {
        ssize_t put = write(1, line + at, (size_t)(length - at));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) wl_die("stdout");
        at += (int)put;
    }
    if (wl_options.wait) wait_for_newline();
}

static int usage(const char *problem, const char *what) {
    fprintf(stderr, "memtrail-workload: %s%s\n", problem, what);
    fprintf(stderr, "usage: memtrail-workload SUBCOMMAND [--bytes SIZE] [--no-wait] [--dir DIR] [--file FILE] [--cgroup DIR] [--keep] [--second] [--exec] [--pin]\n"
                    "       [--rounds N] [--processes N] [--parallel N] [--threads N] [--milliseconds N]\n");
    for (size_t i = 0; i < COMMANDS; i++) fprintf(stderr, "  %-18s %s\n", commands[i].name, commands[i].help);
    return 2;
}

// A number with an optional K, M or G (powers of 1024), as in 64M or 64MiB.
static bool parse_size(const char *text, uint64_t *value) {
    char *end;
    errno = 0;
    if (*text < '0' || *text > '9') return false;
    uint64_t number = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (*end == 'K') shift = 10;
    if (*end == 'M') shift = 20;
    if (*end == 'G') shift = 30;
    if (shift) end++;
    if (shift && strcmp(end, "iB") == 0) end += 2;
    if (errno || *end || number > (UINT64_MAX >> 1 >> shift)) return false;
    *value = number << shift;
    return true;
}

static bool flag(const char *name) {
    const struct {
        const char *name;
        bool *place;
    } flags[] = {{"--keep", &wl_options.keep}, {"--second", &wl_options.second}, {"--exec", &wl_options.exec}, {"--pin", &wl_options.pin}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(name, flags[i].name) == 0) return *flags[i].place = true;
    }
    if (strcmp(name, "--no-wait") != 0) return false;
    wl_options.wait = false;
    return true;
}

static bool number_option(const char *name, const char *text) {
    const struct {
        const char *name;
        uint64_t *place;
    } numbers[] = {
        {"--bytes", &wl_options.bytes},       {"--rounds", &wl_options.rounds},   {"--processes", &wl_options.processes},
        {"--parallel", &wl_options.parallel}, {"--threads", &wl_options.threads}, {"--milliseconds", &wl_options.milliseconds},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) == 0) return parse_size(text, numbers[i].place);
    }
    return false;
}

int main(int argc, char **argv) {
    if (argc < 2) return usage("which workload?", "");
    for (int i = 2; i < argc; i++) {
        if (flag(argv[i])) continue;
        if (i + 1 == argc) return usage("unknown option, or its value is missing: ", argv[i]);
        const char *value = argv[++i];
        if (strcmp(argv[i - 1], "--dir") == 0) {
            wl_options.dir = value;
        } else if (strcmp(argv[i - 1], "--file") == 0) {
            wl_options.file = value;
        } else if (strcmp(argv[i - 1], "--cgroup") == 0) {
            wl_options.cgroup = value;
        } else if (!number_option(argv[i - 1], value)) {
            return usage("unknown option, or a bad number: ", argv[i - 1]);
        }
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        int (*volatile run)(void) = commands[i].run;
        int status = run();
        return status;
    }
    return usage("no such workload: ", argv[1]);
}
