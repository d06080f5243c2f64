//! The feed on the running kernel. Needs root: `cargo test -p tracer-user --test process_live -- --ignored`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use memtrail::process::{Feed, FeedOptions};
use memtrail::symbols::{FrameKind, Symbolizer, SymbolizerOptions};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn feed() -> Feed {
    let feed = Feed::start(FeedOptions::default()).expect("root");
    assert!(feed.settle(PATIENCE), "{:?}", feed.counters());
    feed
}

/// Compiles a C program into the directory.
fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (c, out) = (dir.join(format!("{name}.c")), dir.join(name));
    fs::write(&c, source).unwrap();
    let status = Command::new("gcc").args(["-O1", "-fno-omit-frame-pointer", "-o"]).arg(&out).arg(&c).args(flags).status().unwrap();
    assert!(status.success());
    out
}

/// Prints the monotonic time and an address inside of `known_function`, and ends 5 ms later.
const SHORT: &str = r#"
#include <stdio.h>
#include <time.h>
__attribute__((noinline)) void known_function(void) { struct timespec t = {0, 5000000}; nanosleep(&t, 0); }
int main(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    printf("%llu %llx\n", t.tv_sec * 1000000000ull + t.tv_nsec, (unsigned long long)(void *)known_function + 4);
    fflush(stdout);
    known_function();
    return 0;
}"#;

struct Seen {
    pid: u32,
    at_ns: u64,
    address: u64,
}

impl Seen {
    fn new(pid: u32, line: &str) -> Seen {
        let (at, address) = line.trim().split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        Seen { pid, at_ns: at.parse().unwrap(), address: u64::from_str_radix(address, 16).unwrap() }
    }
}

/// Runs to its end a command that becomes, by exec, a program that prints as SHORT does.
fn run(mut command: Command) -> Seen {
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Seen::new(pid, &String::from_utf8(output.stdout).unwrap())
}

/// Name of the process and of the function.
fn names(feed: &Feed, seen: &Seen) -> (String, String) {
    let image = feed.registry().image_at(seen.pid, seen.at_ns).cloned().expect("an image");
    let frames = Symbolizer::new(SymbolizerOptions::default()).user(&image, &[seen.address], feed.file_store());
    (String::from_utf8_lossy(memtrail::host::proc::comm::bytes(&image.comm)).into_owned(), frames[0].name.as_ref().to_owned())
}

#[test]
#[ignore = "needs root"]
fn root_a_process_of_five_milliseconds_in_its_own_mount_namespace_has_names() {
    let feed = feed();
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "short5ms", SHORT, &[]);
    // The program lies on a tmpfs that only its own mount namespace has, and that goes with it. A loaded machine may look too late
    // at one such process, never at twenty.
    let mut found = Vec::new();
    for _ in 0..20 {
        let script = "mount -t tmpfs none /mnt && cp \"$0\" /mnt/short5ms && exec /mnt/short5ms";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(&program);
        let seen = run(command);
        assert!(feed.settle(PATIENCE));
        found.push(names(&feed, &seen));
    }
    let named = found.iter().filter(|(_, function)| function == "known_function").count();
    println!("{named} of {} named; {:?} {:?}", found.len(), feed.files().counters(), feed.counters());
    assert!(found.iter().all(|(comm, _)| comm == "short5ms"), "{found:?}");
    assert!(named >= 1, "{found:?}");
}

#[test]
#[ignore = "needs root"]
fn root_two_hundred_quick_processes_all_have_images() {
    let feed = feed();
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "quick", SHORT, &["-static"]);
    let seen: Vec<Seen> = (0..200).map(|_| run(Command::new(&program))).collect();
    assert!(feed.settle(PATIENCE));
    let counters = feed.registry().counters();
    assert_eq!(counters.lost_records, 0, "{counters:?}");
    let mut symbolizer = Symbolizer::new(SymbolizerOptions::default());
    for one in &seen {
        let image = feed.registry().image_at(one.pid, one.at_ns).cloned().expect("an image");
        assert_eq!(memtrail::host::proc::comm::bytes(&image.comm), b"quick");
        assert!(image.to_ns.is_some_and(|end| end > one.at_ns), "{image:?}");
        let frames = symbolizer.user(&image, &[one.address], feed.file_store());
        assert_eq!((&*frames[0].name, frames[0].kind), ("known_function", FrameKind::User));
    }
    assert_eq!(symbolizer.counters().files, 1, "one file, one address: one reading");
}

#[test]
#[ignore = "needs root"]
fn root_five_thousand_forks_lose_nothing_that_is_not_counted() {
    let feed = feed();
    let dir = tempfile::tempdir().unwrap();
    let source = "#include <unistd.h>\n#include <sys/wait.h>\n\
        int main(void){for(int i=0;i<5000;i++){int p=fork();if(!p)_exit(0);waitpid(p,0,0);}return 0;}";
    let program = compile(dir.path(), "forks", source, &[]);
    let child = Command::new(program).spawn().unwrap();
    let pid = child.id();
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(feed.settle(PATIENCE));
    let registry = feed.registry();
    let forks = (0..=4_194_304).filter_map(|tgid| registry.image_at(tgid, u64::MAX)).filter(|i| i.parent_tgid == pid).count();
    let counters = registry.counters();
    println!("{forks} forks, {counters:?}");
    assert!(forks == 5000 || counters.lost_records > 0 || counters.dropped_images > 0, "{forks} {counters:?}");
    assert!(registry.len() < 40_000);
}

#[test]
#[ignore = "needs root"]
fn root_a_deleted_program_from_before_the_start_has_names() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "deleted", &SHORT.replace("{0, 5000000}", "{300, 0}"), &[]);
    let mut child = Command::new(&program).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let seen = Seen::new(child.id(), &line);
    fs::remove_file(&program).unwrap();
    let feed = feed();
    let expected = ("deleted".to_owned(), "known_function".to_owned());
    // The opener works through its queue beside the listing.
    let found = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        names(&feed, &seen) == expected
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found, "{:?}", feed.files().counters());
    assert_eq!(names(&feed, &seen), expected, "after its end too");
}

#[test]
#[ignore = "needs root"]
fn root_what_was_lost_is_counted_and_repaired_from_proc() {
    let options = FeedOptions { ring_bytes: 32 << 10, repair_interval: Duration::from_millis(10), ..FeedOptions::default() };
    let feed = Feed::start(options).expect("root");
    assert!(feed.settle(PATIENCE));
    let dir = tempfile::tempdir().unwrap();
    let storm = "#include <unistd.h>\n#include <sys/wait.h>\n\
        int main(void){for(int i=0;i<3000;i++){int p=fork();if(!p)_exit(0);waitpid(p,0,0);}return 0;}";
    let storm = compile(dir.path(), "storm", storm, &[]);
    let program = compile(dir.path(), "unseen", &SHORT.replace("{0, 5000000}", "{300, 0}"), &[]);
    // The reader waits for the registry while the rings run over.
    let registry = feed.registry();
    let storms: Vec<_> = (0..4).map(|_| Command::new(&storm).spawn().unwrap()).collect();
    for mut storm in storms {
        assert!(storm.wait().unwrap().success());
    }
    let mut child = Command::new(&program).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    drop(registry);
    let seen = Seen::new(child.id(), &line);
    let named = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let known = feed.registry().image_at(seen.pid, seen.at_ns).is_some();
        known && names(&feed, &seen) == ("unseen".to_owned(), "known_function".to_owned())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (lost, counters) = (feed.registry().counters().lost_records, feed.counters());
    println!("lost {lost}, {counters:?}");
    assert!(lost > 0 && counters.listings > 1, "{lost} {counters:?}");
    assert!(named, "{counters:?} {:?}", feed.files().counters());
}
