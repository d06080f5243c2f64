use super::*;

/// Captured on a 6.18 micro-VM: v1 memory, and a v2 mount that carries only hugetlb.
const HYBRID: &[u8] = include_bytes!("../../tests/fixtures/cgroup/6.18-hybrid.mountinfo");
const HYBRID_CGROUPS: &str = include_str!("../../tests/fixtures/cgroup/6.18-hybrid.cgroups");

fn v2(point: &str, controllers: &[&str]) -> Mount {
    Mount {
        version: Version::V2,
        point: PathBuf::from(point),
        root: b"/".to_vec(),
        device: (0, 1),
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
    }
}

fn v1(point: &str, controllers: &[&str]) -> Mount {
    Mount { version: Version::V1, ..v2(point, controllers) }
}

const IN_V1: Option<MemoryController> = Some(MemoryController { hierarchy: 4, enabled: true });
const IN_V2: Option<MemoryController> = Some(MemoryController { hierarchy: 0, enabled: true });

#[test]
fn captured_hybrid_host_has_memory_in_v1() {
    let mut mounts = cgroup_mounts(HYBRID);
    assert_eq!(mounts.len(), 10);
    for mount in mounts.iter_mut().filter(|m| m.version == Version::V2) {
        mount.controllers = vec!["hugetlb".to_owned()];
    }
    let memory = memory_controller(HYBRID_CGROUPS);
    assert_eq!(memory, Some(MemoryController { hierarchy: 4, enabled: true }));
    let Choice::Mounted(chosen) = choose(&mounts, memory) else { panic!("not found") };
    assert_eq!((chosen.version, chosen.point, chosen.device), (Version::V1, PathBuf::from("/sys/fs/cgroup/memory"), (0, 32)));
    assert_eq!(kind_label(Version::V1, &mounts), "hybrid");
}

#[test]
fn labels() {
    assert_eq!(kind_label(Version::V2, &[v2("/c", &["memory"])]), "v2");
    assert_eq!(kind_label(Version::V1, &[v1("/m", &["memory"])]), "v1");
    assert_eq!(kind_label(Version::V2, &[v2("/c", &["memory"]), v1("/s", &[])]), "v2", "systemd's named hierarchy");
    assert_eq!(kind_label(Version::V2, &[v2("/c", &["memory"]), v1("/p", &["net_cls"])]), "hybrid");
}

#[test]
fn choice_follows_the_controller_not_the_mount() {
    assert_eq!(choose(&[v2("/c", &["cpu", "memory"])], IN_V2), Choice::Mounted(v2("/c", &["cpu", "memory"])));
    assert_eq!(choose(&[v2("/c", &["cpu"])], IN_V1), Choice::NotMounted(Version::V1));
    assert_eq!(choose(&[v2("/c", &["cpu"])], IN_V2), Choice::NotMounted(Version::V2));
    assert_eq!(choose(&[], IN_V1), Choice::NotMounted(Version::V1));
    assert_eq!(choose(&[], None), Choice::NotMounted(Version::V2));
    assert_eq!(choose(&[], Some(MemoryController { hierarchy: 0, enabled: false })), Choice::Disabled);
    let part = Mount { root: b"/docker/1".to_vec(), ..v1("/part", &["memory"]) };
    let whole = v1("/whole", &["cpu", "memory"]);
    assert_eq!(choose(&[part.clone(), whole.clone()], IN_V1), Choice::Mounted(whole));
    assert_eq!(choose(std::slice::from_ref(&part), IN_V1), Choice::Mounted(part.clone()));
}

#[test]
fn odd_mountinfo_lines() {
    let line = br"99 1 0:44 /a\040b /mnt/x\134y\011z rw,nosuid shared:5 master:1 - cgroup2 none rw,nsdelegate";
    let mounts = cgroup_mounts(line);
    assert_eq!(mounts[0].point, PathBuf::from("/mnt/x\\y\tz"));
    assert_eq!(mounts[0].root, b"/a b");
    for bad in
        [&b"x"[..], b"", b"1 2 3 4 5 6", b"1 2 0:x / /m rw - cgroup c rw,memory", b"1 2 0:1 / /m rw cgroup c rw,memory", b"\xff \xff"]
    {
        assert_eq!(cgroup_mounts(bad), [], "{bad:?}");
    }
    // A source that is called like a controller is no controller.
    assert_eq!(cgroup_mounts(b"1 2 0:1 / /m rw - cgroup memory rw,name=memory")[0].controllers, Vec::<String>::new());
    assert_eq!(cgroup_mounts(b"1 2 0:1 / /m rw - cgroup c rw,cpu,memory,release_agent=/x")[0].controllers, ["cpu", "memory"]);
}

#[test]
fn own_path_in_each_hierarchy() {
    let text = b"9:name=systemd:/\n4:cpu,memory:/a/b:c\n3:cpuset:/z\n0::/user.slice\n";
    assert_eq!(path_in(text, Version::V1).unwrap().to_string(), "/a/b:c");
    assert_eq!(path_in(text, Version::V2).unwrap().to_string(), "/user.slice");
    assert_eq!(path_in(b"0::/../outside\n", Version::V2), None);
    assert_eq!(path_in(b"nonsense", Version::V1), None);
}

#[test]
fn proc_cgroups_without_memory_is_unknown() {
    assert_eq!(memory_controller("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\n"), None);
    assert_eq!(memory_controller("memory\t0\t120\t0\n"), Some(MemoryController { hierarchy: 0, enabled: false }));
    assert_eq!(memory_controller("memory\tx\n"), None);
}
