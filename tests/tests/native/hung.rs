//! File servers that stop answering: whoever waits for them, memtrail does not.

use super::containers::{CART, bundle};
use super::oom::{Readings, hog_first, holder, of_victim};
use harness::cgroup::TestCgroup;
use harness::fuse::{Answers, Fuse};
use harness::memtrail::{Memtrail, Mode, Outcome, record_args, record_args_of};
use harness::report;
use harness::workload::Workload;
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What an end may take longer than one without any such server.
const LONGER: Duration = Duration::from_secs(2);
/// Above what any end of a recording takes, so that a failure is told by this test and not by its time limit.
const MOST: Duration = Duration::from_secs(40);

/// A process whose address space nobody can look at. Dropped in this order: only an ended connection lets the process end.
struct Hung {
    _fuse: Fuse,
    _process: Workload,
    _folder: tempfile::TempDir,
}

impl Hung {
    /// It has touched that many bytes.
    fn start(cgroup: &TestCgroup, bytes: u64) -> Hung {
        let folder = tempfile::tempdir().unwrap();
        let fuse = Fuse::mount(folder.path(), Answers::AllButReads).unwrap();
        let file = folder.path().join("file");
        // Calls in a storm are recorded with gaps, so that the process's own list is asked for again.
        let args = ["hung", "--bytes", &bytes.to_string(), "--rounds", "20000", "--file", file.to_str().unwrap()];
        let mut hung = Hung { _fuse: fuse, _process: Workload::start(cgroup, &args).unwrap(), _folder: folder };
        hung._process.run_to("hung").unwrap();
        hung._fuse.wait_until_asked().unwrap();
        assert!(!answers(hung._process.pid()), "its mappings can be read: the test shows nothing");
        hung
    }
}

/// Whether the list of a process's mappings can be read.
fn answers(pid: u32) -> bool {
    let (sender, read) = std::sync::mpsc::channel();
    // The thread ends with the connection.
    std::thread::spawn(move || sender.send(std::fs::read(format!("/proc/{pid}/maps")).is_ok()));
    read.recv_timeout(Duration::from_secs(1)).unwrap_or(false)
}

/// How long a recording takes to end when nothing is in its way. Something is touched meanwhile, so that the names of the same program are looked
/// up.
fn usual_end(args: &[String], cgroup: &TestCgroup) -> Duration {
    let memtrail = Memtrail::start(args).unwrap();
    let _holder = holder(cgroup, 8 * MIB);
    std::thread::sleep(Duration::from_secs(2));
    memtrail.stop_within(MOST).unwrap().1
}

fn charged(outcome: &Outcome, cgroup: &TestCgroup) -> u64 {
    report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap().charged.unwrap()
}

/// Its mappings are asked for while the recording goes on (calls of it are missing), when what nobody needs leaves the tables, and at the end.
/// None of that waits: the report comes, with the figures of the process and the regions of the others, and says whom it could not look into.
#[test]
#[ignore = "root"]
fn native_hung_process_does_not_hold_up_a_recording() {
    let cgroup = TestCgroup::new("hung").unwrap();
    let args = record_args(cgroup.path(), Mode::Exact);
    let other = holder(&cgroup, 16 * MIB);
    let usual = usual_end(&args, &cgroup);

    let memtrail = Memtrail::start(&args).unwrap();
    let hung = Hung::start(&cgroup, 8 * MIB);
    // Longer than retirements are apart.
    std::thread::sleep(Duration::from_secs(7));
    let (outcome, took) = memtrail.stop_within(MOST).unwrap();
    println!("the end took {took:?}, without it {usual:?}; {}", outcome.stderr);
    assert!(took <= usual + LONGER, "{took:?}, without a hung process {usual:?}");
    assert!(charged(&outcome, &cgroup) >= 8 * MIB, "{}", charged(&outcome, &cgroup));
    let surveyed = &outcome.report["surveyed"];
    assert!(surveyed["left_out"].as_u64().unwrap() >= 1, "{surveyed}");
    let row = report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap();
    let pids: Vec<u64> = row["regions"].as_array().unwrap().iter().filter_map(|region| region["pid"].as_u64()).collect();
    assert!(pids.contains(&u64::from(other.pid())), "regions of the other process: {row}");
    drop(hung);
}

/// Such a process is in the cgroup that is closest to its limit, so that it is the first to be looked into. The next one is looked into all the
/// same: what was in its memory is known when it is killed.
#[test]
#[ignore = "root"]
fn native_hung_process_does_not_hold_up_looks_ahead_of_a_kill() {
    let [first, second] = ["hung-first", "hung-second"].map(|name| TestCgroup::new(name).unwrap());
    first.limit(32 * MIB).unwrap();
    second.limit(64 * MIB).unwrap();
    let (memtrail, readings) = Readings::start(record_args_of(&[first.path(), second.path()], Mode::Default, None));
    let hung = Hung::start(&first, 26 * MIB);
    readings.wait(4);
    let holder = holder(&second, 48 * MIB);
    readings.wait(6);
    let pid = hog_first(&second);
    let (outcome, took) = memtrail.stop_within(MOST).unwrap();
    let autopsy = of_victim(&outcome, pid);
    println!("the end took {took:?}; {:?}; {}", autopsy.sources, outcome.stderr);
    let of_second = autopsy.regions.iter().find(|of| of.cgroup == second.path()).expect("its regions are known");
    assert!(of_second.regions.iter().any(|row| row.pid == Some(holder.pid())), "{of_second:?}");
    drop(hung);
}

/// The home of a user lies on a server that does not answer. Containers have their names all the same, and the recording its end.
#[test]
#[ignore = "root"]
fn native_hung_home_does_not_hold_up_a_recording() {
    let root = tempfile::tempdir().unwrap();
    let above = TestCgroup::new("hung-home").unwrap();
    let kubepods = above.child("kubepods").unwrap();
    let pod = kubepods.child(&format!("pod{CART}")).unwrap();
    let [there, later] = ["a1", "b2"].map(|byte| byte.repeat(32));
    users(root.path(), &["/home/ann", "/srv/homes/bob"]);
    for home in ["home/ann", "srv/homes/bob"] {
        std::fs::create_dir_all(root.path().join(home)).unwrap();
    }
    let mut args = record_args("/unused", Mode::Default).split_off(2);
    args.extend(["--host-root", root.path().to_str().unwrap(), "--pod", "shop/cart-*"].map(str::to_owned));
    bundle(root.path(), &there, "web", "cart-7", CART);
    let in_there = pod.child(&there).unwrap();
    let first = holder(&in_there, 8 * MIB);
    let usual = usual_end(&args, &in_there);

    // Declared first, and so dropped last: what waits for the server ends with the connection only.
    let memtrail;
    let fuse = Fuse::mount(&root.path().join("srv/homes"), Answers::Nothing).unwrap();
    memtrail = Memtrail::start(&args).unwrap();
    bundle(root.path(), &later, "sidecar", "cart-7", CART);
    let in_later = pod.child(&later).unwrap();
    // One without any files: it is looked for again and again.
    let unknown = pod.child(&"c3".repeat(32)).unwrap();
    let second = holder(&in_later, 8 * MIB);
    std::thread::sleep(Duration::from_secs(4));
    let (outcome, took) = memtrail.stop_within(MOST).unwrap();
    println!("the end took {took:?}, without it {usual:?}; {}", outcome.stderr);
    assert!(took <= usual + LONGER, "{took:?}, with a server that answers {usual:?}");
    for (cgroup, name) in [(&in_there, "web"), (&in_later, "sidecar")] {
        let row = report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap();
        assert_eq!(row["container_name"].as_str(), Some(name), "{row}");
    }
    drop((fuse, first, second, unknown, in_there, in_later, pod));
}

/// The root's list of users with these homes.
fn users(root: &Path, homes: &[&str]) {
    let lines = homes.iter().enumerate().map(|(n, home)| format!("u{n}:x:{}:100::{home}:/bin/sh\n", 1000 + n));
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/passwd"), lines.collect::<String>()).unwrap();
}
