//! Huge pages of hugetlbfs: followed where the kernel charges them, and no part of anything else where it does not.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::report;
use harness::workload::Workload;
use std::fs;

const BYTES: u64 = 32 << 20;
const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// The pool's size, put back when dropped.
struct Pool(String);

impl Pool {
    fn grow(pages: u64) -> Pool {
        let before = fs::read_to_string(POOL).unwrap();
        let pool = Pool(before.trim().to_owned());
        let wanted = pool.0.parse::<u64>().unwrap() + pages;
        fs::write(POOL, wanted.to_string()).unwrap();
        let got: u64 = fs::read_to_string(POOL).unwrap().trim().parse().unwrap();
        assert_eq!(got, wanted, "no {pages} huge pages to be had");
        pool
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = fs::write(POOL, &self.0) {
            eprintln!("{POOL} stays changed: {error}");
        }
    }
}

/// Records to a step that leaves huge pages charged, private ones or those of a file.
fn record_to(step: &str) {
    let bytes = size(BYTES).unwrap();
    let cgroup = TestCgroup::new(&format!("hugetlb-{step}")).unwrap();
    let mut workload = Workload::start(&cgroup, &["hugetlb", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    // While it is traced: pages of the pool are charged to nobody.
    let _pool = Pool::grow(bytes >> 21);
    workload.run_to(step).unwrap();
    let stat = cgroup.settled_stat().unwrap();
    let outcome = memtrail.stop().unwrap();
    workload.finish().unwrap();

    let losses = report::losses(&outcome.report).unwrap();
    assert!(losses.is_empty(), "{losses:?}");
    let anon = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
    assert!(anon.live.unwrap() < 1 << 20, "huge pages are no anon of memory.stat, live {:?}", anon.live);
    let row = report::kind(&outcome.report, cgroup.path(), "hugetlb").unwrap();
    match stat.get("hugetlb") {
        Some(charged) if *charged > 0 => {
            let row = row.unwrap();
            println!("{step}: memory.stat has {charged} bytes of hugetlb, live {:?}", row.live);
            if report::tier(&outcome.report).unwrap() == "tracepoint" {
                println!("the tracepoint tier does not see huge pages charged");
                return;
            }
            assert_eq!(row.live, Some(*charged));
            let owned =
                report::stack_sum(&outcome.report, cgroup.path(), "hugetlb", Some(&["wl_touch_hugetlb"]), |stack| stack.live).unwrap();
            assert_eq!(owned, *charged, "wl_touch_hugetlb");
        }
        _ => {
            println!("{step}: memory.stat has no hugetlb of {}", cgroup.path());
            // Where memory.stat has no such line there is nothing to compare with.
            if stat.contains_key("hugetlb") {
                assert_eq!(row.and_then(|row| row.live).unwrap_or(0), 0, "huge pages out of nothing");
            }
        }
    }
    crate::missed::assert_none(&outcome, cgroup.path(), &["anon", "file", "hugetlb"]);
}

#[test]
#[ignore = "root"]
fn native_hugetlb_is_followed_where_it_is_charged() {
    record_to("touched");
}

#[test]
#[ignore = "root"]
fn native_hugetlb_in_a_file_is_followed_where_it_is_charged() {
    record_to("shared");
}

/// Uncharged as what they were charged as.
#[test]
#[ignore = "root"]
fn native_hugetlb_leaves_nothing_behind() {
    record_to("over");
}
