//! Cgroups below cgroups: what each has for itself adds up to what the one above has with all below it, the dead included.

use harness::accuracy::{USUAL, bound};
use harness::cgroup::TestCgroup;
use harness::hierarchy::Version;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::place::Tmpfs;
use harness::report;
use harness::workload::Workload;
use serde_json::Value;

const EACH: u64 = 16 << 20;

fn figure(report: &Value, path: &str, rows: &str, kind: &str, field: &str) -> i64 {
    let cgroup = report::cgroup(report, path).unwrap().unwrap_or_else(|| panic!("the report has no {path}"));
    let row = &cgroup[rows][kind];
    row[field].as_i64().unwrap_or_else(|| panic!("{path} {rows} {kind} {field}: {row}"))
}

fn optional(report: &Value, path: &str, kind: &str, field: &str) -> i64 {
    let cgroup = report::cgroup(report, path).unwrap().unwrap_or_else(|| panic!("the report has no {path}"));
    cgroup["kinds"][kind][field].as_i64().unwrap_or(0)
}

/// top / {left / {one, two}, right / gone}: `gone` is removed with a tmpfs file left.
#[test]
#[ignore = "root"]
fn native_nested_cgroups_add_up() {
    let tmpfs = Tmpfs::new("nested").unwrap();
    let top = TestCgroup::new("nested").unwrap();
    let (left, right) = (top.child("left").unwrap(), top.child("right").unwrap());
    let (one, two) = (left.child("one").unwrap(), left.child("two").unwrap());
    let mut gone = right.child("gone").unwrap();
    let bytes = EACH.to_string();
    let memtrail = Memtrail::start(&record_args(top.path(), Mode::Exact)).unwrap();
    let mut living: Vec<Workload> =
        [&one, &two].map(|cgroup| Workload::start(cgroup, &["anon", "--bytes", &bytes]).unwrap()).into_iter().collect();
    for workload in &mut living {
        workload.run_to("freed").unwrap();
    }
    let args = ["tmpfs", "--keep", "--dir", tmpfs.path().to_str().unwrap(), "--bytes", &bytes];
    Workload::start(&gone, &args).unwrap().finish().unwrap();
    let gone_path = gone.path().to_owned();
    gone.remove().unwrap();
    top.settled_kinds().unwrap();
    let stat = top.stat().unwrap();
    // The kernel's figures of all that is below.
    let names = match top.version() {
        Version::V1 => [("anon", "total_rss"), ("shmem", "total_shmem")],
        Version::V2 => [("anon", "anon"), ("shmem", "shmem")],
    };
    let outcome = memtrail.stop().unwrap();
    let report = &outcome.report;
    let allowed = i64::try_from(bound(&report::tier(report).unwrap(), USUAL).unwrap().of(4 * EACH)).unwrap();

    for (kind, name) in names {
        let expected = i64::try_from(stat[name]).unwrap();
        for cgroup in [&top, &left, &right] {
            // What the kernel says of the subtree is what was followed in it.
            let path = cgroup.path();
            let left_over = figure(report, path, "subtree", kind, "unattributed");
            println!("{path} {kind}: subtree {}, unattributed {left_over}", figure(report, path, "subtree", kind, "stat"));
            assert!(left_over.abs() <= allowed, "{path} {kind}: unattributed {left_over}");
        }
        let whole = figure(report, top.path(), "subtree", kind, "live");
        assert!((whole - expected).abs() <= allowed, "{kind}: {whole}, memory.stat says {expected}");
        let paths = [top.path(), left.path(), right.path(), one.path(), two.path(), &gone_path];
        let sum: i64 = paths.iter().map(|path| optional(report, path, kind, "live")).sum();
        assert_eq!(sum, whole, "{kind}: the parts do not make the whole");
    }
    // The dead keeps its bytes by name; on v2 its nearest living ancestor shows that the kernel counts them there.
    let half = i64::try_from(EACH / 2).unwrap();
    let dead = report::cgroup(report, &gone_path).unwrap().unwrap();
    assert_eq!(dead["state"], "dead");
    assert!((optional(report, &gone_path, "shmem", "live") - half).abs() <= allowed, "{dead}");
    if right.version() == Version::V2 {
        assert!(
            (optional(report, right.path(), "shmem", "dead_below") - half).abs() <= allowed,
            "{:?}",
            report::cgroup(report, right.path())
        );
    }
}
