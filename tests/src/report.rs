//! Questions to memtrail's JSON report and to folded stacks. Pure. Reads the schema by its field names, so that a change of the schema
//! fails here and does not silently compile.

use crate::memtrail::Outcome;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The ledger's row of a kind, as far as the tests use it. Every field must be there; unknown is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named and described by the report's schema")]
pub struct KindRow {
    #[serde(deserialize_with = "present")]
    pub stat: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub baseline: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub charged: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub charged_stderr: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub live: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub live_stderr: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub unmapped: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub missed: Option<i64>,
    #[serde(deserialize_with = "present")]
    pub unattributed: Option<i64>,
}

/// Null is unknown; absent is an error, which serde's own treatment of `Option` would hide.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// One stack of a cgroup.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "named and described by the report's schema")]
pub struct StackRow {
    pub kind: String,
    pub pid: Option<u32>,
    pub comm: String,
    pub status: String,
    pub frames: Vec<String>,
    pub live: u64,
    pub charged: u64,
}

/// One file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named and described by the report's schema")]
pub struct FileRow {
    pub path: String,
    #[serde(deserialize_with = "present")]
    pub inode: Option<String>,
    pub kind: String,
    #[serde(deserialize_with = "present")]
    pub mount: Option<String>,
    pub live: u64,
    pub live_stderr: u64,
    pub baseline: u64,
    pub baseline_stderr: u64,
    #[serde(deserialize_with = "present")]
    pub state: Option<String>,
    #[serde(deserialize_with = "present")]
    pub volume: Option<String>,
    pub writers: Vec<FileToucher>,
    pub readers: Vec<FileToucher>,
}

/// A process that made a file's memory resident.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named and described by the report's schema")]
pub struct FileToucher {
    #[serde(deserialize_with = "present")]
    pub pid: Option<u32>,
    pub comm: String,
    pub bytes: u64,
    #[serde(deserialize_with = "present")]
    pub how: Option<String>,
    pub frames: Vec<String>,
}

/// The files of a cgroup, largest first.
pub fn files(report: &Value, path: &str) -> Result<Vec<FileRow>> {
    Vec::deserialize(&existing(report, path)?["files"]).with_context(|| format!("files of {path}"))
}

/// The file with that path; `None` when the cgroup has none of it.
pub fn file(report: &Value, cgroup: &str, path: &str) -> Result<Option<FileRow>> {
    Ok(files(report, cgroup)?.into_iter().find(|file| file.path == path))
}

/// The cgroup's entry; `None` when the report does not have it.
pub fn cgroup<'a>(report: &'a Value, path: &str) -> Result<Option<&'a Value>> {
    let all = report["cgroups"].as_array().context("report has no cgroups")?;
    Ok(all.iter().find(|cgroup| cgroup["path"] == path))
}

fn existing<'a>(report: &'a Value, path: &str) -> Result<&'a Value> {
    cgroup(report, path)?.with_context(|| format!("the report has no cgroup {path}"))
}

/// The ledger's row of a kind in a cgroup; `None` when the cgroup has no such kind.
pub fn kind(report: &Value, path: &str, kind: &str) -> Result<Option<KindRow>> {
    match existing(report, path)?["kinds"].get(kind) {
        None => Ok(None),
        Some(row) => KindRow::deserialize(row).with_context(|| format!("{kind} of {path}")).map(Some),
    }
}

/// The stacks of a cgroup.
pub fn stacks(report: &Value, path: &str) -> Result<Vec<StackRow>> {
    Vec::deserialize(&existing(report, path)?["stacks"]).with_context(|| format!("stacks of {path}"))
}

/// Sum of a figure over a kind's stacks that contain one of the functions; over all of them without functions.
pub fn stack_sum(report: &Value, path: &str, kind: &str, functions: Option<&[&str]>, figure: fn(&StackRow) -> u64) -> Result<u64> {
    let under = |stack: &StackRow| match functions {
        None => true,
        Some(functions) => stack.frames.iter().any(|frame| functions.contains(&frame.as_str())),
    };
    Ok(stacks(report, path)?.iter().filter(|stack| stack.kind == kind && under(stack)).map(figure).sum())
}

/// Share of a cgroup's live bytes, of all kinds, under stacks that contain the function; `None` when nothing is live.
pub fn stack_share(report: &Value, path: &str, function: &str) -> Result<Option<f64>> {
    let stacks = stacks(report, path)?;
    let all: u64 = stacks.iter().map(|stack| stack.live).sum();
    let under: u64 = stacks.iter().filter(|stack| stack.frames.iter().any(|frame| frame == function)).map(|stack| stack.live).sum();
    Ok((all > 0).then(|| under as f64 / all as f64))
}

/// Causes of loss that any process of the host may be counted for, whatever cgroups are recorded, and why a test takes none of them for its own.
/// What they would mean for a test shows in its own cgroups: [`losses`] looks there for a lost stack or name, and a test compares its bytes with
/// `memory.stat`. All other causes count for the test: only what is recorded enters the tables, and the rings of cgroups and of OOM kills
/// are filled by hundreds of them, which only a test makes.
pub const HOSTS: [(&str, &str); 5] = [
    ("stack_walk_failed", "threads of io_uring and tasks that are being made or are ending have no user stack"),
    ("mapping_event_lost", "the calls of all threads of the host meet in the same entries"),
    ("owner_unreadable", "it is counted before the owner, and so the filter, is known"),
    ("scratch_busy", "a program may interrupt another one that works for anybody on that CPU"),
    ("table_busy", "the lock of a table may be held for anybody"),
];
/// Causes of loss that cost no bytes, so that a recording is complete with them.
const NO_BYTES: [&str; 5] = ["recursion_misses", "file_table_full", "mapping_table_full", "mapping_event_lost", "container_names_refused"];
/// How a recording ends that is not complete.
const INCOMPLETE: i32 = 3;
/// Begins the paths of cgroups that memtrail makes for its commands; others' are in no report of a test.
const COMMANDS: &str = "/memtrail/";
/// Begins the names of threads of the kernel that work on a cgroup's memory; they have no user stack.
const KERNEL_THREADS: [&str; 6] = ["kworker/", "khugepaged", "kswapd", "kcompactd", "ksmd", "jbd2/"];

/// Losses of the whole host above zero, except recursion misses, which only have to be printed, and as many stale samples and lost mapping events as
/// there were of these: an uncharge that the kernel passed over leaves the one, a mapping call the other. Names that are
/// missing are left out too: they may be those of any process of the host, and cost no bytes.
pub fn all_losses(report: &Value) -> Result<BTreeMap<String, u64>> {
    let mut losses: BTreeMap<String, Option<u64>> = BTreeMap::deserialize(&report["losses"]).context("losses of the report")?;
    let passed_over = losses.get("recursion_misses").copied().flatten().unwrap_or(0);
    for follows in ["stale_sample", "mapping_event_lost"] {
        if let Some(Some(count)) = losses.get_mut(follows) {
            *count = count.saturating_sub(passed_over);
        }
    }
    Ok(losses
        .into_iter()
        .filter_map(|(cause, count)| Some((cause, count?)))
        // Kernels before 5.14 can take no entry out in one call; the figures say what was lost by that, if anything was.
        .filter(|(cause, _)| cause != "entries_removed_in_two_calls")
        // Names of a file that was gone too early are missing on some machines, and no bytes with them.
        .filter(|(cause, n)| {
            *n > 0
                && !cause.contains("recursion")
                && !["symbol", "unwind_", "function", "managed_"].iter().any(|of_names| cause.starts_with(of_names))
                && !cause.starts_with("perf_maps_")
        })
        .collect())
}

/// The losses that count for a test: [`all_losses`], of [`HOSTS`] only what its own cgroups show. A test must not fail for what others do on the
/// machine meanwhile.
pub fn losses(report: &Value) -> Result<BTreeMap<String, u64>> {
    let mut losses = all_losses(report)?;
    for (cause, _) in HOSTS {
        let Some(count) = losses.remove(cause) else { continue };
        let own = match cause {
            "stack_walk_failed" => own_rows(report, is_without_stack)?,
            _ => 0,
        };
        if own > 0 {
            losses.insert(cause.to_owned(), count.min(own));
        }
    }
    Ok(losses)
}

/// A row of a process that has a user stack, without one.
fn is_without_stack(stack: &StackRow) -> bool {
    stack.status == "none" && stack.frames.is_empty() && !KERNEL_THREADS.iter().any(|name| stack.comm.starts_with(name))
}

/// How many rows of the tests' own cgroups are such; those of the removed ones among them have no cgroup any more.
fn own_rows(report: &Value, such: impl Fn(&StackRow) -> bool) -> Result<u64> {
    let mut rows = 0;
    for cgroup in report["cgroups"].as_array().context("report has no cgroups")? {
        let path = cgroup["path"].as_str().context("a cgroup without a path")?;
        if [crate::cgroup::PREFIX, COMMANDS].iter().any(|prefix| path.starts_with(prefix)) {
            rows += stacks(report, path)?.iter().filter(|stack| such(stack)).count() as u64;
        }
    }
    Ok(rows)
}

/// Whether a recording ended as a complete one does; or as an incomplete one for nothing but losses that do not count for a test.
pub fn is_whole(outcome: &Outcome) -> Result<bool> {
    if outcome.status.code() != Some(INCOMPLETE) {
        return Ok(outcome.status.success());
    }
    let own = losses(&outcome.report)?;
    let hosts = all_losses(&outcome.report)?.into_keys().any(|cause| !own.contains_key(&cause));
    Ok(hosts && own.keys().all(|cause| NO_BYTES.contains(&cause.as_str())))
}

/// The tier of the plan: that of the probe of anonymous memory, since some probes are tracepoints on every tier.
pub fn tier(report: &Value) -> Result<String> {
    let plan = report["plan"].as_array().context("report has no plan")?;
    let probe = plan.iter().find(|row| row["probe"] == "anon-commit").with_context(|| format!("no anon-commit in the plan: {plan:?}"))?;
    Ok(probe["provider"].as_str().context("anon-commit has no provider")?.to_owned())
}

/// Bytes of folded lines: all of them, and those that are neither `[before start]` nor `[unattributed]`.
pub fn folded_sums(text: &str) -> Result<(u64, u64)> {
    let mut sums = (0, 0);
    for line in text.lines() {
        let (stack, bytes) = line.rsplit_once(' ').with_context(|| format!("folded line {line:?}"))?;
        let bytes: u64 = bytes.parse().with_context(|| format!("folded line {line:?}"))?;
        sums.0 += bytes;
        if !stack.split(';').any(|frame| frame == "[before start]" || frame == "[unattributed]") {
            sums.1 += bytes;
        }
    }
    Ok(sums)
}

/// Bytes of folded lines that contain the frame.
pub fn folded_sum(text: &str, frame: &str) -> Result<u64> {
    let lines: Vec<&str> =
        text.lines().filter(|line| line.rsplit_once(' ').is_some_and(|(stack, _)| stack.split(';').any(|f| f == frame))).collect();
    Ok(folded_sums(&lines.join("\n"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Value {
        let stack = |kind: &str, frames: &[&str], live: u64| {
            json!({"kind": kind, "region": "other", "pid": 7, "ns_pid": null, "comm": "w", "status": "complete", "frames": frames, "live": live,
                   "live_stderr": 0, "charged": 2 * live, "samples": 1, "oldest_s": null})
        };
        json!({
            "losses": {"ring_full": 0, "recursion_misses": 4, "key_table_full": 2, "symbols_late": 3, "perf_maps_cut": 1, "nested": null},
            "plan": [{"probe": "file-commit", "provider": "tracepoint", "note": ""}, {"probe": "anon-commit", "provider": "kprobe", "note": "no BTF"}],
            "cgroups": [{"path": "/a", "kinds": {"anon": {"stat": 10, "source": "stat", "baseline": 1, "charged": 20, "charged_stderr": 0, "live": 9,
                         "live_stderr": 0, "unmapped": null, "missed": null, "unattributed": -2}},
                         "stacks": [stack("anon", &["main", "wl_touch_anon"], 75), stack("anon", &["main", "other"], 20), stack("file", &["wl_touch_anon"], 5)]}]
        })
    }

    #[test]
    fn kinds_and_stacks_are_found() {
        let report = report();
        let row = kind(&report, "/a", "anon").unwrap().unwrap();
        assert_eq!((row.stat, row.unmapped, row.unattributed), (Some(10), None, Some(-2)));
        assert_eq!(kind(&report, "/a", "shmem").unwrap(), None);
        assert!(kind(&report, "/b", "anon").is_err());
        assert_eq!(stack_share(&report, "/a", "wl_touch_anon").unwrap(), Some(0.8));
        assert_eq!(stack_sum(&report, "/a", "anon", Some(&["wl_touch_anon"]), |stack| stack.charged).unwrap(), 150);
        assert_eq!(stack_sum(&report, "/a", "anon", None, |stack| stack.live).unwrap(), 95);
    }

    #[test]
    fn an_absent_field_is_an_error() {
        let mut report = report();
        report["cgroups"][0]["kinds"]["anon"].as_object_mut().unwrap().remove("missed");
        assert!(kind(&report, "/a", "anon").is_err());
    }

    #[test]
    fn losses_leave_out_recursion_and_unknown() {
        assert_eq!(losses(&report()).unwrap(), BTreeMap::from([("key_table_full".to_owned(), 2)]));
    }

    #[test]
    fn losses_of_the_host_count_where_the_tests_cgroups_show_them() {
        let with = |path: &str, status: &str, comm: &str| {
            let mut report = report();
            report["losses"] = json!({"stack_walk_failed": 3, "scratch_busy": 1, "ring_full": 0});
            report["cgroups"][0]["path"] = json!(path);
            let row = &mut report["cgroups"][0]["stacks"][0];
            (row["status"], row["comm"], row["frames"]) = (json!(status), json!(comm), json!([]));
            losses(&report).unwrap().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(with("/memtrail-test/7-x", "complete", "w"), Vec::<String>::new());
        assert_eq!(with("/memtrail-test/7-x", "none", "w"), ["stack_walk_failed"]);
        assert_eq!(with("/memtrail-test/7-x", "none", "kworker/0:1"), Vec::<String>::new());
        assert_eq!(with("/memtrail/7", "none", "w"), ["stack_walk_failed"]);
        assert_eq!(with("/others", "none", "w"), Vec::<String>::new());
    }

    #[test]
    fn an_incomplete_recording_is_whole_for_a_test_that_lost_nothing() {
        use std::os::unix::process::ExitStatusExt as _;
        let whole = |code: i32, losses: Value| {
            let mut report = report();
            report["losses"] = losses;
            is_whole(&Outcome { report, status: std::process::ExitStatus::from_raw(code << 8), stderr: String::new() }).unwrap()
        };
        assert!(whole(0, json!({})));
        assert!(whole(3, json!({"stack_walk_failed": 3})));
        assert!(!whole(3, json!({"stack_walk_failed": 3, "key_table_full": 1})));
        assert!(!whole(3, json!({})), "incomplete for no reason");
        assert!(!whole(1, json!({"stack_walk_failed": 3})));
    }

    #[test]
    fn stale_samples_count_beyond_what_was_passed_over() {
        let of = |stale: u64| losses(&json!({"losses": {"stale_sample": stale, "recursion_misses": 4}})).unwrap();
        assert_eq!(of(4), BTreeMap::new());
        assert_eq!(of(5), BTreeMap::from([("stale_sample".to_owned(), 1)]));
    }

    #[test]
    fn a_probe_that_is_always_a_tracepoint_does_not_lower_the_tier() {
        assert_eq!(tier(&report()).unwrap(), "kprobe");
        assert!(tier(&json!({"plan": []})).is_err());
    }

    #[test]
    fn folded_lines_add_up() {
        let text =
            "/a;w;main;wl_touch_anon;[anon other] 75\n/a;w;main;[anon other] 20\n/a;[before start];[anon] 5\n/a;[unattributed];[anon] 1\n";
        assert_eq!(folded_sums(text).unwrap(), (101, 95));
        assert_eq!(folded_sum(text, "wl_touch_anon").unwrap(), 75);
        assert!(folded_sums("no number").is_err());
    }
}
