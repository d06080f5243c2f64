//! Where the page structs begin is found at every start, whatever else this process and the host are at.

use harness::cgroup::TestCgroup;
use harness::workload::Workload;
use memtrail::kernel_half::{calibrate, start::StartOptions};
use memtrail::text::glob::Glob;
use memtrail::trace::{filter::Filter, session::Session};
use std::sync::atomic::{AtomicBool, Ordering};

/// How often; in the long form more often.
const TIMES: usize = 25;
const TIMES_LONG: usize = 500;

/// Threads of this process that take and give back memory all the time, as the tracer's own do when there is much to read.
const BUSY: usize = 3;

/// Maps, touches and unmaps what a round of a calibration touches.
fn touch() {
    const BYTES: usize = 256 << 10;
    // SAFETY: a fresh private mapping of our own.
    let memory = unsafe {
        libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    for at in (0..BYTES).step_by(4096) {
        // SAFETY: inside the mapping.
        unsafe { memory.cast::<u8>().add(at).write_volatile(1) };
    }
    // SAFETY: the mapping, not used any more.
    unsafe { libc::munmap(memory, BYTES) };
}

#[test]
#[ignore = "root"]
fn native_page_structs_are_found_whatever_else_happens() {
    let times = if std::env::var_os("MEMTRAIL_TEST_LONG").is_some() { TIMES_LONG } else { TIMES };
    let cgroup = TestCgroup::new("calibration").unwrap();
    let options = StartOptions { map_memory: 256 << 20, ..StartOptions::default() };
    let filter = Filter::new(vec![Glob::parse(cgroup.path()).unwrap()]);
    let mut session = Session::start(filter, memtrail::containers::KnownNames::new("/".as_ref()), options).unwrap();
    let running = session.running_mut();
    let bytes = 1 << running.settings.page_struct_shift;
    let first = calibrate::find(&mut running.bpf, bytes).unwrap();

    let forks =
        Workload::start(&cgroup, &["spawn-short", "--no-wait", "--exec", "--processes", "100000", "--parallel", "8", "--bytes", "1G"])
            .unwrap();
    let over = AtomicBool::new(false);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..BUSY {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    touch();
                }
            });
        }
        let found: Vec<_> = (0..times).map(|_| calibrate::find(&mut running.bpf, bytes)).collect();
        over.store(true, Ordering::Relaxed);
        let wrong: Vec<_> = found.iter().filter(|found| !found.as_ref().is_ok_and(|found| found.vmemmap == first.vmemmap)).collect();
        println!("{} of {times} agree on {:x}, in {:?}", times - wrong.len(), first.vmemmap, began.elapsed());
        assert!(wrong.is_empty(), "{wrong:?}");
    });
    drop(forks);
    // The kernel's own word, where it tells.
    let told = calibrate::by_variable(&mut running.bpf).unwrap();
    println!("the kernel's variable: {told:x?}");
    assert!(told.is_none_or(|told| told == first.vmemmap), "{told:x?}, found {:x}", first.vmemmap);
}
