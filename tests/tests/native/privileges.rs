//! What memtrail gives up once it records, and that its command has all that the caller has.

use harness::memtrail::Memtrail;
use std::collections::BTreeMap;

const SYS_ADMIN: u32 = 21;
/// CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SETUID, CAP_SYS_RAWIO, CAP_KILL.
const GIVEN_UP: [u32; 6] = [SYS_ADMIN, 12, 16, 7, 17, 5];

/// The capability sets of a thread, and whether an exec can win new ones.
fn privileges(path: &str) -> BTreeMap<String, u64> {
    let status = std::fs::read_to_string(path).unwrap();
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    let of_interest = lines.filter(|(name, _)| name.starts_with("Cap") || *name == "NoNewPrivs");
    of_interest.map(|(name, value)| (name.to_owned(), u64::from_str_radix(value, 16).unwrap())).collect()
}

#[test]
#[ignore = "root"]
fn native_no_thread_keeps_more_than_it_needs() {
    let memtrail = Memtrail::start::<&str>(&[]).unwrap();
    let tasks = format!("/proc/{}/task", memtrail.pid());
    let mut threads = 0;
    for task in std::fs::read_dir(&tasks).unwrap() {
        let task = task.unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let has = privileges(task.join("status").to_str().unwrap());
        println!("{} {has:x?}", name.trim());
        // One thread reads frame numbers of processes, and does nothing else.
        let surveys = name.trim() == "memtrail-survey";
        for capability in GIVEN_UP.into_iter().filter(|capability| !(surveys && *capability == SYS_ADMIN)) {
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
                assert_eq!(has[set] >> capability & 1, 0, "{}: {set} has {capability}: {has:x?}", name.trim());
            }
        }
        assert_eq!(has["NoNewPrivs"], 1);
        threads += 1;
    }
    assert!(threads >= 3, "the collector, and the threads that follow processes");
    let outcome = memtrail.stop().unwrap();
    assert!(outcome.stderr.lines().all(|line| !line.contains("given up")), "{}", outcome.stderr);
}

#[test]
#[ignore = "root"]
fn native_the_command_has_the_callers_privileges() {
    let output = harness::memtrail::command().unwrap().args(["record", "--", "/bin/cat", "/proc/self/status"]).output().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("status");
    std::fs::write(&path, &output.stdout).unwrap();
    assert_eq!(privileges(path.to_str().unwrap()), privileges("/proc/self/status"), "{}", String::from_utf8_lossy(&output.stderr));
}
