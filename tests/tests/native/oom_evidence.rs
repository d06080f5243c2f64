//! What an autopsy knows beyond stacks: the file that a dead container left, the file that waits for the disk, arenas. Each kill also is one
//! where the other verdicts must stay silent.

use crate::oom::{Readings, hog_first, holder, of_victim};
use harness::cgroup::TestCgroup;
use harness::hierarchy::Version;
use harness::memtrail::{Mode, record_args, record_args_of};
use harness::place::{self, Folder, Tmpfs, Writeback};
use harness::workload::Workload;
use memtrail::report::autopsy::{Autopsy, Finding};

const MIB: u64 = 1 << 20;
/// Enough to say that dirty page cache lasts; and a look at processes follows the first reading, and what it found is taken in at a later one.
const READINGS: usize = 6;

fn ids(autopsy: &Autopsy) -> Vec<&str> {
    autopsy.verdicts.iter().map(|verdict| verdict.id.as_str()).collect()
}

#[track_caller]
fn only<'a>(autopsy: &'a Autopsy, id: &str) -> &'a Finding {
    println!("{}", memtrail::output::autopsy::render(autopsy));
    assert_eq!(ids(autopsy), [id], "this verdict and no other");
    &autopsy.verdicts[0]
}

#[track_caller]
fn assert_says(text: &str, parts: &[String]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
}

/// S5: the container that ran before left a file in tmpfs, and the pod's limit is met by one that lives.
#[test]
#[ignore = "root"]
fn native_oom_names_the_file_that_a_dead_container_left() {
    let tmpfs = Tmpfs::new("oom-dead").unwrap();
    let above = TestCgroup::new("oom-dead").unwrap();
    let (_kubepods, burstable) = (above.child("kubepods").unwrap(), above.child("kubepods/burstable").unwrap());
    let pod = burstable.child("pod6b21aa00-7c0f-4c5e-9a39-2f6a4d0e8b11").unwrap();
    pod.limit(160 * MIB).unwrap();
    let mut old = pod.child(&"a1".repeat(32)).unwrap();
    let new = pod.child(&"b2".repeat(32)).unwrap();
    let dir = tmpfs.path().to_str().unwrap().to_owned();
    let (memtrail, readings) = Readings::start(record_args(pod.path(), Mode::Default));
    let mut writer = Workload::start(&old, &["tmpfs", "--keep", "--dir", &dir, "--bytes", "128M"]).unwrap();
    let writer_pid = writer.run_to("ready").unwrap()[0].pid;
    writer.finish().unwrap();
    let dead = old.path().to_owned();
    old.remove().unwrap();
    let beside = holder(&new, 16 * MIB);
    readings.wait(2);
    let pid = hog_first(&new);
    let outcome = memtrail.stop().unwrap();
    drop(beside);
    let autopsy = of_victim(&outcome, pid);

    let found = only(&autopsy, "dead-container-shmem");
    assert_eq!(
        (found.cgroup.as_str(), found.severity.as_str()),
        (dead.as_str(), "critical"),
        "64 of 160 MiB, give or take the sampling error"
    );
    assert_says(
        &found.text,
        &["dead container a1a1a1a1a1a1 (exited ".into(), format!("{dir}/memtrail-workload-"), format!("[{writer_pid}]")],
    );
    assert!(autopsy.files[0].path.starts_with(&dir) && autopsy.files[0].owner.as_ref().unwrap().state == "dead", "{:?}", autopsy.files[0]);
    assert_eq!(autopsy.dead.len(), 1, "{:?}", autopsy.dead);
    let since = autopsy.dead[0].for_s.unwrap();
    assert!(since > 0.5, "{since}");
    let sentence = autopsy.verdict.as_deref().unwrap();
    let expected =
        ["MiB is shmem in ".to_owned(), " more files left by a container that died ".to_owned(), format!("memtrail-worklo[{pid}] used ")];
    assert_says(sentence, &expected);
}

/// S4: most of the limit is page cache that the disk does not have. It is locked in memory here, so that reclaim cannot write it, as it
/// cannot on a disk that is slower than its writer.
#[test]
#[ignore = "root"]
fn native_oom_names_the_file_that_waits_for_the_disk() {
    // What an emulated machine needs for this is as long as page cache may wait.
    let _writeback = place::own_machine().then(|| Writeback::not_by_age().unwrap());
    let folder = Folder::new("oom-dirty").unwrap();
    let image = folder.path().join("disk.img");
    let image = image.to_str().unwrap();
    let cgroup = TestCgroup::new("oom-dirty").unwrap();
    cgroup.limit(128 * MIB).unwrap();
    let (memtrail, readings) = Readings::start(record_args(cgroup.path(), Mode::Default));
    let mut writer = Workload::start(&cgroup, &["append-log", "--pin", "--file", image, "--bytes", "80M"]).unwrap();
    writer.run_to("appended").unwrap();
    readings.wait(READINGS);
    let waits = cgroup.unwritten().unwrap() > 64 * MIB;
    let pid = hog_first(&cgroup);
    let outcome = memtrail.stop().unwrap();
    let autopsy = of_victim(&outcome, pid);
    println!("{}", memtrail::output::autopsy::render(&autopsy));
    if cgroup.version() == Version::V2 && !waits {
        // Where the disk's driver lets it, the kernel writes for each cgroup before its limit is full.
        assert!(!ids(&autopsy).contains(&"dirty-writeback"), "nothing waits: {:?}", ids(&autopsy));
        return;
    }
    assert!(waits, "on v1 the kernel knows only the limits of the host");

    // A file that is written from front to back is a log as well.
    let found = autopsy.verdicts.iter().find(|verdict| verdict.id == "dirty-writeback").expect("the verdict fires");
    assert!(ids(&autopsy).iter().all(|id| ["dirty-writeback", "log-page-cache"].contains(id)), "{:?}", ids(&autopsy));
    let writer = format!("memtrail-worklo[{}]", writer.pid());
    assert_says(&found.text, &[format!("of it in {image}, dirtied by {writer}"), "through main > wl_append_log > ".into()]);
    let file = autopsy.files.iter().find(|file| file.path == image).expect("the file is there");
    let (dirty, error) = (file.dirty.unwrap(), file.live_stderr);
    assert!(dirty.abs_diff(80 * MIB) <= 3 * error + MIB, "{dirty} ± {error} of 80 MiB");
    assert!(autopsy.sources["files"].starts_with("frozen picture; dirty and writeback asked "), "{:?}", autopsy.sources);
    let sentence = autopsy.verdict.as_deref().unwrap();
    assert_says(sentence, &[format!("of it in {image}, dirtied by {writer}"), "of it not on disk yet".into()]);
}

/// Half of what is in the arenas is free blocks; in those of another process all is in use.
#[test]
#[ignore = "root"]
fn native_oom_names_arenas_as_they_were_before() {
    let pods = ["oom-arenas", "oom-in-use"].map(|name| {
        let pod = TestCgroup::new(name).unwrap();
        pod.limit(256 * MIB).unwrap();
        pod
    });
    let paths: Vec<&str> = pods.iter().map(TestCgroup::path).collect();
    let (memtrail, readings) = Readings::start(record_args_of(&paths, Mode::Default, None));
    // Nothing is looked into before the blocks are free.
    memtrail.pause().unwrap();
    let mut workloads: Vec<Workload> = Vec::new();
    for (pod, step) in pods.iter().zip(["half-freed", "filled"]) {
        let mut workload = Workload::start(pod, &["threads-malloc", "--threads", "12", "--bytes", "192M"]).unwrap();
        workload.run_to(step).unwrap();
        workloads.push(workload);
    }
    memtrail.resume().unwrap();
    readings.wait(READINGS);
    let victims: Vec<u32> = pods.iter().map(hog_first).collect();
    let outcome = memtrail.stop().unwrap();
    let autopsies: Vec<Autopsy> = victims.iter().map(|pid| of_victim(&outcome, *pid)).collect();

    let found = only(&autopsies[0], "glibc-arenas");
    assert_says(&found.text, &[format!("memtrail-worklo[{}]", workloads[0].pid()), "MALLOC_ARENA_MAX".into(), "free blocks".into()]);
    let sentence = autopsies[0].verdict.as_deref().unwrap();
    assert_says(sentence, &[format!("glibc heaps of memtrail-worklo[{}] (as of ", workloads[0].pid())]);
    assert_eq!(ids(&autopsies[1]), Vec::<&str>::new(), "memory in use");
    for autopsy in &autopsies {
        let of = &autopsy.regions[0];
        assert!(of.before_s > 0.0, "{}", of.before_s);
        let arenas = of.regions.iter().find(|row| row.class == "glibc-arena").expect("arenas are known");
        assert!(arenas.live.abs_diff(192 * MIB) <= 3 * arenas.live_stderr + 16 * MIB, "{} ± {}", arenas.live, arenas.live_stderr);
    }
}
