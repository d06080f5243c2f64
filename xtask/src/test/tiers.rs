//! The steps of each tier.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    Args, Run, Tier,
    cells::{self, Cells},
    outcome::Counts,
};
use crate::{
    apt, cgroup, command,
    ebpf::{self, Committed},
    programs, supervise, vm, workspace,
};

/// The compiler of the workloads, readers of what memtrail writes, and a terminal that can be read. What QEMU and the BPF toolchain need, they
/// install themselves.
const PACKAGES: &[&str] = &["gcc", "libc6-dev", "prometheus", "python3-venv", "tmux"];
/// What the long form traces besides: a JVM, other mallocs, and programs whose stacks must be whole; with perf, which copies stacks for another
/// unwinder.
const PACKAGES_LONG: &[&str] = &[
    "apache2-utils",
    "caddy",
    "debuginfod",
    "default-jdk-headless",
    "g++",
    "git",
    "golang-go",
    "libjemalloc2",
    "libmimalloc2.0",
    "libtcmalloc-minimal4",
    "linux-perf",
    "mariadb-server",
    "memcached",
    "nginx-light",
    "nodejs",
    "php-cli",
    "postgresql-15",
    "redis-server",
    "ruby",
];
/// Size of a workload in an emulated machine, bytes. The bounds stay relative.
const SMALL_BYTES: u64 = 16 << 20;
/// Rows of the accuracy table that run together there: 2 GiB hold no more of them with their tracers.
const ROWS_AT_ONCE: usize = 8;
/// What runs in every machine in the short form; all others are for the long one.
const IN_MACHINES: [&str; 3] = [TABLE, "native_oom_kills_of_each_sort", "native_chains_without_frame_pointers_are_whole"];
/// The accuracy table.
const TABLE: &str = "native_table";
/// The variable that names some of its rows, if not all are to run.
const ROWS: &str = "MEMTRAIL_TEST_ROWS";
/// Its cells.
const CELLS: &str = "tests/cells.txt";
/// Tests that run on this machine's kernel in the short form: the tracer's own, for the same reason.
const NATIVE_TESTS: &str = "native_";

/// The test program of the native and vm tiers. Its tests are marked `ignored`, since they need root.
const NATIVE: &str = "native";
/// Wall time after which a test program is killed: a hang must not look like a slow machine.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
const TIMEOUT_LONG: Duration = Duration::from_secs(2 * 60 * 60);

/// Runs the tiers asked for.
pub fn run(args: &Args, run: &mut Run) {
    let wanted = |tier| args.tier.is_empty() || args.tier.contains(&tier);
    run.step("set-up", |_| {
        apt::ensure_installed(PACKAGES)?;
        if args.long {
            apt::ensure_installed(PACKAGES_LONG)?;
        }
        ensure_component("fmt", "rustfmt")?;
        ensure_component("clippy", "clippy")
    });
    // Every tier tests the object that these sources give, not the one that happens to be committed.
    let object = run.step("eBPF object from source, and is the committed one stale?", |_| object());
    let object = object.flatten();
    if wanted(Tier::Pure) {
        pure(args, object.as_deref(), run);
    }
    if wanted(Tier::Native) || wanted(Tier::Vm) {
        on_kernels(args, object.as_deref(), run);
    }
}

/// Builds the object and compares the committed one; returns its path if the programs must be told to use it.
fn object() -> Result<Option<PathBuf>> {
    let built = ebpf::build()?;
    Ok(match built.compare()? {
        Committed::Same => None,
        Committed::OtherToolchain => Some(built.path),
    })
}

fn pure(args: &Args, object: Option<&Path>, run: &mut Run) {
    run.step("pure: cargo fmt", |_| cargo(object, &["fmt", "--all", "--check"]));
    let all = ["--workspace", "--exclude", "tracer-ebpf", "--locked"];
    run.step("pure: cargo clippy", |_| cargo(object, &[&["clippy", "--quiet"], &all[..], &["--all-targets", "--", "-Dwarnings"]].concat()));
    if args.long {
        run.step("pure: cargo doc", |_| {
            let mut doc = cargo_command(object, &[&["doc", "--quiet", "--no-deps"], &all[..]].concat())?;
            command::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
        });
    }
    run.step("pure: cargo test", |counts| {
        // With names, so that a test that does not end can be told; what passed is not shown.
        let mut tests = cargo_command(object, &[&["test", "--quiet", "--no-fail-fast"], &all[..], &["--", "--format=pretty"]].concat())?;
        let result = finished(&mut tests, timeout(args), Counts::is_news, counts);
        // They ran beside each other: the time from one's end to the next one's is nobody's.
        counts.times.clear();
        result
    });
}

/// The native and vm tiers: one program, built once, run here and in the machines.
fn on_kernels(args: &Args, object: Option<&Path>, run: &mut Run) {
    let source = Path::new("tests/tests").join(NATIVE).join("main.rs");
    let built = run.step("static programs", |_| {
        ensure!(workspace::root()?.join(&source).is_file(), "{} is missing", source.display());
        Ok((programs::binaries(object)?, programs::test(NATIVE, object)?))
    });
    let Some((binaries, tests)) = built else { return };
    if args.tier.is_empty() || args.tier.contains(&Tier::Native) {
        native(args, &tests, object, run);
    }
    let Some(cells) = run.step("expected cells", |_| cells::parse(&std::fs::read_to_string(workspace::root()?.join(CELLS))?)) else {
        return;
    };
    if args.tier.is_empty() || args.tier.contains(&Tier::Vm) {
        machines(args, binaries, tests, &cells, run);
    }
    if !run.machines.is_empty() && (args.filter.is_empty() || args.filter == [TABLE]) {
        let filled = run.machines.clone();
        run.step("accuracy table", |counts| {
            let only = asked_rows().map(|names| cells::asked(&cells, &names)).transpose()?;
            let (text, bad) = cells::table(&cells, &filled, args.long, only.as_ref())?;
            println!("{text}");
            if let Some(only) = only {
                let names: Vec<String> = only.into_iter().collect();
                counts.notes.push(format!("filtered: {ROWS} asks for {} only", names.join(" ")));
            }
            ensure!(bad == 0, "{bad} cells are empty or wrong");
            Ok(())
        });
    }
}

fn native(args: &Args, tests: &Path, object: Option<&Path>, run: &mut Run) {
    let name = "native: tests on this kernel";
    if !workspace::is_root() {
        run.skip(name, "not root");
        return;
    }
    run.step_on("native", name, |counts| {
        // Beside the test program lie the static memtrail and workloads, which is where it looks for them.
        let mut program = Command::new(tests);
        program.args(test_arguments(args));
        if !args.long && args.filter.is_empty() {
            program.arg(NATIVE_TESTS);
        }
        program.envs(test_environment(args)).current_dir(workspace::root()?.join("tests"));
        finished(&mut program, timeout(args), |_| true, counts)
    });
    if args.long && args.filter.is_empty() {
        // Built as it is used: there are a hundred thousand stacks.
        let words =
            ["test", "--quiet", "--release", "--locked", "-p", "tracer-user", "--test", "unwind_stacks", "--", "--ignored", "--nocapture"];
        run.step("native: stacks beside another unwinder", |counts| {
            finished(&mut cargo_command(object, &words)?, timeout(args), |_| true, counts)
        });
    }
}

fn machines(args: &Args, binaries: programs::Programs, tests: PathBuf, cells: &Cells, run: &mut Run) {
    let prepared = run.step("vm: kernels", |_| Ok((vm::machines(&args.kernel, &[])?, programs::init()?)));
    let Some((machines, init)) = prepared else { return };
    // As in a target folder: the programs in the folder above the test's.
    let guest_tests = format!("/bin/deps/{NATIVE}");
    let mut files: Vec<(PathBuf, String)> = vm::in_bin(binaries).collect();
    files.push((tests, guest_tests.clone()));
    let mut words = vec![guest_tests];
    words.extend(test_arguments(args));
    if !args.long && args.filter.is_empty() {
        words.extend(IN_MACHINES.map(str::to_owned));
    }
    let mut environment = test_environment(args);
    environment.push(("MEMTRAIL_TEST_MACHINE".to_owned(), "1".to_owned()));
    environment.push(("MEMTRAIL_TEST_DIR".to_owned(), "/disk".to_owned()));
    environment.push(("MEMTRAIL_TEST_BYTES".to_owned(), SMALL_BYTES.to_string()));
    environment.push(("MEMTRAIL_TEST_AT_ONCE".to_owned(), ROWS_AT_ONCE.to_string()));
    let rows = asked_rows().or_else(|| (!args.long).then(|| cells.short.iter().cloned().collect::<Vec<_>>().join(",")));
    environment.extend(rows.map(|rows| (ROWS.to_owned(), rows)));
    let job = vm::Job { init, files, command: words, environment, timeout: timeout(args) };
    // Each emulator uses one CPU of this machine.
    let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(machines.len());
    println!("\n== vm: {} machines, {at_once} at once", machines.len());
    let (waiting, done) = (Mutex::new(machines.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while supervise::interrupted().is_none()
                    && let Some((kernel, hierarchy)) = next(&waiting)
                {
                    let machine = format!("{}-{}", kernel.name(), hierarchy.name());
                    let (start, mut counts) = (Instant::now(), Counts::default());
                    let result = job.run(kernel, hierarchy, |line| {
                        command::show(&[machine.as_bytes(), b": ", line].concat());
                        counts.line(line, start.elapsed());
                    });
                    let result = result.and_then(|status| judged(status == 0, &format!("exit status {status}"), &counts));
                    let name = format!("vm: kernel {}, cgroup {}", kernel.name(), hierarchy.name());
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((machine, name, result, start.elapsed(), counts));
                }
            });
        }
    });
    for (machine, name, result, time, counts) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        run.done_on(&machine, &name, result, time, counts);
    }
}

/// The rows that the caller's environment asks for.
fn asked_rows() -> Option<String> {
    std::env::var(ROWS).ok().filter(|names| !names.is_empty())
}

fn next<T>(waiting: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn test_arguments(args: &Args) -> Vec<String> {
    let mut words = ["--ignored", "--test-threads=1", "--nocapture"].map(str::to_owned).to_vec();
    words.extend(args.filter.clone());
    words
}

fn test_environment(args: &Args) -> Vec<(String, String)> {
    let mut environment = vec![("RUST_BACKTRACE".to_owned(), "0".to_owned())];
    if args.long {
        environment.push(("MEMTRAIL_TEST_LONG".to_owned(), "1".to_owned()));
    }
    environment
}

fn timeout(args: &Args) -> Duration {
    if args.long { TIMEOUT_LONG } else { TIMEOUT }
}

/// Runs test programs, showing and noting what they say; an error unless all passed and there were any.
fn finished(program: &mut Command, limit: Duration, is_shown: fn(&[u8]) -> bool, counts: &mut Counts) -> Result<()> {
    let start = Instant::now();
    let ended = supervise::lines(program, limit, |line| {
        if let Some(line) = line {
            if is_shown(line) {
                command::show(line);
            }
            counts.line(line, start.elapsed());
        }
        let overdue = counts.overdue(start.elapsed());
        overdue.iter().for_each(|name| println!("== {name} does not end: its test program is killed"));
        !overdue.is_empty()
    })?;
    for left in cgroup::remove_left_by(ended.pid) {
        println!("== left behind: cgroup {left}");
    }
    if let Some(why) = ended.why {
        bail!("{why}");
    }
    judged(ended.status.success(), &ended.status.to_string(), counts)
}

fn judged(success: bool, status: &str, counts: &Counts) -> Result<()> {
    ensure!(counts.timeouts.is_empty(), "{} tests did not end in time, {} failed, {status}", counts.timeouts.len(), counts.failed);
    ensure!(success && counts.failed == 0, "{} tests failed, {status}", counts.failed);
    ensure!(counts.passed > 0, "no tests ran");
    Ok(())
}

fn cargo(object: Option<&Path>, args: &[&str]) -> Result<()> {
    command::run(&mut cargo_command(object, args)?)
}

fn cargo_command(object: Option<&Path>, args: &[&str]) -> Result<Command> {
    let mut cargo = programs::cargo();
    cargo.current_dir(workspace::root()?).args(args);
    if let Some(object) = object {
        cargo.env(programs::OBJECT_OVERRIDE, object);
    }
    Ok(cargo)
}

/// Makes sure that cargo has a subcommand that a minimal toolchain lacks.
fn ensure_component(subcommand: &str, component: &str) -> Result<()> {
    if command::output(programs::cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    println!("installing {component}");
    command::run(Command::new("rustup").args(["component", "add", component]))
}
