//! Containers by the names that people know, from what runtimes leave on disk.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::report;
use harness::workload::Workload;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// Ids of pods, as the kubelet makes them, and of containers.
pub const CART: &str = "6b21aa00-7c0f-4c5e-9a39-2f6a4d0e8b21";
pub const OTHER: &str = "6b21aa00-7c0f-4c5e-9a39-2f6a4d0e8b22";

/// Leaves what containerd leaves of a container below that root.
pub fn bundle(root: &Path, id: &str, name: &str, pod: &str, uid: &str) {
    let folder = root.join("run/containerd/io.containerd.runtime.v2.task/k8s.io").join(id);
    std::fs::create_dir_all(&folder).unwrap();
    let annotations = json!({
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": format!("registry.example/{name}:7"),
        "io.kubernetes.cri.sandbox-name": pod,
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-uid": uid,
    });
    std::fs::write(folder.join("config.json"), json!({ "ociVersion": "1.1.0", "annotations": annotations }).to_string()).unwrap();
}

/// The kubelet's link to a container's log.
fn log_link(root: &Path, id: &str, name: &str, pod: &str, uid: &str, restart: u32) {
    let links = root.join("var/log/containers");
    std::fs::create_dir_all(&links).unwrap();
    let target = format!("/var/log/pods/shop_{pod}_{uid}/{name}/{restart}.log");
    std::os::unix::fs::symlink(target, links.join(format!("{pod}_shop_{name}-{id}.log"))).unwrap();
}

fn with_names(root: &Path, more: &[&str]) -> Memtrail {
    let mut args = record_args("/unused", Mode::Default).split_off(2);
    args.extend(["--host-root", root.to_str().unwrap()].iter().chain(more).map(|arg| (*arg).to_owned()));
    Memtrail::start(&args).unwrap()
}

fn paths(outcome: &Outcome) -> Vec<&str> {
    outcome.report["cgroups"].as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap()).collect()
}

fn row<'a>(outcome: &'a Outcome, cgroup: &str) -> &'a Value {
    report::cgroup(&outcome.report, cgroup).unwrap().unwrap_or_else(|| panic!("no {cgroup} among {:?}", paths(outcome)))
}

fn touched(cgroup: &TestCgroup, bytes: u64) -> Workload {
    let mut workload = Workload::start(cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("touched").unwrap();
    workload
}

/// A node with two pods. One is asked for by its name: it is seen with a container that was there, with one that comes later, whose files
/// come later still, and with one that is gone by the end; the other pod is not. Each row says which limit is met first.
#[test]
#[ignore = "root"]
fn native_containers_of_a_pod_are_found_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    let above = TestCgroup::new("containers").unwrap();
    let (kubepods, burstable) = (above.child("kubepods").unwrap(), above.child("kubepods/burstable").unwrap());
    let (cart, other) = (burstable.child(&format!("pod{CART}")).unwrap(), burstable.child(&format!("pod{OTHER}")).unwrap());
    cart.limit(256 * MIB).unwrap();
    let [web, late, gone, db] = ["a1", "b2", "c3", "d4"].map(|byte| byte.repeat(32));
    bundle(root.path(), &web, "web", "cart-7", CART);
    log_link(root.path(), &web, "web", "cart-7", CART, 3);
    bundle(root.path(), &db, "db", "stock-1", OTHER);
    let (in_web, in_db) = (cart.child(&web).unwrap(), other.child(&db).unwrap());
    in_web.limit(512 * MIB).unwrap();

    let memtrail = with_names(root.path(), &["--pod", "shop/cart-*"]);
    let mut workloads = vec![touched(&in_web, 32 * MIB), touched(&in_db, 8 * MIB)];
    let in_late = cart.child(&late).unwrap();
    workloads.push(touched(&in_late, 16 * MIB));
    bundle(root.path(), &late, "sidecar", "cart-7", CART);
    bundle(root.path(), &gone, "init", "cart-7", CART);
    let mut in_gone = cart.child(&gone).unwrap();
    touched(&in_gone, 4 * MIB).finish().unwrap();
    in_gone.remove().unwrap();
    std::fs::remove_dir_all(root.path().join("run/containerd/io.containerd.runtime.v2.task/k8s.io").join(&gone)).unwrap();
    // Readings are a second apart, and so are the looks at what had no name.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let outcome = memtrail.stop().unwrap();

    for path in paths(&outcome) {
        assert!(path.starts_with(cart.path()), "{path} is of another pod");
    }
    for (cgroup, name, image, restart) in [
        (&in_web, Some("web"), Some("registry.example/web:7"), Some(3)),
        (&in_late, Some("sidecar"), Some("registry.example/sidecar:7"), None),
        (&in_gone, Some("init"), Some("registry.example/init:7"), None),
        (&cart, None, None, None),
    ] {
        let row = row(&outcome, cgroup.path());
        let text = |field: &str| row[field].as_str();
        assert_eq!((text("container_name"), text("image")), (name, image), "{row}");
        assert_eq!((text("pod_name"), text("namespace"), text("pod")), (Some("cart-7"), Some("shop"), Some(CART)), "{row}");
        assert_eq!(row["restart"].as_u64(), restart, "{row}");
    }
    assert_eq!(row(&outcome, in_gone.path())["state"], "dead");
    assert_eq!(row(&outcome, in_web.path())["container"], web.as_str());
    let charged = |cgroup: &TestCgroup| report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
    for (cgroup, bytes) in [(&in_web, 32 * MIB), (&in_late, 16 * MIB), (&in_gone, 4 * MIB)] {
        let (charged, stderr) = (charged(cgroup).charged.unwrap(), charged(cgroup).charged_stderr.unwrap());
        assert!(charged.abs_diff(bytes) <= 3 * stderr + MIB, "{}: {charged} ± {stderr} of {bytes}", cgroup.path());
    }
    // The pod has less room than its container.
    let binding = &row(&outcome, in_web.path())["binding_limit"];
    assert_eq!((binding["path"].as_str(), binding["limit_bytes"].as_u64()), (Some(cart.path()), Some(256 * MIB)), "{binding}");
    let limits: Vec<(&str, u64)> = row(&outcome, in_web.path())["limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| (limit["path"].as_str().unwrap(), limit["limit_bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(limits[..3], [(in_web.path(), 512 * MIB), (cart.path(), 256 * MIB), (above.path(), 1 << 30)]);
    drop((workloads, in_web, in_late, in_db, cart, other, burstable, kubepods));
}

/// By the container's name, and by the beginning of its id; a name that nothing has is an error at the end.
#[test]
#[ignore = "root"]
fn native_containers_are_found_by_name_and_id() {
    let root = tempfile::tempdir().unwrap();
    let above = TestCgroup::new("containers-id").unwrap();
    let docker = above.child("docker").unwrap();
    let [first, second] = ["e5", "f6"].map(|byte| docker.child(&byte.repeat(32)).unwrap());
    let folder = root.path().join("var/lib/docker/containers").join("e5".repeat(32));
    std::fs::create_dir_all(&folder).unwrap();
    let record = json!({ "Name": "/shop-db-1", "RestartCount": 2, "Config": { "Image": "postgres:16", "Labels": {} } });
    std::fs::write(folder.join("config.v2.json"), record.to_string()).unwrap();
    for container in ["shop-db-1", &"e5".repeat(6)] {
        let memtrail = with_names(root.path(), &["--container", container]);
        let workloads = (touched(&first, 8 * MIB), touched(&second, 8 * MIB));
        let outcome = memtrail.stop().unwrap();
        assert_eq!(paths(&outcome), [first.path()]);
        let row = row(&outcome, first.path());
        assert_eq!((row["container_name"].as_str(), row["image"].as_str()), (Some("shop-db-1"), Some("postgres:16")));
        assert_eq!((row["restart"].as_u64(), row["runtime"].as_str()), (Some(2), Some("docker")));
        drop(workloads);
    }
    let outcome = with_names(root.path(), &["--container", "no-such"]).stop().unwrap();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stderr.contains("container no-such"), "{}", outcome.stderr);
}

/// Runs a program of the container runtime; what it printed.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Podman with its storage in a folder of the test's own.
struct Podman {
    root: tempfile::TempDir,
}

impl Podman {
    fn new() -> Podman {
        // Not in a tmpfs, which overlay storage does not like.
        Podman { root: tempfile::tempdir_in("/var/tmp").unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        let at = |path: &str| self.root.path().join(path);
        command.args(["--cgroup-manager=cgroupfs", "--runtime=runc", "--storage-driver=vfs"]);
        command.arg("--root").arg(at("var/lib/containers/storage")).arg("--runroot").arg(at("run/containers/storage"));
        command.arg("--tmpdir").arg(at("tmp")).args(args);
        command
    }

    /// An image of one static program that touches 24 MiB and waits.
    fn image(&self, name: &str) {
        let source = self.root.path().join("hold.c");
        let (program, layer) = (self.root.path().join("hold"), self.root.path().join("layer.tar"));
        let text = "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
                    int main(void) { memset(malloc(24 << 20), 1, 24 << 20); for (;;) pause(); }\n";
        std::fs::write(&source, text).unwrap();
        run(Command::new("cc").args(["-static", "-O0", "-o"]).arg(&program).arg(&source));
        run(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(self.root.path()).arg("hold"));
        run(self.command(&["import"]).arg(&layer).arg(name));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What could not be removed stays in the folder for temporary files, which says so.
        for args in [&["rm", "--all", "--force", "--time=0"][..], &["rmi", "--all", "--force"]] {
            let _ = self.command(args).stdin(Stdio::null()).output();
        }
    }
}

/// A container that Podman runs is found by its name, and shown with it, its id and its image.
#[test]
#[ignore = "root, and podman, runc and cc"]
fn long_containers_of_podman() {
    let podman = Podman::new();
    podman.image("localhost/memtrail-test:1");
    // Without them it asks for more than it may have where CAP_SYS_RESOURCE is missing.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000", "--network=none"];
    let memtrail = with_names(podman.root.path(), &["--container", "memtrail-web"]);
    let start =
        |name: &str| run(podman.command(&["run", "--detach", "--name", name]).args(limits).args(["localhost/memtrail-test:1", "/hold"]));
    let (id, other) = (start("memtrail-web"), start("memtrail-other"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    let outcome = memtrail.stop().unwrap();
    println!("{id}: {:?}", paths(&outcome));
    for path in paths(&outcome) {
        assert!(path.contains(&id) && !path.contains(&other), "{path}");
    }
    let rows = outcome.report["cgroups"].as_array().unwrap();
    let row = rows.iter().max_by_key(|row| row["kinds"]["anon"]["charged"].as_u64()).unwrap();
    assert_eq!((row["container"].as_str(), row["container_name"].as_str()), (Some(id.as_str()), Some("memtrail-web")), "{row}");
    assert_eq!((row["image"].as_str(), row["runtime"].as_str()), (Some("localhost/memtrail-test:1"), Some("podman")));
    let anon = &row["kinds"]["anon"];
    let (charged, stderr) = (anon["charged"].as_u64().unwrap(), anon["charged_stderr"].as_u64().unwrap());
    println!("charged {charged} ± {stderr}; {}", outcome.stderr);
    assert!(charged.abs_diff(24 * MIB) <= 3 * stderr + 2 * MIB, "{charged} ± {stderr} of 24 MiB");
    // A second look by the beginning of the id, at what was there before.
    let outcome = with_names(podman.root.path(), &["--container", &id[..12]]).stop().unwrap();
    assert!(!paths(&outcome).is_empty() && paths(&outcome).iter().all(|path| path.contains(&id)), "{:?}", paths(&outcome));
}
