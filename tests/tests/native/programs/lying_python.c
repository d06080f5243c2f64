// A program that says it is CPython 3.11, and lies in what it keeps: for each kind of lie it touches pages, and what it touched must be seen all the same.
//
// lying_python PAGES: prints the kinds of lies and their number of pages, and waits for the end of its input.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const unsigned long Py_Version = 0x030b02f0;
// As large as its own.
__attribute__((aligned(64))) char _PyRuntime[166688] = {1};

static char interpreter[4096], thread[4096], other[4096], cframe[64], frames[200][128], codes[2][512], name[512], truth[512], file[512], lines[8192];

static void put(char *record, int offset, uint64_t value) { memcpy(record + offset, &value, 8); }
static void put4(char *record, int offset, uint32_t value) { memcpy(record + offset, &value, 4); }
#define AT(record) ((uint64_t)(uintptr_t)(record))

static void text(char *record, const char *characters, uint64_t length, uint32_t kind) {
    put(record, 16, length);
    // Compact and ASCII.
    put4(record, 32, kind << 2 | 1 << 5 | 1 << 6);
    strcpy(record + 48, characters);
}

static void honest(void) {
    put(_PyRuntime, 40, AT(interpreter));
    put(interpreter, 0, 0);
    put(interpreter, 16, AT(thread));
    put(thread, 8, 0);
    put(thread, 152, (uint64_t)pthread_self());
    put(thread, 56, AT(cframe));
    put(cframe, 8, AT(frames[0]));
    for (int n = 0; n < 2; n++) {
        put(codes[n], 16, 100);
        put4(codes[n], 72, 7 + n);
        put(codes[n], 112, AT(file));
        put(codes[n], 128, AT(name));
        put(codes[n], 136, AT(lines));
    }
    // That one nobody lies about.
    put(codes[1], 128, AT(truth));
    text(truth, "truthful", 8, 1);
    text(name, "honest", 6, 1);
    text(file, "/app/lies.py", 12, 1);
    put(lines, 16, 0);
    for (int n = 0; n < 200; n++) {
        put(frames[n], 32, AT(codes[0]));
        put(frames[n], 48, n < 2 ? AT(frames[n + 1]) : 0);
        put(frames[n], 56, AT(codes[0]) + 184);
        frames[n][68] = n == 2;
    }
}

__attribute__((noinline)) void _PyEval_EvalFrameDefault(volatile char *page) {
    // Beyond the instructions in which the real one has no frame yet.
    __asm__ volatile(".skip 256, 0x90");
    *page = 1;
    // Not the last call: the frame stays.
    __asm__ volatile("" ::: "memory");
}

static const uint64_t WILD[] = {8, 0x1000, 0x7fffffffe000, 0xffffffff81000000, 0xdeadbeefdeadbeef, ~0ULL, 1ULL << 47, 1};
static const char *KINDS[] = {"honest", "frames-loop", "deep", "wild-frame", "wild-code", "wild-texts", "long-texts", "widths", "threads-loop",
                              "interpreters-loop", "many-functions", "hostile-name"};

static void lie(int kind, int n) {
    uint64_t wild = WILD[n % 8];
    honest();
    switch (kind) {
    case 0:
        for (int f = 0; f < 3; f++) put(frames[f], 32, AT(codes[1]));
        break;
    case 1: put(frames[2], 48, AT(frames[n % 3])); break;
    case 2:
        for (int f = 0; f < 199; f++) put(frames[f], 48, AT(frames[f + 1]));
        break;
    case 3: put(frames[n % 3], 48, wild); break;
    case 4: put(frames[n % 3], 32, wild); break;
    case 5: put(codes[0], n % 2 ? 112 : 128, wild); put(codes[0], 136, wild); break;
    case 6: put(name, 16, wild); put(file, 16, ~wild); put(lines, 16, wild); break;
    case 7: put4(name, 32, n << 2); break;
    case 8: put(thread, 152, 5); put(thread, 8, AT(other)); put(other, 152, 6); put(other, 8, AT(thread)); break;
    case 9: put(thread, 152, 5); put(interpreter, 0, AT(interpreter)); break;
    case 10: {
        char called[64];
        snprintf(called, sizeof called, "function_%d", n);
        text(name, called, strlen(called), 1);
        // Another function in the place of one that was read.
        put(codes[0], 136, AT(lines) + 16 * (n % 64));
        put4(codes[0], 72, n);
        break;
    }
    case 11: text(name, "a;b \n\033[31m (x:1) [before start]", 31, 1); break;
    }
}

int main(int argc, char **argv) {
    int pages = atoi(argv[1]);
    char *memory = mmap(NULL, sizeof KINDS / sizeof *KINDS * pages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc != 2 || memory == MAP_FAILED) return 1;
    // The kernel half knows the file by then.
    honest();
    printf("ready\n");
    fflush(stdout);
    getchar();
    for (int kind = 0; kind < (int)(sizeof KINDS / sizeof *KINDS); kind++)
        for (int n = 0; n < pages; n++) {
            lie(kind, n);
            _PyEval_EvalFrameDefault(memory);
            memory += 4096;
        }
    printf("done %d\n", (int)(sizeof KINDS / sizeof *KINDS) * pages);
    fflush(stdout);
    return getchar() == EOF ? 0 : 1;
}
