//! Stacks of code without frame pointers: known chains of callers, real programs, and what is said where a stack is not whole.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, providers, record_args, record_args_of};
use harness::place::Folder;
use harness::report::{self, StackRow};
use harness::workload::{Workload, enter};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// The kinds of chains of the workload `chains`, and what their middle functions come to on the stack.
const KINDS: [(&str, usize); 10] = [
    ("fault", 1),
    ("memset", 1),
    ("read", 1),
    ("signal", 1),
    ("large", 1),
    // Of 301 frames, those that are left of it: the 96 innermost frames and the 31 outermost are kept.
    ("deep", 90),
    ("aligned", 1),
    ("thread", 1),
    ("context", 1),
    ("vfork", 1),
];
const BYTES: u64 = 40 << 20;

fn record_chains(name: &str, provider: Option<&str>, more: &[&str]) -> (String, Outcome) {
    let cgroup = TestCgroup::new(&format!("{name}-{}", provider.unwrap_or("any"))).unwrap();
    let mut workload = Workload::start(&cgroup, &["chains", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args_of(&[cgroup.path()], Mode::Exact, provider);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    let has_tables = !more.contains(&"0");
    let memtrail = if has_tables { Memtrail::start_with_tables(&args) } else { Memtrail::start(&args) }.unwrap();
    workload.run_to("touched").unwrap();
    (cgroup.path().to_owned(), memtrail.stop().unwrap())
}

/// What the stacks that end in this function own, and how much of that has whole stacks in which the callers are those that called.
fn chain(stacks: &[StackRow], kind: &str, middles: usize) -> (u64, u64, Option<String>) {
    let named = |part: &str| format!("chain_{kind}_{part}");
    let (leaf, middle, outer) = (named("leaf"), named("middle"), named("outer"));
    let (mut owned, mut right, mut wrong) = (0, 0, None);
    for stack in stacks.iter().filter(|stack| stack.frames.contains(&leaf)) {
        owned += stack.charged;
        // Outermost first.
        let at = |name: &str| stack.frames.iter().position(|frame| frame == name);
        let between = |from: usize, to: usize| stack.frames[from + 1..to].iter().filter(|frame| **frame == middle).count();
        let in_order = at(&outer).zip(at(&leaf)).is_some_and(|(outer, leaf)| outer < leaf && between(outer, leaf) >= middles);
        // A C library that is linked in may have other code right before the function that contexts return to: what returns there cannot be told
        // from a call at the end of that code, and the stack says that it goes on to where no code is.
        let is_known_cut = kind == "context" && stack.status == "cut: return address outside of code";
        if (stack.status == "complete" || is_known_cut) && in_order {
            right += stack.charged;
        } else {
            wrong = Some(format!("{}: {}", stack.status, stack.frames.join(" > ")));
        }
    }
    (owned, right, wrong)
}

/// Each way from a frame to its caller: the fault of the code itself, a function of the C library, a system call, a signal on a stack of its own,
/// frames of unknown and of large size, a stack deeper than what is recorded, an aligned frame, a thread, a stack that the program made, and
/// a child in its parent's memory.
#[test]
#[ignore = "root"]
fn native_chains_without_frame_pointers_are_whole() {
    for provider in providers() {
        let (path, outcome) = record_chains("chains", provider.as_deref(), &[]);
        let tier = report::tier(&outcome.report).unwrap();
        let stacks = report::stacks(&outcome.report, &path).unwrap();
        for (kind, middles) in KINDS {
            let (owned, right, wrong) = chain(&stacks, kind, middles);
            println!("{tier}, {kind}: {right} of {owned} bytes have whole and right stacks");
            let each = BYTES / KINDS.len() as u64;
            assert!(owned as f64 >= 0.95 * each as f64, "{tier}: chain_{kind}_leaf owns {owned} of {each}");
            assert!(right as f64 >= 0.99 * owned as f64, "{tier}, {kind}: {right} of {owned}: {}", wrong.unwrap_or_default());
        }
    }
}

/// Without tables the callers are not known, and none are made up.
#[test]
#[ignore = "root"]
fn native_without_tables_no_chain_is_called_whole_and_wrong() {
    let (path, outcome) = record_chains("chains-off", None, &["--unwind-memory", "0"]);
    let stacks = report::stacks(&outcome.report, &path).unwrap();
    let mut cut = 0;
    for (kind, middles) in KINDS {
        let (owned, right, _) = chain(&stacks, kind, middles);
        cut += owned - right;
    }
    assert!(cut as f64 >= 0.8 * BYTES as f64, "{cut} bytes of {BYTES} have stacks that are not whole");
}

/// The smallest room there is: what finds none is told, and nothing else suffers.
#[test]
#[ignore = "root"]
fn native_unwinding_that_finds_no_room_is_counted_and_not_called_whole() {
    let (path, outcome) = record_chains("chains-tight", None, &["--unwind-memory", "64KiB"]);
    let full = outcome.report["losses"]["unwind_tables_full"].as_u64().unwrap();
    assert!(full > 0, "{:?}", outcome.report["losses"]);
    assert_eq!(outcome.status.code(), Some(0), "no bytes are lost by that");
    let stacks = report::stacks(&outcome.report, &path).unwrap();
    let (owned, ..) = chain(&stacks, "fault", 1);
    assert!(owned as f64 >= 0.95 * (BYTES / KINDS.len() as u64) as f64, "{owned}");
    for stack in stacks.iter().filter(|stack| stack.status != "complete" && stack.status != "none") {
        assert!(stack.frames.first().is_some_and(|frame| frame.starts_with("[cut")), "{} {:?}", stack.status, stack.frames);
    }
}

/// A library that is written over in place, with its inode as before, has other code afterwards, and other rules.
#[test]
#[ignore = "root, a compiler"]
fn native_a_library_that_is_written_over_has_a_new_table() {
    const BYTES: u64 = 16 << 20;
    const LIBRARY: &str = "
        #ifdef SECOND
        __attribute__((noinline)) long lib_other(long n) { volatile long a[50]; for (int i = 0; i < 50; i++) a[i] = n * i; return a[7]; }
        #define PAD 3000
        #else
        #define PAD 40
        #endif
        __attribute__((noinline)) void lib_leaf(char *p, long n) { for (long i = 0; i < n; i += 4096) ((volatile char *)p)[i] = 1; }
        __attribute__((noinline)) void lib_middle(char *p, long n) { volatile char pad[PAD]; pad[0] = 1; lib_leaf(p, n); pad[1] = 2; }";
    const PROGRAM: &str = "
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <sys/mman.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            void (*middle)(char *, long) = (void (*)(char *, long))dlsym(dlopen(argv[1], RTLD_NOW), \"lib_middle\");
            long n = atol(argv[2]);
            // The table is made when a walk first meets the file.
            middle(mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 65536);
            sleep(2);
            middle(mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), n);
            return 0;
        }";
    let folder = Folder::new("written-over").unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("lib.c"), LIBRARY).unwrap();
    std::fs::write(at("main.c"), PROGRAM).unwrap();
    let compile = |arguments: &str| {
        let ended = Command::new("gcc").args(arguments.split(' ')).current_dir(folder.path()).status().expect("gcc is installed");
        assert!(ended.success(), "{arguments}");
    };
    compile("-O2 -fomit-frame-pointer -shared -fPIC lib.c -o lib.so");
    compile("-O2 -fomit-frame-pointer -shared -fPIC -DSECOND lib.c -o second.so");
    compile("-O2 -fomit-frame-pointer main.c -o main -ldl");
    let cgroup = TestCgroup::new("written-over").unwrap();
    let memtrail = Memtrail::start_with_tables(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let run = || {
        let mut command = Command::new(at("main"));
        command.arg(at("lib.so")).arg(BYTES.to_string());
        enter(&mut command, &cgroup).unwrap();
        let mut child = command.spawn().unwrap();
        assert!(child.wait().unwrap().success());
    };
    run();
    let code = std::fs::read(at("second.so")).unwrap();
    std::fs::write(at("lib.so"), code).unwrap();
    run();
    let outcome = memtrail.stop().unwrap();
    let stacks = report::stacks(&outcome.report, cgroup.path()).unwrap();
    // The first program ended before its file was written over; its names were not needed until then, and are gone with the bytes.
    let is_place = |frame: &str| frame.starts_with("[lib.so+0x");
    let (mut by_name, mut by_place) = (0, 0);
    for stack in stacks.iter().filter(|stack| stack.status == "complete") {
        let user: Vec<&str> = stack.frames.iter().filter(|frame| !frame.ends_with("_[k]")).map(String::as_str).collect();
        match user[..] {
            [.., "main", "lib_middle", "lib_leaf"] => by_name += stack.charged,
            [.., "main", middle, leaf] if is_place(middle) && is_place(leaf) => by_place += stack.charged,
            _ => {}
        }
    }
    println!("{by_name} by name, {by_place} by place");
    assert!(by_name as f64 >= 0.95 * BYTES as f64, "the second: {by_name}");
    assert!((by_name + by_place) as f64 >= 1.95 * BYTES as f64, "both: {by_name} and {by_place}");
}

/// Debian's python3 has no frame pointers.
#[test]
#[ignore = "root"]
fn native_python_has_whole_stacks() {
    const BYTES: u64 = 64 << 20;
    let cgroup = TestCgroup::new("python").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    // Ends with its input, which this test holds.
    let mut command = Command::new("python3");
    command.args([
        "-c",
        &format!(
            "import sys, time; time.sleep(3); x = [bytes([1]) * 4000 for _ in range({})]; print(len(x), flush=True); sys.stdin.read()",
            BYTES / 4000
        ),
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    enter(&mut command, &cgroup).unwrap();
    let mut python = command.spawn().expect("python3 is installed");
    let mut said = String::new();
    BufReader::new(python.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let outcome = memtrail.stop().unwrap();
    drop(python.stdin.take());
    assert!(python.wait().unwrap().success());

    let stacks = report::stacks(&outcome.report, cgroup.path()).unwrap();
    let sum = |wanted: &dyn Fn(&StackRow) -> bool| -> u64 {
        stacks.iter().filter(|stack| stack.kind == "anon" && wanted(stack)).map(|stack| stack.live).sum()
    };
    let (live, whole) = (sum(&|_| true), sum(&|stack| stack.status == "complete"));
    println!("python3: {whole} of {live} live bytes have whole stacks");
    assert!(live >= BYTES * 95 / 100, "{live}");
    // What its start touches before its tables are there is not whole: some ten megabytes.
    assert!(whole >= BYTES * 99 / 100, "{whole} of {live}");
}
