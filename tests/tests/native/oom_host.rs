//! Kills of the whole host, in a virtual machine of the tests' own: nowhere else may memory run out.

use crate::oom::{Readings, assert_agrees, autopsies, hog_first, logged, with_each_provider};
use harness::cgroup::TestCgroup;
use harness::kernel;
use harness::memtrail::{Mode, record_args_of};
use harness::workload::Workload;
use memtrail::analyse::oom::growth::OWN;
use memtrail::analyse::oom::loops::Loops;
use memtrail::trace::kmsg::Kmsg;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// What is left of the machine: as little as possible, since all of it has to be touched.
const LEFT: u64 = 460 * MIB;
/// More than the rest can come to.
const GROWN: u64 = 260 * MIB;

/// Takes memory from the machine as huge pages that nobody uses: no cgroup is charged for them, and no reclaim gets them back.
struct Taken;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

impl Taken {
    fn but(bytes: u64) -> Taken {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
        let available = available.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        let pages = available.saturating_sub(bytes) / (2 * MIB);
        std::fs::write(POOL, pages.to_string()).unwrap();
        let got: u64 = std::fs::read_to_string(POOL).unwrap().trim().parse().unwrap();
        println!("{} MiB available, {} MiB of them taken", available / MIB, 2 * got);
        Taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(POOL, "0") {
            eprintln!("the machine's memory stays taken: {error}");
        }
    }
}

/// A series of kills of one process while another one's growth fills the host; the report's words on it.
fn series(provider: Option<&str>, limits: [Option<u64>; 2], kills: usize) -> (Loops, [String; 2]) {
    let [grower, unit] = ["host-grower", "host-unit"].map(|name| TestCgroup::new(name).unwrap());
    for (cgroup, limit) in [&grower, &unit].into_iter().zip(limits) {
        limit.map_or_else(|| cgroup.unlimit(), |bytes| cgroup.limit(bytes)).unwrap();
    }
    let mut kmsg = Kmsg::from_now().unwrap();
    let (memtrail, readings) = Readings::start(record_args_of(&[], Mode::Default, provider));
    let taken = Taken::but(LEFT);
    let mut growing = Workload::start(&grower, &["grow", "--bytes", &GROWN.to_string(), "--milliseconds", "1"]).unwrap();
    growing.run_to("growing").unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while grower.usage().unwrap() < GROWN {
        assert!(Instant::now() < deadline, "it does not grow");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut victims = Vec::new();
    for _ in 0..kills {
        // Started again after a moment, as a service manager does.
        readings.wait(2);
        victims.push(hog_first(&unit));
    }
    drop(taken);
    let incidents = logged(&mut kmsg, &victims);
    let outcome = memtrail.stop().unwrap();
    let autopsies = autopsies(&outcome);
    let seen: Vec<u32> = autopsies.iter().flat_map(|autopsy| autopsy.victims.iter().filter_map(|victim| victim.pid)).collect();
    assert_eq!(seen, victims, "each in its order");
    for autopsy in &autopsies {
        // Constraint, trigger, victim's cgroup, and seven figures of the victim.
        assert_agrees(autopsy, &incidents, 9);
        assert_eq!((autopsy.constraint.as_deref(), autopsy.limit_cgroup.as_deref()), (Some("none"), None));
        let grew = autopsy.growth.iter().filter(|row| row.kind == OWN).max_by_key(|row| row.bytes).map(|row| row.cgroup.as_str());
        assert_eq!(grew, Some(grower.path()), "who grew is named: {:?}", autopsy.growth);
        let sentence = autopsy.verdict.as_deref().unwrap();
        assert!(
            sentence.contains("because the host was out of memory") && sentence.contains(&format!("; {} grew by ", grower.path())),
            "{sentence}"
        );
        let live: u64 =
            autopsy.stacks.iter().filter(|row| row.frames.iter().any(|frame| frame == "wl_grow_a_step")).map(|row| row.live).sum();
        assert!(live > GROWN / 2, "and through what: {live} of {GROWN}");
        assert!(!autopsy.before.contains_key("remainder"), "no counter holds the usage of a host: {:?}", autopsy.before);
    }
    let loops: Loops = serde_json::from_value(outcome.report["oom_loops"].clone()).unwrap();
    println!("{}", memtrail::output::autopsy::loops(&loops));
    assert_eq!((loops.kills, loops.global, loops.memcg), (kills as u64, kills as u64, 0));
    assert_eq!((loops.growers[0].cgroup.as_str(), loops.growers[0].kills), (grower.path(), kills as u64));
    (loops, [grower.path().to_owned(), unit.path().to_owned()])
}

fn ids(loops: &Loops) -> Vec<&str> {
    loops.verdicts.iter().map(|verdict| verdict.id.as_str()).collect()
}

/// S6: five kills of the whole host, and what grew has no limit.
#[test]
#[ignore = "root, and a machine of its own"]
fn vm_oom_kills_of_the_whole_host_name_who_grew_and_not_who_died() {
    if !kernel::in_own_machine() {
        println!("not in a virtual machine of the tests: nothing to test");
        return;
    }
    with_each_provider(|_, provider| {
        let (loops, [grower, unit]) = series(provider, [None, Some(64 << 30)], 5);
        assert_eq!(ids(&loops), ["oom-loop", "no-limit", "overcommitted-limits"], "{loops:?}");
        let [repeated, unlimited, promised] = [0, 1, 2].map(|at| loops.verdicts[at].text.as_str());
        assert!(repeated.contains(&format!("of {unit} was killed 5 times in ")), "{repeated}");
        assert!(repeated.contains(&format!("what grew is {grower}, by ")), "{repeated}");
        assert!(
            unlimited.starts_with(&format!("{grower} of ")) && unlimited.contains(" has no limit, nor has anything above it"),
            "{unlimited}"
        );
        assert!(promised.starts_with("The limits right below the host sum to 64.0 GiB"), "{promised}");
    });
}

/// Limits that fit, and a process that is killed once: nothing to be said of either.
#[test]
#[ignore = "root, and a machine of its own"]
fn vm_oom_kills_of_a_host_whose_limits_fit_give_no_verdict() {
    if !kernel::in_own_machine() {
        println!("not in a virtual machine of the tests: nothing to test");
        return;
    }
    let (loops, _) = series(None, [Some(GROWN + 64 * MIB), Some(512 * MIB)], 1);
    assert_eq!(ids(&loops), Vec::<&str>::new(), "{loops:?}");
    assert!(loops.reserve_bytes.is_some_and(|bytes| bytes > 0), "{loops:?}");
}
