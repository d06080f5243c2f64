use super::*;

fn path(text: &str) -> CgroupPath {
    CgroupPath::from_bytes(text.as_bytes()).unwrap()
}

#[test]
fn levels_to_try() {
    let own = path("/system.slice/ssh.service/session");
    assert_eq!(levels(Version::V1, Some(&own)), [path("/"), own.clone()]);
    assert_eq!(levels(Version::V2, Some(&own)), [path("/"), path("/system.slice"), path("/system.slice/ssh.service")]);
    assert_eq!(levels(Version::V2, Some(&path("/"))), [path("/")]);
    assert_eq!(levels(Version::V1, Some(&path("/"))), [path("/")]);
    assert_eq!(levels(Version::V1, None), [path("/")]);
}

#[test]
fn v2_levels_that_may_hold_a_child() {
    let level = |is_root, offered, passed_on, populated| v2_level(&V2Level { is_root, offered, passed_on, populated });
    assert_eq!(level(true, true, true, true), Hold::Yes);
    assert_eq!(level(true, true, false, true), Hold::IfEnabled, "the real root may have processes");
    assert_eq!(level(false, true, true, false), Hold::Yes);
    assert_eq!(level(false, true, false, false), Hold::IfEnabled);
    assert!(matches!(level(false, true, false, true), Hold::No(reason) if reason.contains("processes")));
    assert!(matches!(level(true, false, false, false), Hold::No(reason) if reason.contains("not available")));
}

#[test]
fn a_v2_level_is_read_from_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
    assert!(V2Level::read(dir.path()).is_err());
    write("cgroup.controllers", "cpu memory pids\n");
    write("cgroup.subtree_control", "cpu memory_x\n");
    write("cgroup.procs", "1\n");
    write("cgroup.type", "domain\n");
    let read = V2Level::read(dir.path()).unwrap();
    assert_eq!(read, V2Level { is_root: false, offered: true, passed_on: false, populated: true });
}
