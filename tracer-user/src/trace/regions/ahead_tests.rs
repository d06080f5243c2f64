use super::*;
use crate::{
    cgroup::{Version, stat::CgroupFile},
    region::maps::Maps,
};
use tracer_common::{
    attribution::{BANKS, Key, Sample},
    process::ProcessRecord,
};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;

fn reading(anon: u64, dirty: u64, clean: u64, limit: &str) -> (CgroupId, StatReading) {
    let mut reading = StatReading::new(Version::V1, 1);
    let text = format!("total_rss {anon}\ntotal_cache {}\ntotal_shmem 0\ntotal_dirty {dirty}\ntotal_writeback 0\n", dirty + clean);
    reading.absorb(CgroupFile::Stat, text.as_bytes());
    reading.absorb(CgroupFile::Limit, limit.as_bytes());
    (CgroupId(7), reading)
}

fn limit() -> String {
    (100 * MIB).to_string()
}

#[test]
fn only_what_comes_close_is_looked_into_and_rarely() {
    let mut ahead = Ahead::default();
    let due = |ahead: &Ahead, reading: (CgroupId, StatReading), now_ns: u64| !ahead.due(&[reading], now_ns, 0).is_empty();
    let now = 100 * SECOND;
    assert!(due(&ahead, reading(50 * MIB, 20 * MIB, 0, &limit()), now));
    assert!(!due(&ahead, reading(60 * MIB, 0, 40 * MIB, &limit()), now), "a cgroup that is full of clean page cache is not close");
    assert!(!due(&ahead, reading(90 * MIB, 0, 0, "9223372036854771712"), now), "no limit");
    ahead.looked.insert(CgroupId(7), Looked { at_ns: now, held: 80 * MIB });
    ahead.last_ns = now;
    let later = now + 10 * SECOND;
    assert!(!due(&ahead, reading(84 * MIB, 0, 0, &limit()), later));
    assert!(due(&ahead, reading(85 * MIB, 0, 0, &limit()), later), "it has grown");
    assert!(!due(&ahead, reading(85 * MIB, 0, 0, &limit()), now + SECOND), "a moment ago another was looked into");
    assert!(due(&ahead, reading(80 * MIB, 0, 0, &limit()), now + AGAIN_NS), "a minute ago");
    let after = |busy_ns| ahead.due(&[reading(85 * MIB, 0, 0, &limit())], later, busy_ns);
    assert!(after(SECOND).is_empty() && after(SECOND / 20).len() == 1, "the last look took a second");
    let many: Vec<(CgroupId, StatReading)> = (1..20).map(|id| (CgroupId(id), reading((80 + id) * MIB, 0, 0, &limit()).1)).collect();
    let closest: Vec<u64> = ahead.due(&many, later, 0).into_iter().map(|(id, _)| id.0).collect();
    assert_eq!(closest, [19, 18, 17, 16]);
}

fn known(at_ns: u64) -> Known {
    let text = "5000-9000 rw-p 0 0:0 0 [heap]\nAnonymous: 12 kB\n";
    let survey = Survey { comm: "x".into(), ..Survey::of_maps(Maps::parse(text.as_bytes()).unwrap(), &[]) };
    Known { at_ns, owner: CgroupId(7), survey: Arc::new(survey) }
}

fn key(process: u64) -> KeyRecord {
    KeyRecord {
        key: Key { owner: 7, process, user_stack: 0, kernel_stack: 0, kind: Kind::Anon as u32, flags: 0 },
        charged: [0; BANKS],
        uncharged: [0; BANKS],
        live_variance: [0; BANKS],
        charged_variance: 0,
        samples: 0,
        last_ns: 0,
        peak_mark: 0,
        peak_live: 0,
        peak_variance: 0,
    }
}

fn sample(key: u64, address: u64) -> Sample {
    Sample {
        key,
        weight_per_frame: 4096,
        address,
        file: 0,
        charged_ns: 5,
        epoch: 0,
        process: 0,
        user_stack: 0,
        kernel_stack: 0,
        frames_left: 1,
        tid: 0,
        order: 0,
    }
}

#[test]
fn samples_are_placed_by_address_in_what_the_process_was() {
    let mut ahead = Ahead::default();
    ahead.known.insert(30, known(50 * SECOND));
    let keys = HashMap::from([(1, key(1)), (2, key(2)), (3, KeyRecord { key: Key { flags: KEY_BASELINE, ..key(1).key }, ..key(1) })]);
    let process = |first_seen_ns| ProcessRecord {
        start_ns: 1,
        first_seen_ns,
        ended_ns: 0,
        exec_id: 1,
        tgid: 30,
        ns_tgid: 30,
        kernel_thread: 0,
        comm: [0; 16],
    };
    let processes = HashMap::from([(1, process(SECOND)), (2, process(60 * SECOND))]);
    let samples = HashMap::from([
        (10, sample(1, 0x6000)),
        (11, sample(1, 0xa000)),
        // Of a process that came later with the same id, and older memory, whose address is not known.
        (12, sample(2, 0x6000)),
        (13, sample(3, 0x6000)),
    ]);
    let tables = Tables { keys: &keys, samples: &samples, processes: &processes, mappings: &HashMap::new() };
    let (surveys, ages) = ahead.at(70 * SECOND, &tables, |_| true);
    assert_eq!(surveys.places.keys().collect::<Vec<_>>(), [&10]);
    assert_eq!((surveys.processes.len(), ages.get(&7)), (1, Some(&20.0)));
    assert!(ahead.at(40 * SECOND, &tables, |_| true).0.processes.is_empty(), "a look after the kill is none before it");
    assert!(ahead.at(70 * SECOND, &tables, |_| false).0.processes.is_empty());
}

#[test]
fn what_is_kept_is_bounded() {
    let mut ahead = Ahead::default();
    for tgid in 0..200 {
        ahead.known.insert(tgid, known(u64::from(tgid) * SECOND));
    }
    ahead.bound(200 * SECOND);
    assert_eq!(ahead.known.len(), MOST_KNOWN.0);
    assert!(ahead.known.contains_key(&199) && !ahead.known.contains_key(&0), "the oldest go");
    ahead.bound(199 * SECOND + OLDEST_NS);
    assert!(ahead.known.is_empty());
}
