//! Without any tracer: each workload changes `memory.stat` of its cgroup by what it says, at every step.

use harness::cgroup::TestCgroup;
use harness::place::Folder;
use harness::workload::{Step, Workload};

const BYTES: &str = "64M";
/// Of the change of one step.
const PERCENT: u64 = 1;
const SLACK: u64 = 512 << 10;

/// Runs it to its end and checks every step; the steps.
fn check(name: &str, args: &[&str]) -> Vec<Step> {
    let cgroup = TestCgroup::new(name).unwrap();
    let mut args = args.to_vec();
    args.extend(["--bytes", BYTES]);
    let mut workload = Workload::start(&cgroup, &args).unwrap();
    let mut steps = vec![workload.next_step().unwrap().unwrap()];
    assert_eq!(steps[0].name, "ready");
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
    truth_recycle: "recycle";
    truth_spawn_short: "spawn-short";
    truth_omit_fp: "omit-fp";
}

#[test]
#[ignore = "root"]
fn truth_file() {
    let folder = Folder::new("truth-file").unwrap();
    check("truth_file", &["file", "--pin", "--dir", folder.path().to_str().unwrap()]);
}
