//! Swap: what goes out is no longer live, what comes back is charged to whoever touches it.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::place::Folder;
use harness::report;
use harness::workload::Workload;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const BYTES: u64 = 64 << 20;

/// A swap file of the test's own, switched off and removed when dropped.
struct Swap {
    path: PathBuf,
    _folder: Folder,
}

impl Swap {
    fn on(name: &str, bytes: u64) -> Swap {
        let folder = Folder::new(name).unwrap();
        let path = folder.path().join("swap");
        let mut file = File::create(&path).unwrap();
        // The header as mkswap makes it (include/linux/swap.h, union swap_header): version, last page, no bad pages; the magic at the
        // end of the page.
        let mut header = vec![0_u8; 4096];
        header[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
        header[1028..1032].copy_from_slice(&u32::try_from(bytes / 4096 - 1).unwrap().to_le_bytes());
        header[4086..].copy_from_slice(b"SWAPSPACE2");
        file.write_all(&header).unwrap();
        // Without holes.
        let zeros = vec![0_u8; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&zeros).unwrap();
        }
        file.sync_all().unwrap();
        let swap = Swap { path, _folder: folder };
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
        let _ = fs::remove_file(&self.path);
    }
}

/// Records from before the first touch to that step; live and the change of memory.stat must agree, and the function must own what is
/// live.
fn record_to(step: &str, function: &str) {
    let bytes = size(BYTES).unwrap();
    let _swap = Swap::on(&format!("swap-{step}"), bytes + (8 << 20));
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
    println!("{step}: {swapped} bytes went to swap; change {change}, live {live}, unmapped {unmapped}, {function} {owned}");
    println!("{}", outcome.report["losses"]);
    assert!(swapped >= 0.9 * bytes as f64, "only {swapped} bytes went to swap");
    assert!(unmapped <= 1 << 20, "{unmapped} bytes stay in the swap cache");
    assert!((live - unmapped - change).abs() <= 1 << 20, "live {live}, unmapped {unmapped}, change {change}");
    assert!(row.unattributed.unwrap().abs() <= 1 << 20, "unattributed {:?}", row.unattributed);
    if step == "back" {
        assert!(owned as f64 >= 0.9 * bytes as f64, "{function} owns {owned} of {live}");
    }
}

#[test]
#[ignore = "root"]
fn native_swapped_out_is_no_longer_live() {
    record_to("swapped", "wl_touch_first");
}

#[test]
#[ignore = "root"]
fn native_swapped_in_is_charged_again() {
    record_to("back", "wl_touch_again");
}
