//! Swap: what goes out is no longer live, what comes back is charged to whoever touches it. To a file, through the swap cache, and to compressed
//! memory, which kernels up to 7.1 read back past it.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::place::Folder;
use harness::workload::{self, Workload};
use harness::{kernel, report};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BYTES: u64 = 64 << 20;

/// Compressed memory as a block device.
const ZRAM: &str = "/dev/zram0";

/// A place to swap to of the test's own, switched off and removed when dropped.
struct Swap {
    path: PathBuf,
    /// Where the file is, if it is one.
    folder: Option<Folder>,
}

impl Swap {
    /// A file.
    fn file(name: &str, bytes: u64) -> Swap {
        let folder = Folder::new(name).unwrap();
        let path = folder.path().join("swap");
        let mut file = File::create(&path).unwrap();
        file.write_all(&header(bytes)).unwrap();
        // Without holes.
        let zeros = vec![0_u8; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&zeros).unwrap();
        }
        file.sync_all().unwrap();
        Swap::on(Swap { path, folder: Some(folder) })
    }

    /// Compressed memory; `None` where the kernel has none (a module that is not loaded).
    fn zram(bytes: u64) -> Option<Swap> {
        if !Path::new(ZRAM).exists() {
            return None;
        }
        fs::write("/sys/block/zram0/disksize", bytes.to_string()).unwrap();
        let mut device = File::options().write(true).open(ZRAM).unwrap();
        device.write_all(&header(bytes)).unwrap();
        device.sync_all().unwrap();
        drop(device);
        Some(Swap::on(Swap { path: PathBuf::from(ZRAM), folder: None }))
    }

    fn on(swap: Swap) -> Swap {
        // SAFETY: a string that ends in a zero.
        let result = unsafe { libc::swapon(swap.name().as_ptr(), 0) };
        assert_eq!(result, 0, "swapon: {}", std::io::Error::last_os_error());
        swap
    }

    fn name(&self) -> CString {
        CString::new(self.path.as_os_str().as_bytes()).unwrap()
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: as above.
        if unsafe { libc::swapoff(self.name().as_ptr()) } != 0 {
            eprintln!("swap stays on: {}", std::io::Error::last_os_error());
        }
        let removed = match self.folder {
            Some(_) => fs::remove_file(&self.path),
            None => fs::write("/sys/block/zram0/reset", "1"),
        };
        if let Err(error) = removed {
            eprintln!("left behind: {}: {error}", self.path.display());
        }
    }
}

/// The first page as mkswap makes it (include/linux/swap.h, union swap_header): version, last page, no bad pages; the magic at the end.
fn header(bytes: u64) -> Vec<u8> {
    let mut header = vec![0_u8; 4096];
    header[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    header[1028..1032].copy_from_slice(&u32::try_from(bytes / 4096 - 1).unwrap().to_le_bytes());
    header[4086..].copy_from_slice(b"SWAPSPACE2");
    header
}

/// Records from before the first touch to that step; live and the change of memory.stat must agree, the function must own what is live, and
/// nothing may be counted twice or not at all.
fn record_to(swap: Swap, step: &str, function: &str) {
    let bytes = size(BYTES).unwrap();
    let cgroup = TestCgroup::new(&format!("swap-{step}")).unwrap();
    let mut workload = Workload::start(&cgroup, &["swap", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let before = cgroup.settled_kinds().unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let mut steps = workload.run_to("swapped").unwrap();
    // Until then the folios stay charged in the swap cache, and a touch would only map them again.
    cgroup.reclaim().unwrap();
    if step != "swapped" {
        steps.extend(workload.run_to(step).unwrap());
    }
    let change = cgroup.settled_kinds().unwrap().anon - before.anon;
    let outcome = memtrail.stop().unwrap();
    workload.finish().unwrap();

    let swapped = steps.iter().find(|step| step.name == "swapped").unwrap().figures["swapped"].as_f64().unwrap();
    let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
    let (live, unmapped) = (i64::try_from(row.live.unwrap()).unwrap(), i64::try_from(row.unmapped.unwrap_or(0)).unwrap());
    let owned = report::stack_sum(&outcome.report, cgroup.path(), "anon", Some(&[function]), |stack| stack.live).unwrap();
    let place = swap.path.display();
    println!("{step}: {swapped} bytes went to {place}; change {change}, live {live}, unmapped {unmapped}, {function} {owned}");
    println!("charged {:?}", row.charged);
    println!("{}", outcome.report["losses"]);
    assert!(swapped >= 0.9 * bytes as f64, "only {swapped} bytes went to swap");
    assert!(unmapped <= 1 << 20, "{unmapped} bytes stay in the swap cache");
    assert!((live - unmapped - change).abs() <= 1 << 20, "live {live}, unmapped {unmapped}, change {change}");
    assert!(row.unattributed.unwrap().abs() <= 1 << 20, "unattributed {:?}", row.unattributed);
    let mut touched = bytes;
    if step == "back" {
        assert!(owned as f64 >= 0.9 * bytes as f64, "{function} owns {owned} of {live}");
        touched += swapped as u64;
    }
    // Pages that were read ahead and dropped again may be charged once more.
    let charged = row.charged.unwrap();
    assert!(charged.abs_diff(touched) <= (1 << 20) + touched / 20, "charged {charged}, touched {touched}");
    crate::missed::assert_none(&outcome, cgroup.path(), &["anon", "file", "shmem"]);
}

/// Room for what is to be swapped out.
fn room() -> u64 {
    size(BYTES).unwrap() + (8 << 20)
}

/// The same with compressed memory. The machines of `cargo xtask test` all have that; on another kernel the test says so.
fn record_with_zram_to(step: &str, function: &str) {
    match Swap::zram(room()) {
        Some(swap) => record_to(swap, step, function),
        None => {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            assert!(!kernel::in_own_machine(), "kernel {} has no {ZRAM}", release.trim());
            println!("NOTE not tried: kernel {} has no {ZRAM}", release.trim());
        }
    }
}

#[test]
#[ignore = "root"]
fn native_swapped_out_is_no_longer_live() {
    record_to(Swap::file("swapped", room()), "swapped", "wl_touch_first");
}

#[test]
#[ignore = "root"]
fn native_swapped_in_is_charged_again() {
    record_to(Swap::file("back", room()), "back", "wl_touch_again");
}

/// Memory of a file that was swapped out and is read again is shmem, and was never anonymous.
#[test]
#[ignore = "root"]
fn native_swapped_in_shmem_is_counted_as_such() {
    if let Some(pid) = std::env::var_os(READER) {
        return read_all(pid.to_str().unwrap(), "/memfd:");
    }
    let bytes = size(BYTES).unwrap();
    let _swap = Swap::file("shmem", room());
    let cgroup = TestCgroup::new("swap-shmem").unwrap();
    let mut workload = Workload::start(&cgroup, &["memfd", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let pid = workload.run_to("touched").unwrap().pop().unwrap().pid;
    let touched = cgroup.settled_kinds().unwrap().shmem;
    // What is under writeback leaves at a later attempt.
    for _ in 0..10 {
        cgroup.reclaim().unwrap();
    }
    let left = cgroup.settled_kinds().unwrap().shmem;
    // By a process of that cgroup: with a filter, the tracepoint tier does not see what others cause there.
    let mut reader = Command::new(std::env::current_exe().unwrap());
    reader.args(["--ignored", "--exact", "swap::native_swapped_in_shmem_is_counted_as_such"]).env(READER, pid.to_string());
    workload::enter(&mut reader, &cgroup).unwrap();
    assert!(reader.stdout(Stdio::null()).status().unwrap().success());
    let back = cgroup.settled_kinds().unwrap().shmem;
    let outcome = memtrail.stop().unwrap();

    println!("{touched} bytes touched, {left} left in memory, {back} when they were read again");
    assert!(left < touched / 2 && back > touched - (1 << 20), "{touched}, {left}, {back}");
    let row = report::kind(&outcome.report, cgroup.path(), "shmem").unwrap().unwrap();
    println!("live {:?}, unattributed {:?}, {}", row.live, row.unattributed, outcome.report["losses"]);
    let live = i64::try_from(row.live.unwrap()).unwrap();
    if report::tier(&outcome.report).unwrap() == "tracepoint" {
        // On its way to the LRU nothing tells it from anonymous memory, and there the kind is decided. What was lost by that is said.
        assert!((live + row.unattributed.unwrap() - back).abs() <= 1 << 20, "live {live}, {:?} unattributed of {back}", row.unattributed);
        let ended = outcome.report["losses"]["stale_sample"].as_u64().unwrap();
        assert!(back - live <= 1 << 20 || ended > 0, "nothing says why {} bytes have no owner", back - live);
    } else {
        assert!((live - back).abs() <= 1 << 20, "live {live}, memory.stat {back}");
    }
    crate::missed::assert_none(&outcome, cgroup.path(), &["anon", "file", "shmem"]);
}

/// Names the process whose mappings a test's own program reads when it is started with this.
const READER: &str = "MEMTRAIL_TEST_READS";

/// Reads a process's mappings whose names contain this.
fn read_all(pid: &str, name: &str) {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for line in maps.lines().filter(|line| line.contains(name)) {
        let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        for at in (start..end).step_by(buffer.len()) {
            let length = buffer.len().min((end - at) as usize);
            memory.read_exact_at(&mut buffer[..length], at).unwrap();
        }
    }
}

#[test]
#[ignore = "root"]
fn native_compressed_is_no_longer_live() {
    record_with_zram_to("swapped", "wl_touch_first");
}

#[test]
#[ignore = "root"]
fn native_uncompressed_is_charged_again() {
    record_with_zram_to("back", "wl_touch_again");
}
