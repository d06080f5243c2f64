//! Functions of programs that were stripped where they ran: named when a report is made, by symbols that are found later.

use harness::cgroup::TestCgroup;
use harness::memtrail::{self, Memtrail, Mode, record_args};
use harness::place::Folder;
use harness::workload::enter;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = "
    #include <stdlib.h>
    #include <sys/mman.h>
    static inline __attribute__((always_inline)) void fill_page(char *p) { *(volatile char *)p = 1; }
    static __attribute__((noinline)) void fill_cache(char *p, long n) { for (long i = 0; i < n; i += 4096) fill_page(p + i); }
    __attribute__((noinline)) void handle_request(char *p, long n) { fill_cache(p, n); __asm__ volatile(\"\"); }
    int main(int argc, char **argv) {
        long n = atol(argv[1]);
        handle_request(mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), n);
        return 0;
    }";
/// What calls what, in the folded form. What is inlined is a frame of its own where the symbols tell.
const CHAIN: &str = "main;handle_request;fill_cache;fill_page";

fn run_in(folder: &Path, line: &str) {
    let ended = Command::new("sh").args(["-ec", line]).current_dir(folder).status().unwrap();
    assert!(ended.success(), "{line}");
}

/// A server of debug files, which is ended with this.
struct Server(Child);

impl Server {
    fn start(files: &Path, port: u16) -> Server {
        let mut command = Command::new("debuginfod");
        command.args(["-p", &port.to_string(), "-d", ":memory:", "-F"]).arg(files);
        Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("debuginfod is installed"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn report_of(recording: &Path, arguments: &[&str], servers: Option<(&str, &Path)>) -> Output {
    let mut command = memtrail::command().unwrap();
    command.arg("report").arg(recording).args(["--value", "charged"]).args(arguments).stdin(Stdio::null()).env_remove("DEBUGINFOD_URLS");
    if let Some((url, cache)) = servers {
        command.env("DEBUGINFOD_URLS", url).env("DEBUGINFOD_CACHE_PATH", cache);
    }
    command.output().unwrap()
}

/// Bytes of stacks whose innermost functions are named; some of them must be whole. The first milliseconds of a program have no table yet.
fn named_bytes(folded: &Path) -> u64 {
    let text = std::fs::read_to_string(folded).unwrap();
    let innermost = CHAIN.strip_prefix("main;handle_request;").unwrap();
    assert!(text.contains(CHAIN) || !text.contains(innermost), "{text}");
    let lines = text.lines().filter(|line| line.contains(innermost)).filter_map(|line| line.rsplit_once(' '));
    lines.map(|(_, bytes)| bytes.parse::<u64>().unwrap()).sum()
}

/// Bytes that the program touches.
const BYTES: u64 = 16 << 20;

/// Records the stripped program, with its symbols in several places beside it. The recording.
fn record_stripped(folder: &Folder, name: &str) -> PathBuf {
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("server.c"), PROGRAM).unwrap();
    run_in(
        folder.path(),
        "gcc -g -O2 -fno-optimize-sibling-calls -Wl,--build-id server.c -o server && mkdir -p whole split other store cache && cp server whole/ && \
         gcc -g -O1 -Wl,--build-id server.c -o other/server && objcopy --only-keep-debug server split/server.debug && \
         cp split/server.debug store/ && strip --strip-all server",
    );
    let cgroup = TestCgroup::new(name).unwrap();
    let recording = at("run.mtrail");
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["-o".to_owned(), recording.to_str().unwrap().to_owned()]);
    let tracing = Memtrail::start_with_tables(&args).unwrap();
    let mut command = Command::new(at("server"));
    command.arg(BYTES.to_string());
    enter(&mut command, &cgroup).unwrap();
    assert!(command.spawn().unwrap().wait().unwrap().success());
    tracing.stop().unwrap();
    recording
}

#[test]
#[ignore = "root, a compiler"]
fn native_a_stripped_program_is_named_by_symbols_that_are_found_later() {
    let folder = Folder::new("named-later").unwrap();
    let recording = record_stripped(&folder, "named-later");
    let at = |name: &str| folder.path().join(name);
    let folded = at("out.folded");
    let output = folded.to_str().unwrap();
    let directory = |name: &str| at(name).to_str().unwrap().to_owned();
    // Without symbols there are places, and nobody is asked.
    assert!(report_of(&recording, &["-o", output], None).status.success());
    let text = std::fs::read_to_string(&folded).unwrap();
    assert!(text.contains("[server+0x") && !text.contains("fill_cache"), "{text}");
    // By the program before it was stripped, and by its debug file alone.
    for symbols in ["whole", "split"] {
        let outcome = report_of(&recording, &["--symbols", &directory(symbols), "-o", output], None);
        let named = named_bytes(&folded);
        assert!(outcome.status.success() && named as f64 >= 0.95 * BYTES as f64, "{symbols}: {named}: {outcome:?}");
        let text = std::fs::read_to_string(&folded).unwrap();
        assert!(!text.contains("[server+0x"), "{symbols}: {text}");
    }
    // Another build is no help, and that is said.
    let outcome = report_of(&recording, &["--symbols", &directory("other"), "-o", output], None);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(outcome.status.success() && said.contains("server (build id ") && said.contains("no symbols of that build"), "{said}");
    assert_eq!(named_bytes(&folded), 0);

    // Servers are asked only if that is wanted and there are some.
    let outcome = report_of(&recording, &["--debuginfod", "-o", output], None);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(outcome.status.code() == Some(1) && said.contains("DEBUGINFOD_URLS"), "{said}");
    let outcome = report_of(&recording, &["--symbols", &directory("nowhere"), "-o", output], None);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(outcome.status.code() == Some(1) && said.contains("nowhere"), "{said}");
}

/// The servers of distributions and of a company's own builds.
#[test]
#[ignore = "root, a compiler and debuginfod"]
fn long_a_stripped_program_is_named_by_debuginfod() {
    let folder = Folder::new("named-by-server").unwrap();
    let recording = record_stripped(&folder, "named-by-server");
    let at = |name: &str| folder.path().join(name);
    let folded = at("out.folded");
    let output = folded.to_str().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (server, url, cache) = (Server::start(&at("store"), port), format!("http://127.0.0.1:{port}"), at("cache"));
    let mut named = 0;
    // It takes a moment to look through its files, and what it does not have is remembered by the client.
    for attempt in 0..40 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let cache = cache.join(attempt.to_string());
        let outcome = report_of(&recording, &["--debuginfod", "-o", output], Some((&url, &cache)));
        assert!(outcome.status.success(), "{outcome:?}");
        named = named_bytes(&folded);
        if named > 0 {
            break;
        }
    }
    drop(server);
    assert!(named as f64 >= 0.95 * BYTES as f64, "{named} bytes by debuginfod");
}
