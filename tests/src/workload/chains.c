// Compiled without frame pointers: known chains of callers, each by another way to get from one frame to the next. Each chain touches its share
// of --bytes in its innermost function, chain_KIND_leaf, which chain_KIND_middle called, which chain_KIND_outer called.
#define _GNU_SOURCE
#include "workload.h"

#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define KINDS 10
#define DEPTH 300

static uint64_t each;
static char *target;

// What a function does after a call, so that the call is not its last instruction and its locals live until then.
static volatile uint64_t done;

static void touch(char *start, uint64_t bytes) __attribute__((always_inline));
static inline void touch(char *start, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += WL_PAGE) ((volatile char *)start)[at] = 1;
}

#define CHAIN(kind)                                     \
    WL_FUNCTION static void chain_##kind##_middle(void) { \
        chain_##kind##_leaf();                          \
        done++;                                         \
    }                                                   \
    WL_FUNCTION static void chain_##kind##_outer(void) {  \
        chain_##kind##_middle();                        \
        done++;                                         \
    }

WL_FUNCTION static void chain_fault_leaf(void) { touch(target, each); }
CHAIN(fault)

// Through the procedure linkage table of a dynamic program, and a function that is chosen at the start.
WL_FUNCTION static void chain_memset_leaf(void) {
    for (uint64_t at = 0; at < each; at += WL_PAGE) memset(target + at, 1, WL_PAGE);
    done++;
}
CHAIN(memset)

// The kernel touches the memory.
WL_FUNCTION static void chain_read_leaf(void) {
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (zero < 0) wl_die("/dev/zero");
    for (uint64_t at = 0; at < each; at += WL_PIECE) {
        if (read(zero, target + at, WL_PIECE) != (ssize_t)WL_PIECE) wl_die("read");
    }
    close(zero);
}
CHAIN(read)

// On a stack of its own, out of which the trampoline of the signal leads.
WL_FUNCTION static void chain_signal_leaf(int number) {
    (void)number;
    touch(target, each);
    done++;
}
WL_FUNCTION static void chain_signal_middle(void) {
    wl_syscall3(SYS_tgkill, getpid(), (long)syscall(SYS_gettid), SIGUSR1);
    done++;
}
WL_FUNCTION static void chain_signal_outer(void) {
    static char stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = chain_signal_leaf, .sa_flags = SA_ONSTACK};
    if (sigaltstack(&alternate, NULL) != 0 || sigaction(SIGUSR1, &action, NULL) != 0) wl_die("sigaction");
    chain_signal_middle();
    done++;
}

// Frames larger than what is read of the stack at once, of a size that is known at run time only.
WL_FUNCTION static void chain_large_leaf(void) { touch(target, each); }
WL_FUNCTION static void chain_large_middle(void) {
    volatile char *room = alloca(48 * 1024 + (getpid() & 255));
    room[0] = 1;
    chain_large_leaf();
    done += room[0];
}
WL_FUNCTION static void chain_large_outer(void) {
    volatile char room[20 * 1024];
    room[0] = 1;
    chain_large_middle();
    done += room[0];
}

// Deeper than what is recorded of a stack.
WL_FUNCTION static void chain_deep_leaf(void) { touch(target, each); }
WL_FUNCTION static void chain_deep_middle(uint64_t depth) {
    if (depth == 0) chain_deep_leaf();
    else chain_deep_middle(depth - 1);
    done++;
}
WL_FUNCTION static void chain_deep_outer(void) {
    chain_deep_middle(DEPTH);
    done++;
}

// A frame that aligns its stack is found through memory.
WL_FUNCTION static void chain_aligned_leaf(void) { touch(target, each); }
WL_FUNCTION __attribute__((force_align_arg_pointer)) static void chain_aligned_middle(void) {
    volatile char room[256] __attribute__((aligned(64)));
    room[0] = 1;
    chain_aligned_leaf();
    done += room[0];
}
WL_FUNCTION static void chain_aligned_outer(void) {
    chain_aligned_middle();
    done++;
}

WL_FUNCTION static void chain_thread_leaf(void) { touch(target, each); }
CHAIN(thread)
static void *run_thread(void *unused) {
    chain_thread_outer();
    return unused;
}

// A stack that the program made itself.
WL_FUNCTION static void chain_context_leaf(void) { touch(target, each); }
CHAIN(context)
static ucontext_t back;

// The child runs in its parent's memory.
WL_FUNCTION static void chain_vfork_leaf(void) { touch(target, each); }
CHAIN(vfork)

static void run_context(void) {
    static char stack[64 << 10];
    ucontext_t context;
    if (getcontext(&context) != 0) wl_die("getcontext");
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = sizeof stack;
    context.uc_link = &back;
    makecontext(&context, chain_context_outer, 0);
    if (swapcontext(&back, &context) != 0) wl_die("swapcontext");
}

static void run_vfork(void) {
    pid_t child = vfork();
    if (child < 0) wl_die("vfork");
    if (child == 0) {
        chain_vfork_outer();
        _exit(0);
    }
    wl_reap(child);
}

int wl_chains(void) {
    uint64_t bytes = wl_even_bytes();
    each = bytes / KINDS / WL_PIECE * WL_PIECE;
    wl_step(&(struct wl_step){.name = "ready"});
    char *start = wl_map_small(KINDS * each);
    void (*const chains[])(void) = {chain_fault_outer, chain_memset_outer, chain_read_outer,  chain_signal_outer, chain_large_outer,
                                    chain_deep_outer,  chain_aligned_outer, run_context, run_vfork};
    for (unsigned chain = 0; chain < sizeof chains / sizeof chains[0]; chain++) {
        target = start + chain * each;
        chains[chain]();
    }
    target = start + (KINDS - 1) * each;
    pthread_t thread;
    if ((errno = pthread_create(&thread, NULL, run_thread, NULL)) != 0) wl_die("pthread_create");
    if ((errno = pthread_join(thread, NULL)) != 0) wl_die("pthread_join");
    wl_step(&(struct wl_step){.name = "touched"});
    return 0;
}
