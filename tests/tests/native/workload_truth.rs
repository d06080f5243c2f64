//! Without any tracer: each workload changes `memory.stat` of its cgroup by what it says, at every step.

use harness::cgroup::TestCgroup;
use harness::place::{Folder, Tmpfs};
use harness::workload::{Step, Workload};

const BYTES: u64 = 64 << 20;
/// Of the change of one step.
const PERCENT: u64 = 1;
const SLACK: u64 = 512 << 10;

/// Steps through the workload and checks every step; the steps.
fn check_in(cgroup: &TestCgroup, args: &[&str]) -> Vec<Step> {
    let bytes = BYTES.to_string();
    let args = [args, &["--bytes", &bytes]].concat();
    let name = args[0];
    let mut workload = Workload::start(cgroup, &args).unwrap();
    let mut steps = workload.run_to("ready").unwrap();
    let mut before = cgroup.settled_kinds().unwrap();
    let mut wrong = Vec::new();
    while let Some(step) = workload.next_step().unwrap() {
        let now = cgroup.settled_kinds().unwrap();
        let change = now - before;
        let bound = SLACK.max(step.resident.largest() * PERCENT / 100);
        let off = change.distance(step.resident);
        println!("{name} {}: says {}, stat {change}, off by {off} of {bound}", step.name, step.resident);
        if off > bound {
            wrong.push(format!("{}: says {}, memory.stat {change}", step.name, step.resident));
        }
        before = now;
        steps.push(step);
    }
    assert!(workload.wait().unwrap().success());
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    steps
}

fn check(test: &str, args: &[&str]) -> Vec<Step> {
    check_in(&TestCgroup::new(test).unwrap(), args)
}

macro_rules! truth {
    ($($test:ident: $($arg:expr),+;)*) => {$(
        #[test]
        #[ignore = "root"]
        fn $test() {
            check(stringify!($test), &[$($arg),+]);
        }
    )*};
}

truth! {
    truth_anon: "anon";
    truth_fork_cow: "fork-cow";
    truth_tmpfs: "tmpfs";
    truth_memfd: "memfd";
    truth_shared_anon: "shared-anon";
    truth_mremap: "mremap";
    truth_mlock: "mlock";
    truth_holes: "holes";
    truth_omit_fp: "omit-fp";
    truth_fault_storm: "fault-storm", "--rounds", "2";
    truth_tmpfs_storm: "tmpfs-storm", "--rounds", "2";
    truth_getppid_storm: "getppid-storm", "--rounds", "1000";
}

#[test]
#[ignore = "root"]
fn truth_file() {
    let folder = Folder::new("truth-file").unwrap();
    check("truth_file", &["file", "--pin", "--dir", folder.path().to_str().unwrap()]);
}

#[test]
#[ignore = "root"]
fn truth_file_storm() {
    let folder = Folder::new("truth-file-storm").unwrap();
    check("truth_file_storm", &["file-storm", "--rounds", "2", "--dir", folder.path().to_str().unwrap()]);
}

/// The pages must really be huge, else the row says nothing about huge pages.
fn all_huge(steps: &[Step]) {
    let touched = steps.iter().find(|step| step.name == "touched").unwrap();
    assert_eq!(touched.figures["huge"].as_f64(), Some(BYTES as f64));
}

#[test]
#[ignore = "root"]
fn truth_thp_whole() {
    all_huge(&check("truth_thp_whole", &["thp-whole"]));
}

/// Holes in huge pages are unmapped, and stay charged.
#[test]
#[ignore = "root"]
fn truth_thp_holes() {
    let cgroup = TestCgroup::new("truth_thp_holes").unwrap();
    let mut workload = Workload::start(&cgroup, &["thp-holes", "--bytes", &BYTES.to_string()]).unwrap();
    let usage = || cgroup.usage().unwrap() - cgroup.kernel_usage().unwrap().unwrap_or(0);
    let steps = workload.run_to("touched").unwrap();
    all_huge(&steps);
    let (before, usage_before) = (cgroup.settled_kinds().unwrap(), usage());
    let holes = workload.run_to("holes").unwrap().pop().unwrap();
    let (after, usage_after) = (cgroup.settled_kinds().unwrap(), usage());
    assert!((after - before).distance(holes.resident) <= SLACK, "memory.stat {}", after - before);
    assert!(usage_before.abs_diff(usage_after) <= SLACK, "usage from {usage_before} to {usage_after}: holes stay charged");
    assert_eq!(holes.unmapped.unsigned_abs(), BYTES / 2);
    workload.finish().unwrap();
}

#[test]
#[ignore = "root"]
fn truth_exit_without_free() {
    let cgroup = TestCgroup::new("truth_exit_without_free").unwrap();
    let before = cgroup.settled_kinds().unwrap();
    let steps = check_in(&cgroup, &["exit-without-free"]);
    assert_eq!(steps.last().unwrap().resident.largest(), BYTES);
    let left = cgroup.settled_kinds().unwrap() - before;
    assert!(left.anon.unsigned_abs() <= SLACK, "left {left}");
}

/// Highest usage ever: what the steps do not show, because it is gone when they end.
fn peak(cgroup: &TestCgroup) -> u64 {
    let file = ["memory.max_usage_in_bytes", "memory.peak"].map(|name| cgroup.directory().join(name));
    let text = std::fs::read_to_string(&file[0]).or_else(|_| std::fs::read_to_string(&file[1])).unwrap();
    text.trim().parse().unwrap()
}

/// 64 pages at a time, never more.
#[test]
#[ignore = "root"]
fn truth_recycle() {
    let cgroup = TestCgroup::new("truth_recycle").unwrap();
    let steps = check_in(&cgroup, &["recycle", "--rounds", "20000"]);
    assert_eq!(steps[1].charged.anon, 20000 * 64 * 4096);
    assert!(peak(&cgroup) < 8 << 20, "peak {}", peak(&cgroup));
}

#[test]
#[ignore = "root"]
fn truth_spawn_short() {
    for exec in [&["spawn-short"][..], &["spawn-short", "--exec"]] {
        let cgroup = TestCgroup::new(&format!("truth_spawn_short{}", exec.len())).unwrap();
        let steps = check_in(&cgroup, exec);
        let each = BYTES / 1000 / 4096 * 4096;
        assert_eq!(steps[1].charged.anon.unsigned_abs(), 1000 * each);
        assert_eq!(steps[1].figures["bytes_each"].as_f64(), Some(each as f64));
    }
}

/// malloc adds its own: at least what was asked for, and not twice that.
#[test]
#[ignore = "root"]
fn truth_threads_malloc() {
    let cgroup = TestCgroup::new("truth_threads_malloc").unwrap();
    let mut workload = Workload::start(&cgroup, &["threads-malloc", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let before = cgroup.settled_kinds().unwrap();
    workload.run_to("filled").unwrap();
    let filled = (cgroup.settled_kinds().unwrap() - before).anon;
    assert!((BYTES as i64..2 * BYTES as i64).contains(&filled), "filled {filled}");
    workload.run_to("half-freed").unwrap();
    let halved = (cgroup.settled_kinds().unwrap() - before).anon;
    assert!(halved > filled * 9 / 10, "free blocks stay in the arenas: {halved} of {filled}");
    workload.finish().unwrap();
}

/// The first reader is charged, the second is not.
#[test]
#[ignore = "root"]
fn truth_file_two_readers() {
    let folder = Folder::new("truth-two-readers").unwrap();
    let file = folder.cold_file("shared", BYTES).unwrap();
    let file = file.to_str().unwrap();
    let (first, second) = (TestCgroup::new("truth-first").unwrap(), TestCgroup::new("truth-second").unwrap());
    let steps = check_in(&first, &["file-two-readers", "--pin", "--file", file]);
    assert_eq!(steps[1].resident.file.unsigned_abs(), BYTES);
    check_in(&second, &["file-two-readers", "--pin", "--second", "--file", file]);
}

/// What is left in a tmpfs keeps its bytes although nobody is left in the cgroup.
#[test]
#[ignore = "root"]
fn truth_tmpfs_left_behind() {
    let tmpfs = Tmpfs::new("truth-left").unwrap();
    let mut cgroup = TestCgroup::new("truth_tmpfs_left").unwrap();
    let before = cgroup.settled_kinds().unwrap();
    check_in(&cgroup, &["tmpfs", "--keep", "--dir", tmpfs.path().to_str().unwrap()]);
    let left = (cgroup.settled_kinds().unwrap() - before).shmem;
    assert!(left.abs_diff(BYTES as i64 / 2) <= SLACK, "left {left}");
    cgroup.remove().unwrap();
    assert!(!cgroup.directory().exists());
}

/// With a limit the kernel kills it; nothing else is in its cgroup.
#[test]
#[ignore = "root"]
fn truth_oom() {
    let cgroup = TestCgroup::new("truth_oom").unwrap();
    cgroup.limit(32 << 20).unwrap();
    let mut workload = Workload::start(&cgroup, &["oom", "--bytes", "256M"]).unwrap();
    workload.run_to("ready").unwrap();
    assert!(workload.next_step().unwrap().is_none(), "it survived");
    let status = workload.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
}

/// The harness leaves nothing: processes in the cgroup are killed with it.
#[test]
#[ignore = "root"]
fn a_cgroup_is_removed_with_its_processes() {
    let cgroup = TestCgroup::new("removed").unwrap();
    let directory = cgroup.directory();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", "4M"]).unwrap();
    workload.run_to("touched").unwrap();
    assert_eq!(cgroup.pids().unwrap(), [i32::try_from(workload.pid()).unwrap()]);
    drop(cgroup);
    assert!(!directory.exists());
    assert!(!workload.wait().unwrap().success());
}
