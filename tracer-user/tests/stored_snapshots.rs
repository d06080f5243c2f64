//! The analysis on snapshots of real kernels. A fixture's name says the kernel, the hierarchy and the provider; what was made on it is known
//! (tests/tests/native/snapshots.rs): a heap, arenas, a file, and a tmpfs file left by a removed cgroup, 4 MiB each. What the report of each says
//! is compared with `NAME.txt` beside it, the summary in a terminal (`UPDATE_GOLDEN=1` writes those that are missing).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use memtrail::{
    analyse::rows,
    output::summary,
    recording::stored,
    report::{Cgroup, Report},
    snapshot::Snapshot,
};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// Bytes that each workload made.
const EACH: u64 = 4 * MIB;

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snapshots");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ending| ending == "mtsnap")).collect();
    files.sort();
    assert!(files.len() >= 10, "{} stored snapshots: ten are needed, of different kernels", files.len());
    files
}

fn of_all(check: impl Fn(&str, &Snapshot, &Report)) {
    for file in fixtures() {
        let snapshot = stored::read(&file).unwrap();
        check(&file.file_stem().unwrap().to_string_lossy(), &snapshot, &rows::report(&snapshot));
    }
}

fn row<'a>(report: &'a Report, ending: &str) -> &'a Cgroup {
    report.cgroups.iter().find(|row| row.path.ends_with(ending)).unwrap_or_else(|| panic!("no {ending}"))
}

/// Bytes of a kind that are live, with two standard errors.
fn live(row: &Cgroup, kind: &str) -> (u64, u64) {
    let kind = &row.kinds[kind];
    (kind.live.unwrap_or(0) + kind.baseline.unwrap_or(0), 2 * (kind.live_stderr.unwrap_or(0) + kind.baseline_stderr.unwrap_or(0)))
}

#[test]
fn what_was_made_is_found_on_every_kernel() {
    of_all(|name, _, report| {
        for (cgroup, kind) in [("/heap", "anon"), ("/arenas", "anon"), ("/cache", "file"), ("/gone", "shmem")] {
            let (bytes, error) = live(row(report, cgroup), kind);
            assert!(bytes + error >= EACH / 2 && bytes <= 4 * EACH + error, "{name}: {cgroup} has {bytes} ± {error} of {kind}");
        }
        assert_eq!(row(report, "/gone").state, "dead", "{name}");
    });
}

#[test]
fn stacks_files_and_regions_add_up_to_the_accounts() {
    of_all(|name, _, report| {
        for row in &report.cgroups {
            for kind in ["anon", "file", "shmem"] {
                let Some(account) = row.kinds.get(kind) else { continue };
                let of_kind = row.stacks.iter().filter(|stack| stack.kind == kind);
                let (live, charged) = of_kind.fold((0, 0), |sum, stack| (sum.0 + stack.live, sum.1 + stack.charged));
                assert_eq!((Some(live), Some(charged)), (account.live, account.charged), "{name}: {} {kind}", row.path);
            }
            let of_files: u64 = row.files.iter().map(|file| file.live).sum();
            let of_kinds: u64 = ["file", "shmem"].iter().filter_map(|kind| row.kinds.get(*kind)?.live).sum();
            // Samples are read a moment after the keys.
            assert!(of_files.abs_diff(of_kinds) <= MIB, "{name}: {}: files {of_files}, kinds {of_kinds}", row.path);
        }
    });
}

#[test]
fn the_identity_holds_and_unknown_is_not_zero() {
    of_all(|name, _, report| {
        for row in &report.cgroups {
            for (kind, account) in row.kinds.iter().filter(|(_, account)| account.live.is_some()) {
                let Some(stat) = account.stat else {
                    assert_eq!(account.unattributed, None, "{name}: {} {kind}: what is left of an unknown figure is unknown", row.path);
                    continue;
                };
                let signed = |bytes: Option<u64>| i64::try_from(bytes.unwrap_or(0)).unwrap();
                let explained = signed(account.baseline) + signed(account.live) - signed(account.unmapped) + signed(account.dead_below);
                let left = account.unattributed.unwrap();
                assert_eq!(signed(Some(stat)), explained + left, "{name}: {} {kind}", row.path);
            }
        }
    });
}

#[test]
fn the_same_snapshot_gives_the_same_report() {
    for file in fixtures() {
        let report = || serde_json::to_string(&rows::report(&stored::read(&file).unwrap())).unwrap();
        assert_eq!(report(), report(), "{}: no clock and no order of a table may show", file.display());
        let found = summary::render(&rows::report(&stored::read(&file).unwrap()), summary::Options::default());
        let golden = file.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() && !golden.exists() {
            std::fs::write(&golden, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap();
        let differing = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        assert!(found == expected, "{}: the report is another one: {differing:?}", file.display());
    }
}
