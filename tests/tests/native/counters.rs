//! Counters that leave the kernel half's tables while programs add to them: nothing that was added may be missing. As in
//! [`crate::freeze`], the kernel half is started by the library, in this process.

use harness::cgroup::TestCgroup;
use harness::workload::Workload;
use memtrail::cgroup::Hierarchy;
use memtrail::kernel_half::{KernelHalf, probes::Tier, start::StartOptions, tables};
use memtrail::text::glob::Glob;
use memtrail::trace::{filter::Filter, session::Session};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use tracer_common::histogram::{HistogramKey, Metric};

/// Moves a task to the first CPU. There a program cannot run amid another task's system call, so that the removal is whole before the next addition,
/// where programs cannot be preempted.
fn to_first_cpu(task: i32) {
    // SAFETY: a set of CPUs of its own size, which is plain data.
    let failed = unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut cpus);
        libc::sched_setaffinity(task, size_of::<libc::cpu_set_t>(), &raw const cpus)
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
}

/// Counters of one owner's charges.
fn counters(half: &KernelHalf, owner: u64) -> Vec<HistogramKey> {
    let all = tables::histograms(half).unwrap().into_keys();
    all.filter(|key| key.owner == owner && key.metric == Metric::ChargeBytes as u32).collect()
}

#[test]
#[ignore = "root"]
fn native_counters_that_leave_while_they_are_added_to_lose_nothing() {
    let cgroup = TestCgroup::new("counters").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", "256M"]).unwrap();
    workload.run_to("ready").unwrap();
    let options = StartOptions {
        exact: true,
        provider: harness::memtrail::forced_provider().map(|name| match name.as_str() {
            "fentry" => Tier::Fentry,
            "kprobe" => Tier::Kprobe,
            _ => Tier::Tracepoint,
        }),
        map_memory: 2 << 30,
        ..StartOptions::default()
    };
    let filter = Filter::new(vec![Glob::parse(cgroup.path()).unwrap()]);
    let mut session = Session::start(filter, memtrail::containers::KnownNames::new("/".as_ref()), options).unwrap();
    let owner = std::fs::metadata(Hierarchy::find().unwrap().mount.join(cgroup.path().trim_start_matches('/'))).unwrap().ino();
    to_first_cpu(workload.pid().try_into().unwrap());
    let (touched, mut taken, mut takes) = (AtomicBool::new(false), 0, 0_u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            workload.run_to("touched").unwrap();
            touched.store(true, Ordering::Release);
        });
        to_first_cpu(0);
        let half = &mut session.running_mut().bpf;
        let mut keys = Vec::new();
        loop {
            let is_over = touched.load(Ordering::Acquire);
            if keys.is_empty() || is_over {
                keys = counters(half, owner);
            }
            let counts: Vec<u64> = tables::take_histograms(half, &keys).unwrap().into_iter().filter_map(|(_, count)| count).collect();
            takes += counts.len() as u64;
            taken += counts.iter().sum::<u64>();
            if is_over {
                break;
            }
        }
    });
    let half = &session.running().bpf;
    assert_eq!(counters(half, owner), [], "all have left");
    let keys = tables::keys(half).unwrap();
    let charges: u64 = keys.values().filter(|record| record.key.owner == owner && record.key.flags == 0).map(|record| record.samples).sum();
    println!("{charges} charges, {taken} taken in {takes} removals");
    assert!(charges > 60_000 && takes > 30, "{charges} charges, {takes} removals: too few to tell");
    assert_eq!(taken, charges, "additions are lost");
    assert!(half.losses().all(|(_, count)| count == 0), "{:?}", half.losses().collect::<Vec<_>>());
}
