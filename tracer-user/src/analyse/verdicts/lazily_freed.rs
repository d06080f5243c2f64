//! `lazily-freed`: memory that the program gave back with MADV_FREE, and that stays until somebody needs it.
//!
//! Fires from 8 MiB and a tenth of usage on. Silent for memory that is in use, and for what was given back with MADV_DONTNEED.

use super::Severity;
use crate::report::{Cgroup, Report, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "lazily-freed";

/// Bytes.
const LEAST: u64 = 8 << 20;
/// Of usage, in percent.
const PERCENT: u64 = 10;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    let freed = super::innermost(cgroup, report, LEAST, |cgroup| cgroup.lazily_freed_bytes)?;
    let usage = cgroup.usage_bytes?;
    if freed < usage / 100 * PERCENT {
        return None;
    }
    let whose = super::mostly_of(cgroup, report, |row| row.lazily_freed_bytes);
    Some(super::verdict(
        ID,
        Severity::Info,
        format!(
            "{} of anon were freed with MADV_FREE{whose}, and stay resident until there is pressure: no leak, and the kernel can take them at \
             once. Usage and RSS count them; kubectl top does not, since they are on the list of inactive page cache.",
            units::part_of(freed, usage),
        ),
        [("lazily_freed_bytes", json!(freed)), ("usage_bytes", json!(usage))],
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::ProcessRow;

    const MIB: u64 = 1 << 20;

    fn told(freed: u64, usage: u64) -> Option<String> {
        let row = ProcessRow { pid: 7, comm: "go".into(), lazily_freed_bytes: Some(freed * MIB), ..ProcessRow::default() };
        let of = |path: &str, processes| Cgroup {
            path: path.into(),
            usage_bytes: Some(usage * MIB),
            lazily_freed_bytes: Some(freed * MIB),
            processes,
            ..Cgroup::default()
        };
        let report = Report { cgroups: vec![of("/pod", vec![]), of("/pod/web", vec![row])], ..Report::default() };
        assert_eq!(verdict(&report.cgroups[0], &report), None, "it is told where it is");
        verdict(&report.cgroups[1], &report).map(|verdict| verdict.text)
    }

    #[test]
    fn it_is_told_with_whose_it_is() {
        let text = told(32, 33).unwrap();
        assert!(text.starts_with("32.0 of 33.0 MiB of anon were freed with MADV_FREE, mostly of go[7] 32.0 MiB, and stay"), "{text}");
    }

    #[test]
    fn silent_where_it_is_little() {
        assert_eq!(told(7, 8), None);
        assert_eq!(told(32, 400), None);
        assert_eq!(told(0, 0), None);
    }
}
