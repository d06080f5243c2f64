//! A process in a pid namespace of its own is told by both of its ids, also when it is gone.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::place::Tmpfs;
use harness::workload::{Workload, enter};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

const BYTES: &str = "64M";

/// Runs a workload to its end as the first process of a new pid namespace. It leaves a file in memory.
fn in_new_namespace(cgroup: &TestCgroup, tmpfs: &Tmpfs) {
    let mut command = harness::workload::command().unwrap();
    command.args(["tmpfs", "--keep", "--no-wait", "--bytes", BYTES, "--dir"]).arg(tmpfs.path());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    enter(&mut command, cgroup).unwrap();
    // SAFETY: between fork and exec the closure makes system calls only, which are async-signal-safe. The namespace is that of the next
    // child, so it forks once more; the parent waits, and ends as the child did without running any destructor.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWPID) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            match libc::fork() {
                -1 => Err(std::io::Error::last_os_error()),
                0 => Ok(()),
                child => {
                    let mut status = 0;
                    libc::waitpid(child, &raw mut status, 0);
                    libc::_exit(i32::from(status != 0));
                }
            }
        })
    };
    assert!(command.status().unwrap().success());
}

#[test]
#[ignore = "root"]
fn native_namespace_ids_are_both_told() {
    let tmpfs = Tmpfs::new("namespace").unwrap();
    let cgroup = TestCgroup::new("namespace").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let mut outside = Workload::start(&cgroup, &["anon", "--bytes", BYTES]).unwrap();
    outside.run_to("touched").unwrap();
    in_new_namespace(&cgroup, &tmpfs);
    let outcome = memtrail.stop().unwrap();
    let rows = harness::report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap()["stacks"].as_array().unwrap();
    let ids = |kind: &str| -> Vec<(u64, Option<u64>)> {
        let live = rows.iter().filter(|row| row["kind"] == kind && row["live"].as_u64() > Some(0));
        live.map(|row: &Value| (row["pid"].as_u64().unwrap(), row["ns_pid"].as_u64())).collect()
    };
    println!("anon {:?}, shmem {:?}", ids("anon"), ids("shmem"));
    let pid = u64::from(outside.pid());
    assert!(ids("anon").contains(&(pid, Some(pid))), "one id in the host's namespace");
    let inside = ids("shmem");
    assert!(!inside.is_empty() && inside.iter().all(|(pid, ns_pid)| *pid > 1 && *ns_pid == Some(1)), "the first process of its namespace");
}
