//! Containers that come and go by the hundred: all that they touched is found, under their names, in bounded memory.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::place::{Folder, Tmpfs};
use harness::report;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KINDS: [(&str, &str); 3] = [("anon", "wl_life_anon"), ("file", "wl_life_file"), ("shmem", "wl_life_shmem")];

/// What is run: so many cgroups at once, so often, with 1 to 4 times the unit of each kind.
struct Churn {
    cgroups: usize,
    rounds: usize,
    unit: u64,
}

/// Most memory that the collector may take, bytes.
const COLLECTOR: u64 = 96_000_000;
/// The row of what is over, which no cgroup's name can be.
const REMOVED: &str = "[removed cgroups]";

impl Churn {
    fn bytes(&self, n: usize) -> u64 {
        self.unit * (1 + n as u64 % 4)
    }

    /// 50 to 500 ms.
    fn milliseconds(n: usize) -> u64 {
        50 + n as u64 * 37 % 450
    }
}

/// Starts one container's life.
fn live(cgroup: &TestCgroup, churn: &Churn, n: usize, folder: &str, file: &str) -> Child {
    let mut command = Command::new(harness::workload::binary().unwrap());
    let (bytes, milliseconds) = (churn.bytes(n).to_string(), Churn::milliseconds(n).to_string());
    command.args(["container-life", "--dir", folder, "--file", file, "--bytes", &bytes, "--milliseconds", &milliseconds]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    harness::workload::enter(&mut command, cgroup).unwrap();
    command.spawn().unwrap()
}

/// Bytes of rows whose stack goes through that function, over all cgroups, and the variance of their figures.
fn through(report: &Value, function: &str, figure: &str) -> u64 {
    let rows = report["cgroups"].as_array().unwrap().iter().flat_map(|cgroup| cgroup["stacks"].as_array().unwrap());
    let has = |row: &&Value| row["frames"].as_array().unwrap().iter().any(|frame| frame == function);
    rows.filter(has).map(|row| row[figure].as_u64().unwrap()).sum()
}

fn of_kind(report: &Value, kind: &str, figure: &str) -> Vec<u64> {
    report["cgroups"].as_array().unwrap().iter().filter_map(|cgroup| cgroup["kinds"][kind][figure].as_u64()).collect()
}

/// Rounds of lives, each in new cgroups that are removed when they are over. What two rounds left is there at any time. Bytes of each kind
/// that were touched, and that are left of the files.
fn rounds(parent: &TestCgroup, churn: &Churn, disk: &Path, tmpfs: &Path) -> (u64, u64) {
    let of_round: u64 = (0..churn.cgroups).map(|n| churn.bytes(n)).sum();
    for round in 0..churn.rounds {
        let place = |root: &Path| root.join(round.to_string());
        for root in [disk, tmpfs] {
            std::fs::create_dir(place(root)).unwrap();
        }
        let lives: Vec<(TestCgroup, Child)> = (0..churn.cgroups)
            .map(|n| {
                let cgroup = parent.child(&format!("c{round}-{n}")).unwrap();
                let file = place(tmpfs).join(n.to_string());
                let child = live(&cgroup, churn, n, place(disk).to_str().unwrap(), file.to_str().unwrap());
                (cgroup, child)
            })
            .collect();
        for (mut cgroup, mut child) in lives {
            assert!(child.wait().unwrap().success());
            cgroup.remove().unwrap();
        }
        if round >= 2 {
            for root in [disk, tmpfs] {
                std::fs::remove_dir_all(root.join((round - 2).to_string())).unwrap();
            }
        }
    }
    (of_round * churn.rounds as u64, of_round * churn.rounds.min(2) as u64)
}

/// The same, and the time of a round.
fn timed(parent: &TestCgroup, churn: &Churn, disk: &Folder, tmpfs: &Tmpfs) -> ((u64, u64), Duration) {
    let began = Instant::now();
    let bytes = rounds(parent, churn, disk.path(), tmpfs.path());
    (bytes, began.elapsed() / u32::try_from(churn.rounds).unwrap())
}

fn run(name: &str, churn: &Churn) {
    let (folder, tmpfs) = (Folder::new(name).unwrap(), Tmpfs::new(&format!("{name}-tmpfs")).unwrap());
    let parent = TestCgroup::new(name).unwrap();
    parent.limit(16 << 30).unwrap();
    let memtrail = Memtrail::start(&record_args(parent.path(), Mode::Default)).unwrap();
    let ((touched, kept), took) = timed(&parent, churn, &folder, &tmpfs);
    let outcome = memtrail.stop().unwrap();
    let report = &outcome.report;
    let cost = &report["cost"];
    let rss = cost["collector_rss_bytes"].as_u64().unwrap();
    println!(
        "{} cgroups x {}, {took:.2?} a round, {} rows: collector {} MB at most, {} % of a CPU; losses {:?}",
        churn.cgroups,
        churn.rounds,
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
    let names_only = ["ring_full", "file_table_full", "process_records", "recursion_misses", "histogram_table_full"];
    let others = report::losses(report).unwrap().into_keys().find(|cause| !names_only.contains(&cause.as_str()));
    assert_eq!(others, None, "{}", outcome.stderr);
}

#[test]
#[ignore = "root"]
fn native_churn_of_a_hundred_cgroups() {
    // Emulated machines are slow.
    let cgroups = if harness::place::own_machine() { 30 } else { 100 };
    run("churn", &Churn { cgroups, rounds: 3, unit: 256 << 10 });
}

#[test]
#[ignore = "root, and minutes"]
fn long_churn_of_six_hundred_cgroups() {
    // 1 to 4 MiB in all, a third of each kind.
    run("churn-long", &Churn { cgroups: 600, rounds: 20, unit: 320 << 10 });
}

/// How many times traced and untraced rounds are compared, and of how many rounds each time.
const PAIRS: usize = 10;
const ROUNDS_OF_PAIR: usize = 2;

/// What the recording costs the workload's wall time is printed, for a time is not judged by a test; that the recordings are whole is.
#[test]
#[ignore = "root, and minutes"]
fn long_churn_traced_and_untraced_by_turns() {
    let churn = Churn { cgroups: 600, rounds: ROUNDS_OF_PAIR, unit: 320 << 10 };
    let segment = |traced: bool| {
        // Nothing of one segment is there in the next.
        let (folder, tmpfs) = (Folder::new("churn-turns").unwrap(), Tmpfs::new("churn-turns-tmpfs").unwrap());
        let parent = TestCgroup::new("churn-turns").unwrap();
        parent.limit(16 << 30).unwrap();
        let memtrail = traced.then(|| Memtrail::start(&record_args(parent.path(), Mode::Default)).unwrap());
        // The start's own work is over then; the untraced segment waits as long.
        std::thread::sleep(Duration::from_secs(1));
        let ((touched, _), took) = timed(&parent, &churn, &folder, &tmpfs);
        if let Some(memtrail) = memtrail {
            let report = memtrail.stop().unwrap().report;
            let found: u64 = KINDS.iter().map(|(_, function)| through(&report, function, "charged")).sum();
            assert!(found.abs_diff(3 * touched) <= 3 * touched / 20, "{found} of {touched} of each kind");
        }
        took.as_secs_f64()
    };
    let pairs: Vec<[f64; 2]> = (0..PAIRS)
        .map(|pair| {
            let first = segment(pair % 2 != 0);
            let second = segment(pair % 2 == 0);
            if pair % 2 == 0 { [first, second] } else { [second, first] }
        })
        .collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of = |side: usize| median(pairs.iter().map(|pair| pair[side]).collect());
    let more = median(pairs.iter().map(|pair| (pair[1] / pair[0] - 1.0) * 100.0).collect());
    println!(
        "{PAIRS} pairs of {} cgroups x {ROUNDS_OF_PAIR}: {:.3} s a round untraced, {:.3} traced; {more:+.1} % pair by pair",
        churn.cgroups,
        of(0),
        of(1)
    );
    println!("{pairs:.3?}");
}
