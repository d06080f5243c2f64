//! Containers that come and go by the hundred: all that they touched is found, under their names, in bounded memory.

use harness::cgroup::TestCgroup;
use harness::memtrail::{EmptyPrograms, Memtrail, Mode, record_args};
use harness::place::{Folder, Tmpfs};
use harness::report;
use harness::workload::Workload;
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

const KINDS: [(&str, &str); 3] = [("anon", "wl_life_anon"), ("file", "wl_life_file"), ("shmem", "wl_life_shmem")];

/// What is run: so many cgroups, so many of them at once, so often, with 1 to 4 times the unit of each kind.
struct Churn {
    cgroups: usize,
    at_once: usize,
    rounds: usize,
    unit: u64,
}

/// Most memory that the collector may take while so many come and go, bytes; what it takes while nothing happens is tested in `lifecycle`.
const COLLECTOR: u64 = 96_000_000;
/// The row of what is over, which no cgroup's name can be.
const REMOVED: &str = "[removed cgroups]";

/// Bytes of rows whose stack goes through that function, over all cgroups, and the variance of their figures.
fn through(report: &Value, function: &str, figure: &str) -> u64 {
    let rows = report["cgroups"].as_array().unwrap().iter().flat_map(|cgroup| cgroup["stacks"].as_array().unwrap());
    let has = |row: &&Value| row["frames"].as_array().unwrap().iter().any(|frame| frame == function);
    rows.filter(has).map(|row| row[figure].as_u64().unwrap()).sum()
}

fn of_kind(report: &Value, kind: &str, figure: &str) -> Vec<u64> {
    report["cgroups"].as_array().unwrap().iter().filter_map(|cgroup| cgroup["kinds"][kind][figure].as_u64()).collect()
}

/// What rounds of lives touched, of each kind, in bytes.
struct Lived {
    touched: u64,
    /// Of the files that are left: what two rounds left is there at any time.
    kept: u64,
    /// Wall time of each round, with what is removed after it.
    took: Vec<Duration>,
}

/// Rounds of lives of 50 to 500 ms, each in a new cgroup that is removed when it is over, started by a small process as a runtime's are: a
/// child of a large one would take longer to fork than to live.
fn live(parent: &TestCgroup, churn: &Churn, disk: &Path, tmpfs: &Path) -> Lived {
    let driver = parent.child("driver").unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (cgroup, dir, file) = (text(&parent.directory()), text(disk), text(tmpfs));
    let numbers = [churn.cgroups as u64, churn.at_once as u64, churn.rounds as u64, churn.unit].map(|value| value.to_string());
    let mut args = vec!["container-lives", "--cgroup", &cgroup, "--dir", &dir, "--file", &file];
    for (name, number) in ["--processes", "--parallel", "--rounds", "--bytes"].iter().zip(&numbers) {
        args.extend([name, number.as_str()]);
    }
    let mut driver = Workload::start(&driver, &args).unwrap();
    driver.run_to("ready").unwrap();
    let (mut of_rounds, mut took) = (Vec::new(), Vec::new());
    for round in 0..churn.rounds {
        let began = Instant::now();
        let steps = driver.run_to("round").unwrap();
        of_rounds.push(steps[0].figures["touched_of_each_kind"].as_f64().unwrap() as u64);
        if round >= 2 {
            std::fs::remove_dir_all(tmpfs.join((round - 2).to_string())).unwrap();
            empty_files(&disk.join((round - 2).to_string()));
        }
        took.push(began.elapsed());
    }
    driver.finish().unwrap();
    Lived { touched: of_rounds.iter().sum(), kept: of_rounds.iter().rev().take(2).sum(), took }
}

/// Gives the files' page cache back and leaves them there: ext4 without a journal looks for a new file's inode past all that were deleted
/// in the last minutes (fs/ext4/ialloc.c, recently_deleted), so each round would take longer than the one before.
fn empty_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        File::create(entry.unwrap().path()).unwrap();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(took: &[Duration]) -> Vec<f64> {
    took.iter().map(Duration::as_secs_f64).collect()
}

fn run(name: &str, churn: &Churn) {
    let (folder, tmpfs) = (Folder::new(name).unwrap(), Tmpfs::new(&format!("{name}-tmpfs")).unwrap());
    let parent = TestCgroup::new(name).unwrap();
    parent.limit(16 << 30).unwrap();
    let memtrail = Memtrail::start(&record_args(parent.path(), Mode::Default)).unwrap();
    let Lived { touched, kept, took } = live(&parent, churn, folder.path(), tmpfs.path());
    let outcome = memtrail.stop().unwrap();
    let report = &outcome.report;
    let cost = &report["cost"];
    let rss = cost["collector_rss_bytes"].as_u64().unwrap();
    println!(
        "{} cgroups x {}, {:.2} s a round, {} rows: collector {} MB at most, {} % of a CPU; losses {:?}",
        churn.cgroups,
        churn.rounds,
        median(seconds(&took)),
        report["cgroups"].as_array().unwrap().len(),
        rss / 1_000_000,
        cost["cpu_percent"],
        report::losses(report).unwrap()
    );
    let allowed = |bytes: u64, errors: Vec<u64>| {
        let sigma = errors.into_iter().map(|error| (error as f64).powi(2)).sum::<f64>().sqrt() as u64;
        (bytes / 50).max(3 * sigma)
    };
    for (kind, function) in KINDS {
        let (charged, allowed) = (through(report, function, "charged"), allowed(touched, of_kind(report, kind, "charged_stderr")));
        println!("{kind}: {charged} charged through {function} of {touched} touched, allowed {allowed}");
        assert!(charged.abs_diff(touched) <= allowed, "{kind}: {charged} of {touched}, allowed {allowed}");
    }
    let live: u64 = of_kind(report, "shmem", "live").into_iter().sum();
    let allowed = allowed(kept, of_kind(report, "shmem", "live_stderr"));
    println!("shmem: {live} live of {kept} kept, allowed {allowed}");
    assert!(live.abs_diff(kept) <= allowed, "{live} of {kept}, allowed {allowed}");
    for cgroup in report["cgroups"].as_array().unwrap() {
        let path = cgroup["path"].as_str().unwrap();
        let live = cgroup["kinds"].as_object().unwrap().values().any(|kind| kind["live"].as_u64().is_some_and(|bytes| bytes > 0));
        assert!(path.starts_with(parent.path()) || path == REMOVED && !live, "a cgroup without its name: {cgroup}");
    }
    assert!(rss < COLLECTOR, "{rss} bytes of memory");
    // What did not fit in a ring was counted, and found by a listing: no bytes are lost by it. Nor by distributions that so many cgroups at once
    // have no room for.
    let names_only = ["ring_full", "file_table_full", "recursion_misses", "histogram_table_full"];
    let others = report::losses(report).unwrap().into_keys().find(|cause| !names_only.contains(&cause.as_str()));
    assert_eq!(others, None, "{}", outcome.stderr);
}

#[test]
#[ignore = "root"]
fn native_churn_of_a_hundred_cgroups() {
    // Emulated machines are slow.
    let cgroups = if harness::place::own_machine() { 30 } else { 100 };
    run("churn", &Churn { cgroups, at_once: cgroups, rounds: 3, unit: 256 << 10 });
}

#[test]
#[ignore = "root, and minutes"]
fn long_churn_of_six_hundred_cgroups() {
    // 1 to 4 MiB in all, a third of each kind.
    run("churn-long", &Churn { cgroups: 600, at_once: 600, rounds: 20, unit: 320 << 10 });
}

/// Rounds that are not timed: memory that nobody has touched for a while is slow to come by in a virtual machine.
const WARM_ROUNDS: usize = 2;

/// What runs beside the lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    EmptyPrograms,
    Recording,
}

const BESIDE: [Beside; 3] = [Beside::Nothing, Beside::EmptyPrograms, Beside::Recording];

/// Wall time of each round with that beside it; `disk` is made, and left with empty files. That a recording is whole is judged.
fn timed(churn: &Churn, beside: Beside, disk: &Path) -> Vec<f64> {
    // Nothing of one call is charged in the next.
    std::fs::create_dir(disk).unwrap();
    let tmpfs = Tmpfs::new("churn-turns-tmpfs").unwrap();
    let parent = TestCgroup::new("churn-turns").unwrap();
    parent.limit(16 << 30).unwrap();
    let memtrail = (beside == Beside::Recording).then(|| Memtrail::start(&record_args(parent.path(), Mode::Default)).unwrap());
    let empty = (beside == Beside::EmptyPrograms).then(|| EmptyPrograms::attach().unwrap());
    // The start's own work is over then; who has none waits as long.
    std::thread::sleep(Duration::from_secs(1));
    let Lived { touched, took, .. } = live(&parent, churn, disk, tmpfs.path());
    drop(empty);
    if let Some(memtrail) = memtrail {
        let report = memtrail.stop().unwrap().report;
        let found: u64 = KINDS.iter().map(|(_, function)| through(&report, function, "charged")).sum();
        assert!(found.abs_diff(3 * touched) <= 3 * touched / 20, "{found} of {touched} of each kind");
    }
    for round in churn.rounds - 2..churn.rounds {
        empty_files(&disk.join(round.to_string()));
    }
    seconds(&took[WARM_ROUNDS..])
}

/// With nothing, with programs that do nothing, and with a recording beside them, by turns. What each costs the lives' wall time is printed, for a
/// time is not judged by a test.
fn by_turns(turns: usize, at_once: usize, rounds: usize) {
    let churn = Churn { cgroups: 600, at_once, rounds: WARM_ROUNDS + rounds, unit: 320 << 10 };
    let folder = Folder::new("churn-turns").unwrap();
    let mut times: [Vec<f64>; 3] = Default::default();
    for turn in 0..turns {
        let mut order = BESIDE;
        // Forth and back.
        if turn % 2 == 1 {
            order.reverse();
        }
        for beside in order {
            let number = beside as usize;
            times[number].extend(timed(&churn, beside, &folder.path().join(format!("{turn}-{number}"))));
        }
    }
    let [untraced, empty, traced] = times.clone().map(median);
    let more = |seconds: f64| (seconds / untraced - 1.0) * 100.0;
    println!(
        "{} cgroups, {at_once} at once, {} rounds of each: {untraced:.3} s a round untraced, {empty:.3} with empty programs ({:+.1} %), {traced:.3} \
         traced ({:+.1} %)",
        churn.cgroups,
        times[0].len(),
        more(empty),
        more(traced),
    );
    println!("{times:.2?}");
}

/// As fast as one process can start them, some five hundred a second: two CPUs have no time left, and whatever is beside them costs wall time.
#[test]
#[ignore = "root, and minutes"]
fn long_churn_by_turns_all_at_once() {
    by_turns(6, 600, 6);
}

/// Some two hundred new containers a second, which leave the machine some time.
#[test]
#[ignore = "root, and minutes"]
fn long_churn_by_turns_some_at_once() {
    by_turns(5, 128, 4);
}

/// Nearly four hundred a second: as many as leave two CPUs some time.
#[test]
#[ignore = "root, and minutes"]
fn long_churn_by_turns_most_at_once() {
    by_turns(5, 256, 4);
}
