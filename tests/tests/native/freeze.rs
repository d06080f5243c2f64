//! Frozen pictures, which have no command of their own: the kernel half is started by the library, in this process. Each is opened by a real
//! kill, in a cgroup beside the one that is looked at.

use harness::cgroup::TestCgroup;
use harness::workload::Workload;
use memtrail::cgroup::Hierarchy;
use memtrail::kernel_half::{picture, sizes::Forced};
use memtrail::text::glob::Glob;
use memtrail::{
    kernel_half::start::{Running, StartOptions},
    trace::{filter::Filter, session::Session},
};
use std::os::unix::fs::MetadataExt;
use tracer_common::attribution::{BASE_BANK, KeyRecord, PICTURES, ROTATING_BANKS};

const BYTES: u64 = 400 << 20;
/// A freed folio that waits in a CPU's batch is charged until the batch is drained.
const LATE: i64 = 256 << 10;

/// Follows one cgroup in exact mode, with a graveyard for all that it may free.
fn start(cgroup: &TestCgroup) -> Session {
    let mut forced = Forced::default();
    forced.add("GRAVEYARD=140000").unwrap();
    let provider = harness::memtrail::forced_provider().map(|name| match name.as_str() {
        "fentry" => memtrail::kernel_half::probes::Tier::Fentry,
        "kprobe" => memtrail::kernel_half::probes::Tier::Kprobe,
        _ => memtrail::kernel_half::probes::Tier::Tracepoint,
    });
    let options = StartOptions { exact: true, provider, map_memory: 2 << 30, forced, ..StartOptions::default() };
    Session::start(Filter::new(vec![Glob::parse(cgroup.path()).unwrap()]), memtrail::containers::KnownNames::new("/".as_ref()), options)
        .unwrap()
}

fn id(cgroup: &TestCgroup) -> u64 {
    std::fs::metadata(Hierarchy::find().unwrap().mount.join(cgroup.path().trim_start_matches('/'))).unwrap().ino()
}

/// Keys of anonymous memory of one owner charged since the start.
fn keys(running: &Running, owner: u64) -> Vec<(u64, KeyRecord)> {
    let all = memtrail::kernel_half::tables::keys(&running.bpf).unwrap();
    all.into_iter().filter(|(_, record)| record.key.owner == owner && record.key.kind == 0).collect()
}

/// Live bytes of the owner's anonymous memory in a picture: by the keys' counters, and by the samples.
fn live(running: &Running, owner: u64, epoch: u64) -> (i64, u64) {
    let picture = picture::read(&running.bpf, epoch).unwrap().expect("the picture is open");
    let keys = keys(running, owner);
    let by_keys = keys.iter().filter_map(|(identity, _)| picture.keys.get(identity)).sum();
    (by_keys, keys.iter().map(|(identity, _)| picture.bytes_by_samples(*identity)).sum())
}

fn live_now(running: &Running, owner: u64) -> i64 {
    keys(running, owner).iter().map(|(_, record)| memtrail::analyse::accounts::live(record)).sum()
}

/// What counts of the losses: the kernel half is not told what is wanted here, so that it takes from the whole host. Of what the host may be counted for,
/// a stack that could not be walked would be missing in the owner's keys, and bytes in what its pictures add up to.
fn losses(running: &Running, owner: u64) -> Vec<(&'static str, u64)> {
    let all = memtrail::kernel_half::tables::losses(&running.bpf).unwrap();
    let counted = all.into_iter().filter(|(_, count)| count.events > 0).map(|(cause, count)| (cause.name(), count.events));
    let without_stack = keys(running, owner).iter().filter(|(_, record)| record.key.user_stack == 0).count() as u64;
    counted
        .filter_map(|(cause, events)| match cause {
            "stack_walk_failed" => (without_stack > 0).then(|| (cause, events.min(without_stack))),
            _ => harness::report::HOSTS.iter().all(|(hosts, _)| *hosts != cause).then_some((cause, events)),
        })
        .collect()
}

/// Has the kernel kill a process of `victims`, which opens a picture; its epoch, or `None` if none was opened.
fn kill(running: &Running, victims: &TestCgroup) -> Option<u64> {
    let before = picture::epochs(&running.bpf).unwrap();
    crate::oom::hog_first(victims);
    let mut opened = picture::epochs(&running.bpf).unwrap();
    opened.retain(|epoch| !before.contains(epoch));
    assert!(opened.len() <= 1, "one kill opened {opened:?}");
    opened.pop()
}

/// Two cgroups below one: whose memory is looked at, and for processes that are to be killed, of which a picture is taken since the one above is
/// traced. That one comes last, and goes last.
fn cgroups(name: &str) -> [TestCgroup; 3] {
    let top = TestCgroup::new(name).unwrap();
    let [looked_at, victims] = ["looked-at", "victims"].map(|name| top.child(name).unwrap());
    looked_at.limit(1 << 30).unwrap();
    victims.limit(8 << 20).unwrap();
    [looked_at, victims, top]
}

/// Folios that wait in a CPU's batch get their owner at a sweep.
fn settle(running: &mut Running) {
    let slots: Vec<u64> = memtrail::kernel_half::tables::samples(&running.bpf).unwrap().keys().copied().collect();
    memtrail::kernel_half::tables::sweep(&mut running.bpf, slots.into_iter()).unwrap();
}

#[test]
#[ignore = "root"]
pub(super) fn native_old_pictures_read_whole() {
    let bytes = harness::accuracy::size(BYTES).unwrap();
    let [cgroup, victims, top] = &cgroups("freeze");
    let owner = id(cgroup);
    let mut workload = Workload::start(cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let mut session = start(top);
    let running = session.running_mut();
    workload.run_to("touched").unwrap();
    settle(running);

    // Nobody reads between the opening and the end of the workload.
    let full = kill(running, victims).unwrap();
    workload.run_to("freed").unwrap();
    let half = kill(running, victims).unwrap();
    workload.finish().unwrap();

    let was_full = live(running, owner, full);
    println!("{bytes} touched: the picture says {was_full:?}, then {:?}, now {}", live(running, owner, half), live_now(running, owner));
    assert_eq!(losses(running, owner), [], "nothing is lost");
    assert!(was_full.0 >= bytes as i64 && was_full.0 < bytes as i64 + (2 << 20), "{was_full:?}");
    assert_eq!(was_full.0, was_full.1 as i64, "keys and samples of the full picture agree to the byte");
    let was_half = live(running, owner, half);
    assert!(was_half.0 >= bytes as i64 / 2 && was_half.0 < bytes as i64 / 2 + (2 << 20), "{was_half:?}");
    assert_eq!(was_half.0, was_half.1 as i64, "keys and samples of the half picture agree to the byte");
    let now = live_now(running, owner);
    assert!((0..LATE).contains(&now), "{now} bytes are live still");

    // The oldest goes; the other still reads the same. Then all of it goes.
    let began = std::time::Instant::now();
    picture::close(&mut running.bpf, full).unwrap();
    assert!(picture::read(&running.bpf, full).unwrap().is_none(), "a closed picture cannot be read");
    assert_eq!(live(running, owner, half), was_half);
    picture::close(&mut running.bpf, half).unwrap();
    println!("closed two pictures in {:?}", began.elapsed());
    assert_eq!(memtrail::kernel_half::tables::graveyard(&running.bpf).unwrap().len(), 0, "no graves without pictures");
    assert!(live_now(running, owner) <= now);
}

#[test]
#[ignore = "root"]
pub(super) fn native_pictures_are_bounded_and_epochs_go_round() {
    const STEP: u64 = 4 << 20;
    let [cgroup, victims, top] = &cgroups("pictures");
    let owner = id(cgroup);
    let mut session = start(top);
    let running = session.running_mut();
    let mut workloads: Vec<Workload> = Vec::new();
    let mut grow = |running: &mut Running| {
        let mut workload = Workload::start(cgroup, &["anon", "--bytes", &STEP.to_string()]).unwrap();
        workload.run_to("touched").unwrap();
        workloads.push(workload);
        settle(running);
        live_now(running, owner)
    };

    // The first stays open while three times as many epochs as there are banks come and go beside it.
    let mut then = vec![grow(running)];
    let mut open = vec![kill(running, victims).unwrap()];
    for round in 0..3 * ROTATING_BANKS {
        then.push(grow(running));
        open.push(kill(running, victims).unwrap());
        if open.len() == PICTURES {
            let before: u64 = losses(running, owner).iter().filter(|(name, _)| *name == "picture_refused").map(|(_, n)| *n).sum();
            assert_eq!(kill(running, victims), None, "a fifth picture");
            assert!(losses(running, owner).contains(&("picture_refused", before + 1)), "{:?}", losses(running, owner));
        }
        for (epoch, bytes) in open.iter().zip(&then) {
            assert_eq!(live(running, owner, *epoch), (*bytes, *bytes as u64), "round {round}, epoch {epoch} of {open:?}");
        }
        if open.len() == PICTURES {
            // Each of the other three in turn, so that banks are folded forward from every place.
            let at = 1 + round % (PICTURES - 1);
            picture::close(&mut running.bpf, open.remove(at)).unwrap();
            then.remove(at);
        }
    }
    let epoch = *open.last().unwrap();
    assert!(epoch > 2 * ROTATING_BANKS as u64, "{epoch}");
    drop(workloads);

    // Newest first, then the oldest.
    while let Some(epoch) = open.pop() {
        assert_eq!(live(running, owner, epoch), (*then.last().unwrap(), *then.last().unwrap() as u64), "{epoch}");
        then.pop();
        picture::close(&mut running.bpf, epoch).unwrap();
    }
    let control = memtrail::kernel_half::tables::control(&running.bpf).unwrap();
    assert_eq!((control.open_pictures, control.held_banks), (0, 0));
    assert_eq!(memtrail::kernel_half::tables::graveyard(&running.bpf).unwrap().len(), 0);
    let current = tracer_common::attribution::bank_of(control.epoch);
    for (_, record) in keys(running, owner) {
        for bank in (0..BASE_BANK).filter(|bank| *bank != current) {
            assert_eq!((record.charged[bank], record.uncharged[bank], record.live_variance[bank]), (0, 0, 0), "bank {bank}");
        }
    }
    let now = live_now(running, owner);
    assert!((0..LATE).contains(&now), "{now} bytes are live still");

    // And it all works again.
    let again = kill(running, victims).unwrap();
    let late = live(running, owner, again);
    assert!(late.0 <= now && late.0 == late.1 as i64, "{late:?} of {now}");
    picture::close(&mut running.bpf, again).unwrap();
    let found: Vec<_> = losses(running, owner).into_iter().filter(|(name, _)| *name != "picture_refused").collect();
    assert_eq!(found, [], "nothing is lost");
}
