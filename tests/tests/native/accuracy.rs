//! The accuracy table: every row in both modes, and again with each provider that the kernel has forced. One recording a test, all
//! rows side by side in cgroups of their own.

use harness::accuracy::{ROWS, Row, row, run_rows};
use harness::kernel;
use harness::memtrail::Mode;

/// Rows that tell the providers apart: every kind, commit, uncharge, baseline, whole and split huge pages.
const PROVIDER_ROWS: [&str; 8] = ["anon", "fork_cow", "thp_holes", "file_truncate", "tmpfs", "shared_anon", "mremap_end", "baseline"];

fn all() -> Vec<&'static Row> {
    ROWS.iter().collect()
}

fn provider_rows() -> Vec<&'static Row> {
    PROVIDER_ROWS.iter().map(|name| row(name).unwrap()).collect()
}

#[test]
#[ignore = "root"]
fn native_table_exact() {
    run_rows(&all(), Mode::Exact, None).unwrap();
}

#[test]
#[ignore = "root"]
fn native_table_default() {
    run_rows(&all(), Mode::Default, None).unwrap();
}

#[test]
#[ignore = "root"]
fn native_table_kprobe() {
    if kernel::has_kprobes() {
        run_rows(&provider_rows(), Mode::Exact, Some("kprobe")).unwrap();
    } else {
        let refused = harness::memtrail::refusal(&["--provider", "kprobe", "--duration", "1s"]).unwrap();
        assert!(refused.contains("CONFIG_KPROBES"), "{refused}");
    }
}

#[test]
#[ignore = "root"]
fn native_table_tracepoint() {
    run_rows(&provider_rows(), Mode::Exact, Some("tracepoint")).unwrap();
}
