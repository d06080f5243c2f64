//! Where runtimes and the kubelet keep what names a container. I/O only, read-only, below one root. A disk may take its time: only the thread of
//! [`super::naming`] comes here.
//!
//! Reads regular files of bounded size and never follows a link at the end of a path: what stands in a bundle may have been put there by
//! the container's user.

use super::{Named, formats, mounts::Mounts};
use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// containerd's tasks: a folder a namespace, in it one a container.
const CONTAINERD: &str = "run/containerd/io.containerd.runtime.v2.task";
/// Docker's containers.
const DOCKER: &str = "var/lib/docker/containers";
/// Roots of containers/storage (Podman, CRI-O), as root; permanent and of this boot.
const STORAGE: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];
/// Where it is for other users (rootless Podman), below their homes.
const USER_STORAGE: &str = ".local/share/containers/storage";
/// Who has which home.
const USERS: &str = "etc/passwd";
/// Most users with such a folder.
const MOST_USERS: usize = 64;
/// Its storage drivers that a folder of containers is named after.
const DRIVERS: [&str; 3] = ["overlay", "vfs", "btrfs"];
/// Indexes in such a folder; containers that are removed when they end have their own.
const INDEXES: [&str; 2] = ["containers.json", "volatile-containers.json"];
/// The kubelet's links from containers to logs, and the logs by pod.
const LOG_LINKS: &str = "var/log/containers";
const POD_LOGS: &str = "var/log/pods";

/// Largest file of one container that is read, bytes.
const MOST_BYTES: u64 = 1 << 20;
/// Largest index, bytes.
const MOST_INDEX_BYTES: u64 = 16 << 20;
/// Most entries looked at in a folder.
const MOST_ENTRIES: usize = 16_384;
/// Most namespaces of containerd.
const MOST_NAMESPACES: usize = 64;
/// What is one file or folder for all containers is not read anew sooner.
const FRESH: Duration = Duration::from_secs(1);

/// Indexes of containers/storage, by path, with their time of change.
type Indexes = HashMap<PathBuf, (SystemTime, HashMap<String, Named>)>;

/// Reads below one root.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    indexes: Indexes,
    /// Those of users. They may say what they like, so they are asked last. Homes are looked at on this machine's own file systems only: others
    /// may not answer, and one that is mounted on demand must not be for this.
    user_indexes: Indexes,
    /// What the kubelet's logs say: containers by id, pods by uid.
    containers: HashMap<String, Named>,
    pods: HashMap<String, Named>,
    shared_read: Option<Instant>,
}

impl Disk {
    /// `root` is `/`, or where another host's is mounted.
    #[must_use]
    pub fn new(root: &Path) -> Disk {
        let root = root.to_owned();
        Disk {
            root,
            indexes: HashMap::new(),
            user_indexes: HashMap::new(),
            containers: HashMap::new(),
            pods: HashMap::new(),
            shared_read: None,
        }
    }

    /// All that is found of a container.
    pub fn container(&mut self, id: &str) -> Named {
        let mut found = Named::default();
        // It becomes part of paths.
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return found;
        }
        for named in self.files_of(id) {
            found.complete(named);
        }
        if !found.is_whole() {
            self.read_shared();
            let of = |indexes: &'_ Indexes| indexes.values().find_map(|(_, index)| index.get(id)).cloned();
            let told = [of(&self.indexes), self.containers.get(id).cloned(), of(&self.user_indexes)];
            for named in told.into_iter().flatten() {
                found.complete(named);
            }
        }
        found
    }

    /// Name and namespace of a pod, by its uid.
    pub fn pod(&mut self, uid: &str) -> Option<Named> {
        self.read_shared();
        self.pods.get(uid).cloned()
    }

    fn files_of(&self, id: &str) -> Vec<Named> {
        let tasks = self.root.join(CONTAINERD);
        let namespaces = names_in(&tasks, MOST_NAMESPACES);
        let of_tasks = namespaces.iter().map(|namespace| tasks.join(namespace).join(id).join("config.json"));
        let of_storage = STORAGE.iter().flat_map(|storage| {
            DRIVERS
                .iter()
                .map(move |driver| self.root.join(storage).join(format!("{driver}-containers")).join(id).join("userdata/config.json"))
        });
        let specs = of_tasks.chain(of_storage).filter_map(|path| formats::oci(&read(&path, MOST_BYTES)?));
        let docker = read(&self.root.join(DOCKER).join(id).join("config.v2.json"), MOST_BYTES);
        specs.chain(docker.and_then(|bytes| formats::docker(&bytes))).collect()
    }

    /// What is there for all containers together, if it was not read a moment ago.
    fn read_shared(&mut self) {
        if self.shared_read.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let of_root = STORAGE.iter().map(|storage| self.root.join(storage));
        of_root.flat_map(indexes_in).for_each(|path| read_index(&mut self.indexes, path, MOST_INDEX_BYTES));
        let of_users: Vec<PathBuf> = storages_of_users(&self.root).into_iter().flat_map(indexes_in).collect();
        self.user_indexes.retain(|path, _| of_users.contains(path));
        of_users.into_iter().for_each(|path| read_index(&mut self.user_indexes, path, MOST_BYTES));
        self.containers.clear();
        for link in names_in(&self.root.join(LOG_LINKS), MOST_ENTRIES) {
            let target = fs::read_link(self.root.join(LOG_LINKS).join(&link)).unwrap_or_default();
            if let Some((id, named)) = target.to_str().and_then(|target| formats::log_link(&link, target)) {
                self.containers.insert(id, named);
            }
        }
        let pods = names_in(&self.root.join(POD_LOGS), MOST_ENTRIES);
        let pods = pods.iter().filter_map(|name| formats::pod_log_directory(name));
        self.pods = pods.filter_map(|named| Some((named.pod_uid.clone()?, named))).collect();
        // Afterwards: what takes long to read is not read more often for it.
        self.shared_read = Some(Instant::now());
    }
}

/// The indexes that a storage may have.
fn indexes_in(storage: PathBuf) -> impl Iterator<Item = PathBuf> {
    let of_driver = move |driver| INDEXES.map(|index| storage.join(format!("{driver}-containers")).join(index));
    DRIVERS.into_iter().flat_map(of_driver)
}

/// Those of users other than root, as far as there are any on file systems that answer.
fn storages_of_users(root: &Path) -> Vec<PathBuf> {
    let Some(users) = read(&root.join(USERS), MOST_BYTES) else { return Vec::new() };
    let users = String::from_utf8_lossy(&users);
    let (root, mounts) = match (root.canonicalize(), Mounts::now()) {
        (Ok(root), Ok(mounts)) => (root, mounts),
        (Err(error), _) | (_, Err(error)) => {
            log::debug!("containers of users are not looked for: {error}");
            return Vec::new();
        }
    };
    let home = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let home = fields.get(5)?.strip_prefix('/').filter(|home| !home.is_empty() && !home.split('/').any(|part| part == ".."))?;
        (fields[2] != "0").then(|| mounts.resolve(&root, &Path::new(home).join(USER_STORAGE))).flatten()
    };
    let mut storages: Vec<PathBuf> = users.lines().filter_map(home).filter(|storage| storage.is_dir()).take(MOST_USERS).collect();
    storages.dedup();
    storages
}

fn read_index(indexes: &mut Indexes, path: PathBuf, most: u64) {
    let Some(changed) = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok() else {
        indexes.remove(&path);
        return;
    };
    if indexes.get(&path).is_some_and(|(known, _)| *known == changed) {
        return;
    }
    // One that is being written makes no sense for a moment: the old one stands until then.
    if let Some(index) = read(&path, most).and_then(|bytes| formats::storage_index(&bytes)) {
        indexes.insert(path, (changed, index));
    }
}

/// Names in a folder; those that are not UTF-8 are nobody's here.
fn names_in(folder: &Path, most: usize) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(most);
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// A whole regular file; `None` if there is none, or it is too large.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    // A named pipe would block.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).ok()?;
    let length = file.metadata().ok().filter(fs::Metadata::is_file)?.len();
    if length > most {
        log::warn!("{} has {length} bytes and is not read", path.display());
        return None;
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ID: &str = "9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e";
    const UID: &str = "6b21aa11-0c1d-4f3e-9a55-1234567890ab";

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(format!("{}/tests/fixtures/containers/{name}", env!("CARGO_MANIFEST_DIR")))
    }

    /// A root with these files, copied from fixtures.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, name) in files {
            let path = root.path().join(path.replace("{ID}", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(fixture(name), path).unwrap();
        }
        root
    }

    fn name_below(files: &[(&str, &str)]) -> Option<String> {
        Disk::new(root(files).path()).container(ID).name
    }

    #[test]
    fn every_runtimes_place_is_looked_at() {
        for (path, fixture, name) in [
            ("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json", "containerd-cri.json", "web"),
            ("run/containerd/io.containerd.runtime.v2.task/default/{ID}/config.json", "nerdctl.json", "db"),
            ("var/lib/docker/containers/{ID}/config.v2.json", "docker.json", "shop-db-1"),
            ("run/containers/storage/overlay-containers/{ID}/userdata/config.json", "crio.json", "web"),
            ("var/lib/containers/storage/overlay-containers/containers.json", "podman-containers.json", "sleepy_hopper"),
            ("var/lib/containers/storage/vfs-containers/volatile-containers.json", "podman-containers.json", "sleepy_hopper"),
        ] {
            assert_eq!(name_below(&[(path, fixture)]).as_deref(), Some(name), "{path}");
        }
        assert_eq!(name_below(&[]), None);
    }

    #[test]
    fn users_have_storage_in_their_homes_and_name_nobody_elses() {
        let storage = |place: &str| format!("{place}/vfs-containers/containers.json");
        let (user, of_root) = (storage("srv/ann/.local/share/containers/storage"), storage("var/lib/containers/storage"));
        let root = root(&[(&user, "podman-containers.json"), (&of_root, "podman-containers.json")]);
        let passwd = |homes: &str| {
            fs::create_dir_all(root.path().join("etc")).unwrap();
            fs::write(root.path().join(USERS), format!("root:x:0:0::/srv/ann:/bin/sh\nbad\n{homes}")).unwrap();
        };
        let named = || {
            let mut disk = Disk::new(root.path());
            disk.container(ID).name
        };
        let rename =
            |path: &str, name: &str| fs::write(root.path().join(path), format!(r#"[{{"id":"{ID}","names":["{name}"]}}]"#)).unwrap();
        rename(&user, "anns");
        passwd("ann:x:1000:1000::/srv/ann:/bin/sh\n");
        assert_eq!(named().as_deref(), Some("sleepy_hopper"), "what root's own storage says stands");
        fs::remove_file(root.path().join(&of_root)).unwrap();
        assert_eq!(named().as_deref(), Some("anns"));
        for homes in
            ["", "ann:x:1000:1000::/srv/other:/bin/sh\n", "ann:x:1000:1000::/srv/x/../ann:/bin/sh\n", "ann:x:0:0::/srv/ann:/bin/sh\n"]
        {
            passwd(homes);
            assert_eq!(named(), None, "{homes}");
        }
    }

    #[test]
    fn sources_complete_each_other() {
        let root = root(&[("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json", "containerd-cri.json")]);
        let links = root.path().join(LOG_LINKS);
        fs::create_dir_all(&links).unwrap();
        let target = format!("/var/log/pods/shop_cart-7_{UID}/web/3.log");
        std::os::unix::fs::symlink(target, links.join(format!("cart-7_shop_web-{ID}.log"))).unwrap();
        fs::create_dir_all(root.path().join(POD_LOGS).join(format!("shop_cart-7_{UID}"))).unwrap();
        let mut disk = Disk::new(root.path());
        let found = disk.container(ID);
        assert_eq!(
            (found.image.as_deref(), found.restart, found.pod.as_deref()),
            (Some("docker.io/library/nginx:1.27"), Some(3), Some("cart-7"))
        );
        assert_eq!(disk.pod(UID).unwrap().namespace.as_deref(), Some("shop"));
        assert_eq!(disk.pod("other"), None);
    }

    #[test]
    fn links_pipes_large_files_and_strange_ids_are_not_read() {
        let path = format!("{DOCKER}/{ID}/config.v2.json");
        let root = root(&[]);
        let file = root.path().join(&path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut disk = Disk::new(root.path());
        std::os::unix::fs::symlink(fixture("docker.json"), &file).unwrap();
        assert!(disk.container(ID).is_empty());
        fs::remove_file(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        assert!(disk.container(ID).is_empty());
        fs::remove_file(&file).unwrap();
        fs::File::create(&file).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert!(disk.container(ID).is_empty());
        for id in ["", "../../../../etc", "zz", &"0".repeat(65)] {
            assert!(disk.container(id).is_empty(), "{id}");
        }
    }

    #[test]
    fn a_changed_index_is_read_again_and_a_broken_one_leaves_the_old() {
        let path = "var/lib/containers/storage/overlay-containers/containers.json";
        let root = root(&[(path, "podman-containers.json")]);
        let mut disk = Disk::new(root.path());
        assert!(disk.container(ID).name.is_some());
        let rewrite = |text: &str, seconds: u64| {
            fs::write(root.path().join(path), text).unwrap();
            let file = fs::File::options().write(true).open(root.path().join(path)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        for (text, seconds, name) in
            [("[{", 1, Some("sleepy_hopper")), (&format!(r#"[{{"id":"{ID}","names":["new"]}}]"#), 2, Some("new")), ("[]", 3, None)]
        {
            rewrite(text, seconds);
            disk.shared_read = None;
            assert_eq!(disk.container(ID).name.as_deref(), name, "{text}");
        }
    }
}
