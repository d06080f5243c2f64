//! The accuracy table: every row in both modes, and again with each provider that the kernel has forced. All at once: one workload a
//! row, one memtrail a column.

use harness::accuracy::{Column, ROWS, Row, run_rows};
use harness::kernel;
use harness::memtrail::{Memtrail, Mode, refusal};
use harness::report;

#[test]
#[ignore = "root"]
fn native_table() {
    let rows: Vec<&Row> = ROWS.iter().collect();
    let mut columns = vec![Column { mode: Mode::Exact, provider: None }, Column { mode: Mode::Default, provider: None }];
    if kernel::has_kprobes() {
        // The best is neither of these then.
        columns.extend(["kprobe", "tracepoint"].map(|provider| Column { mode: Mode::Exact, provider: Some(provider) }));
    }
    run_rows(&rows, &columns).unwrap();
}

/// A forced provider is used, or refused with the reason.
#[test]
#[ignore = "root"]
fn native_a_forced_provider_is_used_or_refused() {
    for provider in ["kprobe", "tracepoint"] {
        if provider == "kprobe" && !kernel::has_kprobes() {
            let refused = refusal(&["--provider", "kprobe", "--duration", "1s"]).unwrap();
            assert!(refused.contains("CONFIG_KPROBES"), "{refused}");
        } else {
            let outcome = Memtrail::start(&["--provider", provider]).unwrap().stop().unwrap();
            assert_eq!(report::tier(&outcome.report).unwrap(), provider);
        }
    }
}
