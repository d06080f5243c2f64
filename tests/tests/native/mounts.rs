//! The tracer keeps no file system busy: what programs ran from can be unmounted while it records, and their names are known all the same.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::place::Tmpfs;
use harness::report;
use harness::workload::{Workload, binary};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BYTES: u64 = 16 << 20;
/// Files are let go at a retirement, which comes every five seconds.
const PATIENCE: Duration = Duration::from_secs(9);

/// A tmpfs without a process of the test's own in it.
struct Mount(PathBuf);

impl Mount {
    fn new(name: &str) -> Mount {
        let path = std::env::temp_dir().join(format!("memtrail-mount-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "t"]).arg(&path).status().unwrap().success());
        Mount(path)
    }

    /// A copy of the workload in it.
    fn program(&self) -> PathBuf {
        let program = self.0.join("memtrail-workload");
        std::fs::copy(binary().unwrap(), &program).unwrap();
        program
    }

    /// Whether it can be unmounted now, as an operator would.
    fn unmount(&self) -> bool {
        Command::new("umount").arg(&self.0).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _unmounted_before = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
        if let Err(error) = std::fs::remove_dir(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

#[test]
#[ignore = "root"]
fn native_a_file_system_can_be_unmounted_when_its_programs_have_ended() {
    let (cgroup, files) = (TestCgroup::new("unmounted").unwrap(), Tmpfs::new("left").unwrap());
    let (ended, running) = (Mount::new("ended"), Mount::new("running"));
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let bytes = BYTES.to_string();
    let start = |program: &Path, args: &[&str]| Workload::start_program(&cgroup, program, args, &[]).unwrap();
    let mut lives = start(&running.program(), &["anon", "--bytes", &bytes]);
    lives.run_to("touched").unwrap();
    let folder = files.path().to_str().unwrap();
    let program = ended.program();
    start(&program, &["tmpfs", "--keep", "--bytes", &bytes, "--dir", folder]).finish().unwrap();
    let began = Instant::now();
    while !ended.unmount() {
        assert!(began.elapsed() < PATIENCE, "it is still busy");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("unmounted after {:?}", began.elapsed());
    assert!(!running.unmount(), "a program runs from it");
    let outcome = memtrail.stop().unwrap();
    let left = report::stack_sum(&outcome.report, cgroup.path(), "shmem", Some(&["wl_write_tmpfs"]), |row| row.live).unwrap();
    println!("{left} bytes are left by the function of a program whose file is gone; losses {:?}", outcome.report["losses"]);
    assert!(left.abs_diff(BYTES / 2) <= 1 << 20, "{left}: {:#?}", report::stacks(&outcome.report, cgroup.path()).unwrap());
    let binaries = outcome.report["binaries"].as_array().unwrap();
    let of = |path: &Path| binaries.iter().find(|binary| binary["path"] == path.to_str().unwrap());
    assert!(of(&program).is_some_and(|binary| binary["build_id"].is_string()), "{binaries:#?}");
    let living = report::stack_sum(&outcome.report, cgroup.path(), "anon", Some(&["wl_touch_anon"]), |row| row.live).unwrap();
    assert!(living.abs_diff(BYTES) <= 1 << 20, "{living}");
}
