//! A program as distributions build them, with glibc's malloc and with others in its place: whose threads made the arenas, and whether there are
//! any.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::report;
use harness::workload::enter;
use serde_json::Value;
use std::io::BufRead as _;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// Threads that fill their share with blocks and free every second one. Without frame pointers, and with a libc of its own file.
const PROGRAM: &str = "
    #include <pthread.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    enum { THREADS = 8, BLOCKS = 1024, BYTES = 12 << 10 };
    static pthread_barrier_t filled;
    void *serve_requests(void *unused) {
        static __thread char *blocks[BLOCKS];
        for (int i = 0; i < BLOCKS; i++) memset(blocks[i] = malloc(BYTES), 1, BYTES);
        for (int i = 0; i < BLOCKS; i += 2) free(blocks[i]);
        pthread_barrier_wait(&filled);
        pthread_barrier_wait(&filled);
        return unused;
    }
    int main(void) {
        pthread_t threads[THREADS];
        pthread_barrier_init(&filled, NULL, THREADS + 1);
        getchar();
        for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, serve_requests, NULL);
        pthread_barrier_wait(&filled);
        puts(\"filled\");
        fflush(stdout);
        getchar();
        return 0;
    }";

/// What the report says of that program's cgroup, with a library in place of glibc's malloc.
fn recorded(name: &str, preload: Option<&str>) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("serve.c"), folder.path().join("serve"));
    std::fs::write(&source, PROGRAM).unwrap();
    let mut compiler = Command::new("gcc");
    compiler.args(["-O2", "-fomit-frame-pointer", "-pthread", "-o"]).arg(&program).arg(&source);
    assert!(compiler.status().expect("a C compiler is installed").success());
    let cgroup = TestCgroup::new(name).unwrap();
    cgroup.limit(256 * MIB).unwrap();
    let mut command = Command::new(&program);
    command.env_remove("MALLOC_ARENA_MAX").stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(library) = preload {
        let path = format!("/usr/lib/x86_64-linux-gnu/{library}");
        assert!(std::path::Path::new(&path).exists(), "{path} is not installed");
        command.env("LD_PRELOAD", path);
    }
    enter(&mut command, &cgroup).unwrap();
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    std::io::Write::write_all(&mut input, b"\n").unwrap();
    let mut said = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "filled\n");
    let outcome = memtrail.stop().unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    report::cgroup(&outcome.report, cgroup.path()).unwrap().expect("the cgroup is in the report").clone()
}

fn verdict(cgroup: &Value) -> Option<&Value> {
    cgroup["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["id"] == "glibc-arenas")
}

/// malloc has no frame pointers, so the stacks that mapped the arenas are cut: the function of their threads is known all the same.
#[test]
#[ignore = "root"]
fn native_arenas_name_the_function_of_their_threads() {
    let cgroup = recorded("serving", None);
    let arenas = cgroup["regions"].as_array().unwrap().iter().filter(|row| row["class"] == "glibc-arena");
    let origins: Vec<&Value> = arenas.flat_map(|row| row["origins"].as_array().unwrap()).collect();
    let bytes = |rows: &[&Value]| rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum::<u64>();
    for row in &origins {
        println!("{row}");
    }
    let named: Vec<&Value> = origins.iter().copied().filter(|row| row["thread_function"] == "serve_requests").collect();
    // Eight heaps of 64 MiB, but for what glibc trims.
    assert!(bytes(&origins) >= 8 * 60 * MIB && bytes(&named) == bytes(&origins), "{} of {}", bytes(&named), bytes(&origins));
    let verdict = verdict(&cgroup).expect("half of each arena is free");
    assert!(verdict["text"].as_str().unwrap().contains("MALLOC_ARENA_MAX"), "{verdict}");
}

/// Others have no arenas that glibc's settings would change, and what they map is not taken for glibc's.
#[test]
#[ignore = "root; jemalloc, tcmalloc and mimalloc"]
fn long_allocators_that_are_not_glibcs() {
    for library in ["libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so.2"] {
        let cgroup = recorded(&library.replace('.', "-"), Some(library));
        let mut classes: Vec<(&str, u64)> = Vec::new();
        for row in cgroup["regions"].as_array().unwrap() {
            classes.push((row["class"].as_str().unwrap(), row["resident"].as_u64().unwrap()));
        }
        println!("{library}: {classes:?}");
        let of = |class: &str| classes.iter().filter(|row| row.0 == class).map(|row| row.1).sum::<u64>();
        assert_eq!((verdict(&cgroup), cgroup["arenas"].as_array().map(Vec::len)), (None, Some(0)), "{library}");
        assert!(of("glibc-arena") == 0 && of("mmap-malloc") < MIB, "{library}: {classes:?}");
        assert!(of("other") + of("brk-heap") >= 40 * MIB, "{library}: {classes:?}");
    }
}
