//! `memtrail diff`: a known difference is named, within its error, and nothing else is.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::Workload;
use serde_json::Value;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const SMALL: u64 = 16 * MIB;
const LEAK: u64 = 64 * MIB;

/// What `memtrail diff` says as JSON, and as text.
pub fn diff(before: &str, after: &str, folder: &Path) -> (Value, String) {
    let json = folder.join("diff.json");
    let run = |more: &[&str]| {
        let output = harness::memtrail::command().unwrap().args(["diff", before, after]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["-o", json.to_str().unwrap()]);
    (serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap(), run(&[]))
}

/// Sum of the changes of stacks that contain the function, their error, and the sum of the sizes of all other changes beyond the error.
pub fn changes(diff: &Value, function: &str) -> (i64, f64, u64) {
    let (mut of_function, mut variance, mut others) = (0, 0.0, 0);
    for stack in diff["stacks"].as_array().unwrap() {
        let change = stack["change"].as_i64().unwrap();
        if stack["frames"].as_array().unwrap().iter().any(|frame| frame == function) {
            of_function += change;
            variance += stack["stderr"].as_f64().unwrap().powi(2);
        } else if stack["beyond_error"].as_bool().unwrap() {
            others += change.unsigned_abs();
        }
    }
    (of_function, variance.sqrt(), others)
}

/// Records a cgroup while a program touches so many bytes in it.
fn record(cgroup: &TestCgroup, bytes: u64, mode: Mode, folder: &Path, name: &str) -> PathBuf {
    let recording = folder.join(name);
    let mut workload = Workload::start(cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args(cgroup.path(), mode);
    args.extend(["-o".to_owned(), recording.to_str().unwrap().to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    workload.run_to("touched").unwrap();
    memtrail.stop().unwrap();
    recording
}

#[test]
#[ignore = "root"]
fn native_diff_names_the_leak_and_nothing_else() {
    for mode in [Mode::Exact, Mode::Default] {
        let cgroup = TestCgroup::new("diff").unwrap();
        // Tables for the limit, not for all of memory.
        cgroup.limit(256 << 20).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let small = record(&cgroup, SMALL, mode, folder.path(), "small.mtrail");
        let large = record(&cgroup, SMALL + LEAK, mode, folder.path(), "large.mtrail");
        let (small, large) = (small.to_str().unwrap(), large.to_str().unwrap());

        let (json, text) = diff(small, large, folder.path());
        let (change, stderr, others) = changes(&json, "wl_touch_anon");
        println!("{mode:?}: {change} ± {stderr}, others {others}\n{text}");
        let off = (change - LEAK as i64).unsigned_abs();
        match mode {
            // Not even the program's own stack and heap differ by more.
            Mode::Exact => assert!(off < 64 << 10 && stderr == 0.0 && others < 256 << 10, "{change}, {others}"),
            Mode::Default => {
                assert!((off as f64) < 4.0 * stderr && stderr < 20.0 * MIB as f64 && others < 4 * MIB, "{change}, {stderr}, {others}")
            }
        }
        assert!(text.contains("wl_touch_anon") && text.contains(cgroup.path()), "{text}");

        let (json, text) = diff(large, large, folder.path());
        assert!(json["stacks"].as_array().unwrap().is_empty() && json["kinds"].as_array().unwrap().is_empty(), "{json}");
        assert!(text.contains("\nno stack changed\n"), "{text}");
    }
}
