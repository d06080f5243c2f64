//! Symbols of real programs: compiled here, run, and asked for the addresses that they print.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use memtrail::host::proc::Process;
use memtrail::host::proc::maps::Vma;
use memtrail::kernel_half::stack::Walked;
use memtrail::process::FileStore;
use memtrail::process::opener::open_mapped;
use memtrail::symbols::{Frame, FrameKind, Status, Symbolizer, SymbolizerOptions, Traced};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tracer_common::stack::UserFrame;
use tracer_common::unwind::FileKey;

/// A live process: what it maps, and its files with code, open.
struct Live {
    tgid: u32,
    code: Vec<Vma>,
    files: Mutex<FileStore>,
}

fn key(vma: &Vma) -> FileKey {
    FileKey { inode: vma.inode, device: vma.device as u32, ..FileKey::default() }
}

fn snapshot(tgid: u32) -> Live {
    let process = Process::open(tgid).unwrap();
    let code: Vec<Vma> = process.maps().unwrap().vmas.into_iter().filter(|vma| vma.execute).collect();
    let mut files = FileStore::default();
    for vma in code.iter().filter(|vma| vma.inode != 0) {
        let file = Arc::new(open_mapped(&process, vma.start, vma.end).unwrap());
        assert!(files.insert(&key(vma), &vma.name, None, Some(file)));
    }
    Live { tgid, code, files: Mutex::new(files) }
}

impl Live {
    /// Addresses as the kernel half records them.
    fn frames(&self, addresses: &[u64]) -> Vec<u64> {
        let frame = |(n, address): (usize, &u64)| {
            let look = address - u64::from(n > 0);
            let vma = self.code.iter().find(|vma| (vma.start..vma.end).contains(&look))?;
            let in_file = UserFrame::InFile { file: key(vma).number(), offset: address - vma.start + vma.offset };
            Some(if vma.inode == 0 { UserFrame::At(*address) } else { in_file }.number())
        };
        addresses.iter().enumerate().map(|place| frame(place).unwrap_or(0)).collect()
    }

    fn traced(&self) -> Traced {
        Traced { tgid: self.tgid, since_ns: 1, has_ended: false }
    }

    fn user(&self, symbolizer: &mut Symbolizer, addresses: &[u64]) -> Vec<Frame> {
        symbolizer.user(self.traced(), &self.frames(addresses), &self.files)
    }
}

struct Running(Child);

impl Running {
    /// Starts a program and reads its first line.
    fn start(command: &mut Command) -> (Running, String) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        (Running(child), line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn compile(dir: &Path, name: &str, source: &str, compiler: &str, flags: &[&str]) -> PathBuf {
    let extension = match compiler {
        "rustc" => "rs",
        "g++" => "cc",
        _ => "c",
    };
    let (file, out) = (dir.join(format!("{name}.{extension}")), dir.join(name));
    fs::write(&file, source).unwrap();
    let output = Command::new(compiler).arg("-o").arg(&out).arg(&file).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

fn addresses(line: &str) -> Vec<u64> {
    line.split_ascii_whitespace().map(|a| u64::from_str_radix(a.trim_start_matches("0x"), 16).unwrap()).collect()
}

fn names(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|f| &*f.name).collect()
}

/// One look-up an address, each as where a task stands.
fn each(symbolizer: &mut Symbolizer, live: &Live, line: &str) -> Vec<Frame> {
    addresses(line).iter().flat_map(|address| live.user(symbolizer, &[*address])).collect()
}

/// Prints the stack of its innermost function by walking frame pointers, in the main thread or in another.
const WALK: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline)) void walk(void) {
    void **fp = __builtin_frame_address(0);
    printf("%p", (void *)((char *)walk + 8));
    for (int i = 0; i < 32 && fp && !((unsigned long)fp & 7) && (unsigned long)fp > 0x10000; i++) {
        void **next = fp[0];
        printf(" %p", fp[1]);
        if (next <= fp || (char *)next - (char *)fp > 65536) break;
        fp = next;
    }
    printf("\n");
    fflush(stdout);
    pause();
}
__attribute__((noinline)) void middle(void) { walk(); __asm__(""); }
static void *thread(void *unused) { middle(); return unused; }
int main(int argc, char **argv) {
    (void)argv;
    if (argc == 1) { middle(); return 0; }
    pthread_t t;
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    return 0;
}"#;

fn stack_of(flags: &[&str], argument: &[&str], options: SymbolizerOptions) -> (Vec<String>, Status) {
    let dir = tempfile::tempdir().unwrap();
    let flags = [&["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"][..], flags].concat();
    let program = compile(dir.path(), "walk", WALK, "gcc", &flags);
    let (running, line) = Running::start(Command::new(program).args(argument));
    let live = snapshot(running.0.id());
    let frames = live.frames(&addresses(&line));
    let stack = Symbolizer::new(options).user_stack(live.traced(), &frames, Walked::Ended, &live.files);
    (stack.frames.iter().map(|f| f.name.as_ref().to_owned()).collect(), stack.status)
}

fn without_debug_files() -> SymbolizerOptions {
    SymbolizerOptions { debug: true, debug_directories: vec![] }
}

#[test]
fn stacks_of_c_programs_reach_the_beginning_of_their_threads() {
    for flags in [&[][..], &["-static"], &["-g"]] {
        // A C library without its local symbols is what most containers have.
        for options in [SymbolizerOptions::default(), without_debug_files()] {
            for (argument, third) in [(&[][..], "main"), (&["thread"], "thread")] {
                let (frames, status) = stack_of(flags, argument, options.clone());
                assert_eq!(
                    (&frames[..3], status),
                    (&["walk", "middle", third].map(str::to_owned)[..], Status::Complete),
                    "{flags:?} {frames:?}"
                );
                assert_eq!(frames.len(), 4, "nothing beyond the root: {flags:?} {frames:?}");
            }
        }
    }
}

#[test]
fn a_stripped_program_gives_its_places() {
    let (frames, _) = stack_of(&["-s"], &[], without_debug_files());
    assert!(frames[0].starts_with("[walk+0x"), "{frames:?}");
}

/// As Fedora's and Red Hat's packages are built (GDB's manual, "MiniDebugInfo").
#[test]
fn the_packed_symbols_of_a_stripped_program_name_its_functions() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "walk", WALK, "gcc", &["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"]);
    let pack = "objcopy --only-keep-debug walk debug && objcopy -S --remove-section .comment --keep-symbol=walk --keep-symbol=middle debug mini && \
                xz mini && strip --strip-all walk && objcopy --add-section .gnu_debugdata=mini.xz walk";
    assert!(Command::new("sh").args(["-c", pack]).current_dir(dir.path()).status().unwrap().success());
    let (running, line) = Running::start(&mut Command::new(&program));
    let live = snapshot(running.0.id());
    let frames = live.user(&mut Symbolizer::new(without_debug_files()), &addresses(&line));
    assert_eq!(&names(&frames)[..2], ["walk", "middle"]);
    assert!(frames[2].name.starts_with("[walk+0x"), "main was not packed: {frames:?}");
}

#[test]
fn inlined_functions_are_frames_of_their_own() {
    let source = r#"
        #include <stdio.h>
        #include <unistd.h>
        static inline __attribute__((always_inline)) void *inner(void) {
            void *here;
            __asm__ volatile("lea 0(%%rip), %0" : "=r"(here));
            return here;
        }
        static inline __attribute__((always_inline)) void *outer(void) { return inner(); }
        int main(void) { printf("%p\n", outer()); fflush(stdout); pause(); return 0; }"#;
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "inlined", source, "gcc", &["-O1", "-g"]);
    let (running, line) = Running::start(&mut Command::new(program));
    let live = snapshot(running.0.id());
    // One less: the lea gives the address after itself, which may be the caller's already.
    let address = addresses(&line)[0] - 1;
    let frames = live.user(&mut Symbolizer::new(SymbolizerOptions::default()), &[address]);
    assert_eq!(names(&frames), ["inner", "outer", "main"]);
    assert_eq!(frames.iter().map(|f| f.kind).collect::<Vec<_>>(), [FrameKind::Inlined, FrameKind::Inlined, FrameKind::User]);
}

#[test]
fn rust_and_cxx_names_are_demangled() {
    let dir = tempfile::tempdir().unwrap();
    let rust = r#"
        mod shop { pub struct Cart; impl Cart { #[inline(never)] pub fn fill() -> *const () { Cart::fill as *const () } } }
        fn main() {
            println!("{:p} {:p}", shop::Cart::fill(), std::thread::sleep as *const ());
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }"#;
    let program = compile(dir.path(), "rusty", rust, "rustc", &[]);
    let (running, line) = Running::start(&mut Command::new(program));
    let live = snapshot(running.0.id());
    let frames = each(&mut Symbolizer::new(without_debug_files()), &live, &line);
    let outer: Vec<&str> = frames.iter().filter(|f| f.kind == FrameKind::User).map(|f| &*f.name).collect();
    assert!(outer[0].contains("shop::Cart") && outer[0].ends_with("::fill"), "{outer:?}");
    assert!(outer[1].starts_with("std::thread::") && outer[1].ends_with("sleep"), "{outer:?}");

    let cxx = r#"
        #include <cstdio>
        #include <unistd.h>
        namespace shop { template <class T> struct Cart { static __attribute__((noinline)) void fill(T) { asm(""); } }; }
        int main() { shop::Cart<int>::fill(1); printf("%p\n", (void *)&shop::Cart<int>::fill); fflush(stdout); pause(); }"#;
    let program = compile(dir.path(), "cxx", cxx, "g++", &["-O1"]);
    let (running, line) = Running::start(&mut Command::new(program));
    let live = snapshot(running.0.id());
    let frames = each(&mut Symbolizer::new(without_debug_files()), &live, &line);
    assert_eq!(names(&frames), ["shop::Cart<int>::fill(int)"]);
}

#[test]
fn code_of_a_jit_has_the_names_of_its_perf_map() {
    let python = r#"
import mmap, os, sys, ctypes
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
path = f"/tmp/perf-{os.getpid()}.map"
with open(path, "w") as f:
    f.write(f"not a line\n{at:x} 40 py::handle request:/app/web.py\n")
native = ctypes.cast(ctypes.CDLL(None).PyEval_EvalCode, ctypes.c_void_p).value
print(f"{at + 16:x} {at + 256:x} {native + 4:x}", flush=True)
sys.stdin.readline()
os.unlink(path)
"#;
    let (mut running, line) = Running::start(Command::new("/usr/bin/python3").args(["-c", python]));
    let live = snapshot(running.0.id());
    let frames = each(&mut Symbolizer::new(without_debug_files()), &live, &line);
    running.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    running.0.wait().unwrap();
    assert_eq!(names(&frames), ["py::handle request:/app/web.py", "[jit]", "PyEval_EvalCode"]);
}

#[test]
fn the_kernels_code_page_has_names() {
    let (_, page) = memtrail::host::proc::own_vdso().unwrap().expect("a vdso");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&page).unwrap();
    let key = FileKey { inode: u64::MAX, ..FileKey::default() };
    let mut files = FileStore::default();
    assert!(files.insert(&key, b"[vdso]", None, Some(Arc::new(file))));
    let (files, traced) = (Mutex::new(files), Traced { tgid: 1, since_ns: 1, has_ended: false });
    let mut symbolizer = Symbolizer::new(without_debug_files());
    let frame = |offset: u64| UserFrame::InFile { file: key.number(), offset }.number();
    let found =
        (0..page.len() as u64).step_by(64).any(|at| symbolizer.user(traced, &[frame(at)], &files)[0].name.ends_with("clock_gettime"));
    assert!(found);
    assert!(symbolizer.user(traced, &[frame(1)], &files)[0].name.starts_with("[vdso+0x"));
}

#[test]
fn what_is_in_no_code_is_unknown_and_every_frame_gives_a_function() {
    let live = snapshot(std::process::id());
    let mut symbolizer = Symbolizer::new(without_debug_files());
    assert_eq!(names(&live.user(&mut symbolizer, &[0, u64::MAX, 1 << 63])), ["[unknown]"; 3]);
    let here = live.frames(&[names as *const () as u64]);
    let nobody = Mutex::new(FileStore::default());
    assert_eq!(names(&symbolizer.user(live.traced(), &here, &nobody)), ["[unknown]"], "a file of which nobody told");
}

#[test]
fn hostile_files_cost_their_own_symbols_only() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "walk", WALK, "gcc", &["-O1", "-g", "-pthread"]);
    let good = fs::read(&program).unwrap();
    let (running, line) = Running::start(&mut Command::new(&program));
    let live = snapshot(running.0.id());
    let address = addresses(&line)[0];
    let vma = live.code.iter().find(|vma| (vma.start..vma.end).contains(&address)).unwrap();
    assert_eq!(names(&live.user(&mut Symbolizer::new(without_debug_files()), &[address])), ["walk"]);
    // The same mapping with another file behind it: cut, or with bytes changed all over.
    let mut seed = 1_u64;
    for round in 0..300 {
        let mut bytes = good.clone();
        if round % 3 == 0 {
            bytes.truncate((round * good.len()) / 300);
        } else {
            for _ in 0..=round / 10 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 20) as u8;
            }
        }
        let path = dir.path().join("hostile");
        fs::write(&path, &bytes).unwrap();
        let mut files = FileStore::new(4);
        let file = Arc::new(fs::File::open(&path).unwrap());
        assert!(files.insert(&key(vma), &vma.name, None, Some(file)));
        let stack = live.frames(&[address, address + 1]);
        let frames = Symbolizer::new(without_debug_files()).user(live.traced(), &stack, &Mutex::new(files));
        assert!(frames.len() >= 2, "round {round}");
    }
}

#[test]
fn a_file_that_claims_gigabytes_of_headers_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "walk", WALK, "gcc", &["-O1", "-pthread"]);
    let (running, line) = Running::start(&mut Command::new(&program));
    let live = snapshot(running.0.id());
    let address = addresses(&line)[0];
    let vma = live.code.iter().find(|vma| (vma.start..vma.end).contains(&address)).unwrap();
    // e_phoff 64, and e_phentsize and e_phnum as large as they can be: 4.29 GB, which the file has.
    let mut head = [0; 64];
    head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    head[0x20] = 64;
    head[0x36..0x3a].fill(0xff);
    let path = dir.path().join("sparse");
    fs::write(&path, head).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.set_len(5 << 30).unwrap();
    let mut files = FileStore::new(4);
    assert!(files.insert(&key(vma), &vma.name, None, Some(Arc::new(file))));
    // Bytes that this process has written so far, the tests beside this one included, which write little.
    let written = || -> u64 {
        let io = fs::read_to_string("/proc/self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
    };
    let before = written();
    let mut symbolizer = Symbolizer::new(without_debug_files());
    let frames = symbolizer.user(live.traced(), &live.frames(&[address]), &Mutex::new(files));
    let bytes = written() - before;
    assert!(bytes < 256 << 20, "{bytes} bytes were written");
    assert!(frames[0].name.starts_with("[walk+0x"), "{frames:?}");
    assert_eq!(symbolizer.counters().refused, 1);
}

#[test]
fn kernel_addresses_have_the_names_of_kallsyms() {
    let kallsyms = fs::read_to_string("/proc/kallsyms").unwrap();
    let address = |wanted: &str| {
        let line = kallsyms.lines().find(|l| l.split_ascii_whitespace().nth(2) == Some(wanted)).unwrap();
        u64::from_str_radix(line.split_once(' ').unwrap().0, 16).unwrap()
    };
    let mut symbolizer = Symbolizer::new(without_debug_files());
    let (fault, read) = (address("handle_mm_fault"), address("vfs_read"));
    let frames = symbolizer.kernel(&[fault + 1, read + 5]);
    if fault == 0 {
        assert!(symbolizer.kernel_warning().is_some());
        assert_eq!(names(&frames), ["[kernel+?]"; 2]);
    } else {
        assert_eq!(names(&frames), ["handle_mm_fault", "vfs_read"]);
        assert_eq!(frames[0].kind, FrameKind::Kernel);
    }
}
