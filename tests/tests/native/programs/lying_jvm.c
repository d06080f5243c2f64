/*
 * What says that it is HotSpot 17, and lies.
 *
 * With -DLIBRARY it is libjvm.so: the description of a JVM, true of the structures that the program makes. The program, `lying_jvm LIBRARY LIE PAGES`,
 * touches that many new pages, each from a function that its "JVM" has compiled; LIE says which of the structures is wrong. It prints "done", and waits for
 * the end of its input.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>

#ifdef LIBRARY

typedef struct { const char *type, *field, *of; int32_t is_static; uint64_t offset; void *address; } Field;
typedef struct { const char *type, *super; int32_t kinds[3]; uint64_t size; } Type;

void *heaps, *interpreter;
static int major = 17;

static Field fields[] = {
    {"CodeCache", "_heaps", "", 1, 0, &heaps}, {"AbstractInterpreter", "_code", "", 1, 0, &interpreter},
    {"Abstract_VM_Version", "_vm_major_version", "", 1, 0, &major}, {"GrowableArray<int>", "_data", "", 0, 8, 0},
    {"CodeHeap", "_memory", "", 0, 8, 0}, {"CodeHeap", "_segmap", "", 0, 120, 0}, {"CodeHeap", "_log2_segment_size", "", 0, 256, 0},
    {"VirtualSpace", "_low_boundary", "", 0, 0, 0}, {"VirtualSpace", "_high_boundary", "", 0, 8, 0}, {"VirtualSpace", "_low", "", 0, 16, 0},
    {"StubQueue", "_stub_buffer", "", 0, 8, 0}, {"StubQueue", "_buffer_limit", "", 0, 20, 0},
    {"CodeBlob", "_name", "", 0, 96, 0}, {"CodeBlob", "_frame_size", "", 0, 28, 0}, {"CodeBlob", "_frame_complete_offset", "", 0, 20, 0},
    {"CodeBlob", "_code_begin", "", 0, 32, 0}, {"CompiledMethod", "_method", "", 0, 112, 0},
    {"CompiledMethod", "_scopes_data_begin", "", 0, 120, 0}, {"CompiledMethod", "_deopt_handler_begin", "", 0, 128, 0},
    {"nmethod", "_compile_id", "", 0, 304, 0}, {"nmethod", "_scopes_pcs_offset", "", 0, 268, 0},
    {"nmethod", "_dependencies_offset", "", 0, 272, 0}, {"nmethod", "_metadata_offset", "", 0, 260, 0},
    {"nmethod", "_orig_pc_offset", "", 0, 300, 0}, {"Method", "_constMethod", "", 0, 8, 0}, {"ConstMethod", "_constants", "", 0, 8, 0},
    {"ConstMethod", "_constMethod_size", "", 0, 24, 0}, {"ConstMethod", "_flags", "", 0, 28, 0}, {"ConstMethod", "_code_size", "", 0, 32, 0},
    {"ConstMethod", "_name_index", "", 0, 34, 0}, {"ConstMethod", "_signature_index", "", 0, 36, 0},
    {"ConstantPool", "_pool_holder", "", 0, 24, 0}, {"ConstantPool", "_source_file_name_index", "", 0, 54, 0},
    {"Klass", "_name", "", 0, 24, 0}, {"Symbol", "_length", "", 0, 4, 0}, {"Symbol", "_body", "", 0, 6, 0}, {0},
};
static Type types[] = {{"HeapBlock", 0, {0}, 16}, {"ConstMethod", 0, {0}, 48}, {"ConstantPool", 0, {0}, 72}, {0}};

Field *gHotSpotVMStructs = fields;
uint64_t gHotSpotVMStructEntryArrayStride = sizeof(Field);
uint64_t gHotSpotVMStructEntryTypeNameOffset = offsetof(Field, type);
uint64_t gHotSpotVMStructEntryFieldNameOffset = offsetof(Field, field);
uint64_t gHotSpotVMStructEntryOffsetOffset = offsetof(Field, offset);
uint64_t gHotSpotVMStructEntryAddressOffset = offsetof(Field, address);
Type *gHotSpotVMTypes = types;
uint64_t gHotSpotVMTypeEntryArrayStride = sizeof(Type);
uint64_t gHotSpotVMTypeEntryTypeNameOffset = offsetof(Type, type);
uint64_t gHotSpotVMTypeEntrySizeOffset = offsetof(Type, size);

/* Through the library, so that walks meet it. */
__attribute__((noinline)) void call(void (*code)(void (*)(void *), void *), void (*function)(void *), void *argument) {
    code(function, argument);
    __asm__ volatile("");
}

#else

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
enum { ROOM = 64 * PAGE, WILD = 0x123456789000 };

static void touch(void *page) {
    *(volatile char *)page = 1;
    __asm__ volatile("");
}

/* A name of the JVM's: four bytes of nothing, the length, the text. */
static uint8_t *symbol(uint8_t *at, const char *text, uint16_t length) {
    memcpy(at + 4, &length, 2);
    memcpy(at + 6, text, strlen(text));
    return at;
}

static void put8(uint8_t *at, uint64_t value) { memcpy(at, &value, 8); }
static void put4(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }
static void put2(uint8_t *at, uint16_t value) { memcpy(at, &value, 2); }
static uint8_t *fresh(size_t bytes, int protection) {
    uint8_t *at = mmap(0, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) exit(1);
    return at;
}

int main(int count, char **arguments) {
    if (count < 4) return 2;
    void *library = dlopen(arguments[1], RTLD_NOW);
    if (!library) return 3;
    int lie = atoi(arguments[2]), pages = atoi(arguments[3]);
    void (*call)(void *, void (*)(void *), void *) = dlsym(library, "call");
    uint8_t **heaps = dlsym(library, "heaps"), **interpreter = dlsym(library, "interpreter");

    /* push %rbp; mov %rsp,%rbp; mov %rdi,%rax; mov %rsi,%rdi; call *%rax; pop %rbp; ret */
    static const uint8_t code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3};
    enum { RETURNS = 12 };
    uint8_t *low = fresh(ROOM, PROT_READ | PROT_WRITE | PROT_EXEC), *data = fresh(ROOM, PROT_READ | PROT_WRITE);
    uint8_t *blob = low + 16, *begins = blob + 512, *segments = data + 0x8000, *heap = data + 0x400, *list = data + 0x600, *queue = data + 0x700;
    uint8_t *method = data + 0x800, *constant = data + 0x900, *pool = data + 0xa00, *class = data + 0xb00, *pcs = blob + 0x1000, *scopes = blob + 0x1800;
    uint8_t *metadata = blob + 0x2000;
    memcpy(begins, code, sizeof code);
    strcpy((char *)data, "nmethod");
    memset(segments, 0xff, ROOM / 128);
    for (int segment = 0; segment < 128; segment++) segments[segment] = segment > 100 ? 100 : segment;
    put8(heap + 8, (uint64_t)low), put8(heap + 16, (uint64_t)low + ROOM), put8(heap + 120 + 16, (uint64_t)segments), put4(heap + 256, 7);
    put4(list, 1), put8(list + 8, (uint64_t)data + 0x680), put8(data + 0x680, (uint64_t)heap);
    for (int more = 1; more < 4; more++) put8(data + 0x680 + 8 * more, (uint64_t)heap);
    put8(queue + 8, (uint64_t)data), put4(queue + 20, 16);
    put8(blob + 96, (uint64_t)data), put4(blob + 28, 2), put4(blob + 20, 4), put8(blob + 32, (uint64_t)begins), put8(blob + 112, (uint64_t)method);
    put8(blob + 120, (uint64_t)scopes), put8(blob + 128, WILD), put4(blob + 304, 7), put4(blob + 268, 0x1000), put4(blob + 272, 0x1000 + 3 * 16);
    put4(blob + 260, 0x2000), put4(blob + 300, 0);
    put4(pcs, -1), put4(pcs + 16, RETURNS), put4(pcs + 20, 1), put4(pcs + 32, 1 << 20);
    /* No caller, the first method, bytecode 4. */
    memcpy(scopes + 1, "\0\1\5", 3);
    put8(metadata, (uint64_t)method), put8(method + 8, (uint64_t)constant);
    put8(constant + 8, (uint64_t)pool), put4(constant + 24, 8), put2(constant + 32, 8), put2(constant + 34, 1), put2(constant + 36, 1);
    put8(pool + 24, (uint64_t)class), put2(pool + 54, 2);
    put8(pool + 72 + 8, (uint64_t)symbol(data + 0xc00, "truthful", 8)), put8(pool + 72 + 16, (uint64_t)symbol(data + 0xc80, "Lies.java", 9));
    put8(class + 24, (uint64_t)symbol(data + 0xd00, "Lies", 4));
    *heaps = list, *interpreter = queue;

    switch (lie) {
    case 1: memset(segments, 1, ROOM / 128); break;                               /* There is no first segment. */
    case 2: put8(heap + 120 + 16, WILD); break;                                   /* Segments are nowhere. */
    case 3: put4(list, 0x7fffffff); break;                                        /* Heaps without end. */
    case 4: put8(blob + 96, WILD); break;                                         /* A name that is nowhere. */
    case 5: put4(blob + 28, 0x7fffffff); break;                                   /* A frame of 16 GiB. */
    case 6: put4(blob + 28, 3000); break;                                         /* A frame that is longer than the stack. */
    case 7: memcpy(scopes + 1, "\1\1\5", 3); break;                               /* A scope that is its own caller. */
    case 8: put8(metadata, WILD); break;                                          /* A method that is nowhere. */
    case 9: put8(metadata, (uint64_t)method + 1); break;                          /* One that is no address of one. */
    case 10: put8(method + 8, (uint64_t)method); put8(method + 16, (uint64_t)method); break;   /* Everything is itself. */
    case 11: symbol(data + 0xd00, "Lies", 0xffff); break;                         /* A name without end. */
    case 12: symbol(data + 0xd00, "\x1b[2J;\xff\xfe", 8); break;                  /* A name for terminals. */
    case 13: put4(blob + 272, 0x7fffffff); break;                                 /* A list without end. */
    case 14: memset(scopes, 0xff, 64); break;                                     /* Numbers without end. */
    case 15: put8(queue + 8, 0), put4(queue + 20, 0x7fffffff); break;             /* Everything is interpreted. */
    case 16: put8(blob + 128, (uint64_t)begins + RETURNS), put4(blob + 300, 0x7ffffff0); break;   /* It is not valid, and was nowhere. */
    case 17: put8(blob + 32, WILD); break;                                        /* Code that begins behind itself. */
    case 18: put2(constant + 34, 0xffff); break;                                  /* A name beyond all constants. */
    case 19: put2(constant + 28, 1), put4(constant + 24, 0xffffffff); memset(constant + 48, 0xff, 64); break;   /* Lines without end. */
    }
    uint8_t *memory = mmap(0, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < pages; page++) call(begins, touch, memory + (size_t)page * PAGE);
    puts("done");
    fflush(stdout);
    while (getchar() != EOF) { }
    return 0;
}

#endif
