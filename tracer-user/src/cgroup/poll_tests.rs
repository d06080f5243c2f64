use super::*;
use crate::command::{Placement, Removal};
use std::time::Instant;

fn tree(cgroups: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for cgroup in cgroups {
        let directory = root.path().join(cgroup);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("memory.stat"), "anon 4096\nfile 8192\nshmem 0\n").unwrap();
        fs::write(directory.join("memory.current"), "20480\n").unwrap();
        fs::write(directory.join("memory.max"), "max\n").unwrap();
    }
    root
}

fn cgroup(root: &tempfile::TempDir, path: &str) -> (CgroupId, CgroupPath) {
    (directory_id(&root.path().join(path)).unwrap(), CgroupPath::from_bytes(path.as_bytes()).unwrap())
}

fn poll(poller: &mut Poller, cgroups: &[(CgroupId, CgroupPath)]) -> Poll {
    poll_with(poller, Care::Whole, cgroups)
}

fn poll_with(poller: &mut Poller, care: Care, cgroups: &[(CgroupId, CgroupPath)]) -> Poll {
    poller.poll(care, cgroups.iter().map(|(id, path)| (*id, path)))
}

#[test]
fn children_come_before_parents_and_absent_files_are_unknown() {
    let root = tree(&["a", "a/b", "c"]);
    let cgroups = [cgroup(&root, "a"), cgroup(&root, "a/b"), cgroup(&root, "c")];
    let poll = poll(&mut Poller::at(root.path().into(), Version::V2, 100), &cgroups);
    assert_eq!(poll.readings[0].0, cgroups[1].0);
    let reading = &poll.readings[0].1;
    assert_eq!((reading.usage, reading.limit, reading.high), (Some(20480), Some(stat::Limit::Unlimited), None));
    assert_eq!((reading.subtree.kinds.get("swap"), reading.unreadable), (None, 0));
    assert!(poll.errors.is_empty() && poll.gone.is_empty());
}

#[test]
fn descriptors_are_kept_up_to_the_bound_and_closed_when_not_asked_for() {
    let root = tree(&["a", "b", "c"]);
    let cgroups = [cgroup(&root, "a"), cgroup(&root, "b"), cgroup(&root, "c")];
    let mut poller = Poller::at(root.path().into(), Version::V2, 7);
    assert_eq!(poll(&mut poller, &cgroups).reopened, 1);
    assert_eq!((poller.now_open, poller.open.len()), (6, 2));
    fs::write(root.path().join("c/memory.current"), "1\n").unwrap();
    fs::write(root.path().join("a/memory.current"), "2\n").unwrap();
    let usage: HashMap<_, _> = poll(&mut poller, &cgroups).readings.iter().map(|(id, r)| (*id, r.usage)).collect();
    assert_eq!((usage[&cgroups[0].0], usage[&cgroups[2].0]), (Some(2), Some(1)));
    poll(&mut poller, &cgroups[..1]);
    assert!(poller.now_open <= 3);
}

/// The anonymous memory that polls see when memory.stat alone changes from one to the next.
fn skimmed(usage: u64, limit: &str, care: Care) -> Vec<u64> {
    let root = tree(&["a"]);
    let path = |file: &str| root.path().join("a").join(file);
    fs::write(path("memory.current"), format!("{usage}\n")).unwrap();
    fs::write(path("memory.max"), format!("{limit}\n")).unwrap();
    let cgroups = [cgroup(&root, "a")];
    let mut poller = Poller::at(root.path().into(), Version::V2, 100);
    let anon = |poll: Poll| poll.readings[0].1.subtree.kinds["anon"].bytes;
    let mut seen = Vec::new();
    for round in 0..12 {
        fs::write(path("memory.stat"), format!("anon {round}\nfile 0\nshmem 0\n")).unwrap();
        seen.push(anon(poll_with(&mut poller, care, &cgroups)));
    }
    // Whatever the round: a counter that has moved is news.
    fs::write(path("memory.current"), "1\n").unwrap();
    fs::write(path("memory.stat"), "anon 99\nfile 0\nshmem 0\n").unwrap();
    assert_eq!(anon(poll_with(&mut poller, care, &cgroups)), 99);
    seen
}

#[test]
fn skimmed_readings_are_at_most_three_polls_old_and_never_near_a_limit() {
    let whole: Vec<u64> = (0..12).collect();
    assert_eq!(skimmed(20_480, "max", Care::Whole), whole);
    assert_eq!(skimmed(90_000, "100000", Care::Skimmed), whole, "near its limit");
    let seen = skimmed(20_480, "max", Care::Skimmed);
    assert!(seen.iter().zip(&whole).all(|(seen, now)| now - seen <= 3), "{seen:?}");
    assert!(seen.iter().zip(&whole).filter(|(seen, now)| seen == now).count() <= 5, "nothing is saved: {seen:?}");
}

#[test]
fn without_kept_descriptors_a_skimmed_cgroup_that_is_removed_is_gone() {
    let root = tree(&["a"]);
    let cgroups = [cgroup(&root, "a")];
    let mut poller = Poller::at(root.path().into(), Version::V2, 0);
    for _ in 0..3 {
        assert_eq!(poll_with(&mut poller, Care::Skimmed, &cgroups).readings.len(), 1);
    }
    fs::remove_dir_all(root.path().join("a")).unwrap();
    assert_eq!(poll_with(&mut poller, Care::Skimmed, &cgroups).gone.len(), 1);
}

#[test]
fn a_removed_cgroup_is_gone_and_one_of_the_same_name_is_not_it() {
    let root = tree(&["a", "b"]);
    let cgroups = [cgroup(&root, "a"), cgroup(&root, "b")];
    fs::remove_dir_all(root.path().join("a")).unwrap();
    // Another directory under the old name of b, with b's inode number still in use elsewhere.
    fs::rename(root.path().join("b"), root.path().join("elsewhere")).unwrap();
    fs::create_dir(root.path().join("b")).unwrap();
    fs::write(root.path().join("b/memory.stat"), "anon 1\n").unwrap();
    let poll = poll(&mut Poller::at(root.path().into(), Version::V2, 100), &cgroups);
    assert_eq!((poll.gone.len(), poll.readings.len(), poll.errors.len()), (2, 0, 0));
}

#[test]
fn a_cgroup_without_the_controller_is_an_error_of_its_own() {
    let root = tree(&["a"]);
    fs::remove_file(root.path().join("a/memory.stat")).unwrap();
    let poll = poll(&mut Poller::at(root.path().into(), Version::V2, 100), &[cgroup(&root, "a")]);
    assert!(matches!(poll.errors[..], [(_, PollError::NoMemory)]));
}

#[test]
fn a_long_stat_is_read_whole_and_an_endless_one_is_bounded() {
    let root = tree(&["a"]);
    let long: String = (0..2000).map(|i| format!("key_number_{i} 1\n")).chain(["anon 77\n".to_owned()]).collect();
    fs::write(root.path().join("a/memory.stat"), &long).unwrap();
    let mut poller = Poller::at(root.path().into(), Version::V2, 0);
    let reading = poller.read_one(cgroup(&root, "a").0, &cgroup(&root, "a").1).unwrap().unwrap();
    assert_eq!(reading.subtree.kinds["anon"].bytes, 77);
    fs::write(root.path().join("a/memory.stat"), long.repeat(4)).unwrap();
    poller.read_one(cgroup(&root, "a").0, &cgroup(&root, "a").1).unwrap();
    assert!(poller.buffer.len() <= MOST_BYTES);
}

#[test]
fn flat_v1_hierarchies_are_asked_for() {
    let root = tree(&["a"]);
    fs::write(root.path().join("a/memory.use_hierarchy"), "0\n").unwrap();
    fs::write(root.path().join("memory.use_hierarchy"), "0\n").unwrap();
    let (id, path) = cgroup(&root, "a");
    let read = |mut poller: Poller| poller.read_one(id, &path).unwrap().unwrap().hierarchical;
    assert_eq!(read(Poller::at(root.path().into(), Version::V1, 9)), Some(false));
    fs::write(root.path().join("memory.use_hierarchy"), "1\n").unwrap();
    assert_eq!(read(Poller::at(root.path().into(), Version::V1, 9)), None);
}

#[test]
fn open_files_limit_is_read() {
    assert_eq!(soft_open_files("Max processes 1 1\nMax open files            1024                 4096   files\n"), Some(1024));
    assert_eq!(soft_open_files("Max open files unlimited unlimited files\n"), Some(usize::MAX));
    assert_eq!(soft_open_files(""), None);
}

#[test]
#[ignore = "needs root; prints how long 600 cgroups take"]
fn root_poll_of_600_cgroups() {
    let hierarchy = Hierarchy::find().unwrap();
    let Placement::Own(mut place) = Placement::make(&hierarchy, None).unwrap() else { panic!("no cgroup can be made") };
    let top = place.directory().to_owned();
    if hierarchy.version == Version::V2 {
        fs::write(top.join("cgroup.subtree_control"), "+memory").unwrap();
    }
    let directories: Vec<_> = (0..600).map(|i| top.join(i.to_string())).collect();
    for directory in &directories {
        fs::create_dir(directory).unwrap();
    }
    let cgroups: Vec<_> = (directories.iter())
        .map(|d| {
            let path = d.strip_prefix(&hierarchy.mount).unwrap().to_str().unwrap();
            (directory_id(d).unwrap(), CgroupPath::from_bytes(path.as_bytes()).unwrap())
        })
        .collect();
    let mut results = Vec::new();
    for most_open in [0, default_most_open()] {
        let mut poller = Poller::new(&hierarchy, most_open);
        for round in 0..4 {
            let started = Instant::now();
            let poll = poll(&mut poller, &cgroups);
            println!("most_open {most_open} round {round}: {} read in {:?}", poll.readings.len(), started.elapsed());
            results.push((
                poll.readings.len(),
                poll.errors.len(),
                poll.readings.iter().all(|(_, r)| r.usage.is_some() && r.unreadable == 0),
            ));
        }
    }
    let mut poller = Poller::new(&hierarchy, default_most_open());
    poll(&mut poller, &cgroups);
    for directory in &directories {
        fs::remove_dir(directory).unwrap();
    }
    let after = poll(&mut poller, &cgroups);
    assert_eq!(place.remove(), Removal::Removed);
    assert!(results.iter().all(|r| *r == (600, 0, true)), "{results:?}");
    assert_eq!((after.gone.len(), after.readings.len(), after.errors.len()), (600, 0, 0));
}
