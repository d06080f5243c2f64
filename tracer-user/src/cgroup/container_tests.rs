use super::*;

const A: &str = "9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e";
const B: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const UID: &str = "6b21aa11-0c1d-4f3e-9a55-1234567890ab";
const UID_: &str = "6b21aa11_0c1d_4f3e_9a55_1234567890ab";
const STATIC: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

type Expected<'a> = (Option<&'a str>, Option<&'a str>, Option<Runtime>, Option<Qos>);

fn check(path: &str, expected: Option<Expected<'_>>) {
    let path = path.replace("{A}", A).replace("{B}", B).replace("{UID}", UID).replace("{UID_}", UID_).replace("{STATIC}", STATIC);
    let found = identify(&CgroupPath::from_bytes(path.as_bytes()).unwrap());
    let expected = expected.map(|(pod, container, runtime, qos)| Identity {
        pod: pod.map(str::to_owned),
        container: container.map(str::to_owned),
        runtime,
        qos,
    });
    assert_eq!(found, expected, "{path}");
}

#[test]
fn kubernetes_cgroupfs() {
    check("/kubepods/burstable/pod{UID}/{A}", Some((Some(UID), Some(A), None, Some(Qos::Burstable))));
    check("/kubepods/besteffort/pod{UID}/{A}", Some((Some(UID), Some(A), None, Some(Qos::BestEffort))));
    check("/kubepods/pod{UID}/{A}", Some((Some(UID), Some(A), None, Some(Qos::Guaranteed))));
    check("/kubepods/pod{UID}/crio-{A}", Some((Some(UID), Some(A), Some(Runtime::CriO), Some(Qos::Guaranteed))));
    check("/kubepods/burstable/pod{UID}", Some((Some(UID), None, None, Some(Qos::Burstable))));
    check("/kubepods/burstable/pod{STATIC}/{A}", Some((Some(STATIC), Some(A), None, Some(Qos::Burstable))));
}

#[test]
fn kubernetes_systemd() {
    check(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope",
        Some((Some(UID), Some(A), Some(Runtime::Containerd), Some(Qos::Burstable))),
    );
    check(
        "/kubepods.slice/kubepods-pod{UID_}.slice/docker-{A}.scope",
        Some((Some(UID), Some(A), Some(Runtime::Docker), Some(Qos::Guaranteed))),
    );
    check(
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-{A}.scope/container",
        Some((Some(UID), Some(A), Some(Runtime::CriO), Some(Qos::BestEffort))),
    );
    check("/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{A}.scope", Some((Some(UID), None, None, Some(Qos::Guaranteed))));
    check(
        "/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{A}",
        Some((Some(UID), Some(A), Some(Runtime::Containerd), Some(Qos::Burstable))),
    );
}

#[test]
fn containers_in_containers_count_as_the_innermost_pod() {
    check("/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}", Some((Some(UID), Some(A), None, Some(Qos::Burstable))));
    check(
        "/system.slice/docker-{B}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
         kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{A}.scope",
        Some((Some(UID), Some(A), Some(Runtime::Containerd), Some(Qos::BestEffort))),
    );
    // The node itself, and a service in it.
    check("/docker/{B}/kubelet.slice/kubelet.service", Some((None, Some(B), Some(Runtime::Docker), None)));
    // A container that a pod's payload runs stays the pod's container; without a pod the innermost is meant.
    check("/kubepods/pod{UID}/{A}/docker/{B}", Some((Some(UID), Some(A), None, Some(Qos::Guaranteed))));
    check("/docker/{A}/docker/{B}", Some((None, Some(B), Some(Runtime::Docker), None)));
}

#[test]
fn engines_without_kubernetes() {
    check("/docker/{A}", Some((None, Some(A), Some(Runtime::Docker), None)));
    check("/docker/{A}/init.scope", Some((None, Some(A), Some(Runtime::Docker), None)));
    check("/system.slice/docker-{A}.scope", Some((None, Some(A), Some(Runtime::Docker), None)));
    check("/default/{A}", Some((None, Some(A), Some(Runtime::Containerd), None)));
    check("/system.slice/nerdctl-{A}.scope", Some((None, Some(A), Some(Runtime::Containerd), None)));
    check("/libpod_parent/libpod-{A}", Some((None, Some(A), Some(Runtime::Podman), None)));
    check("/machine.slice/libpod-{A}.scope/container", Some((None, Some(A), Some(Runtime::Podman), None)));
    check("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", Some((None, Some(A), Some(Runtime::Podman), None)));
    check("/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", Some((Some(B), Some(A), Some(Runtime::Podman), None)));
    check("/libpod_parent/{B}/libpod-{A}", Some((None, Some(A), Some(Runtime::Podman), None)));
}

#[test]
fn neither_pod_nor_container() {
    for path in [
        "/",
        "/init.scope",
        "/system.slice/docker.service",
        "/system.slice/docker-compose.service",
        "/kubepods",
        "/kubepods.slice/kubepods-burstable.slice",
        "/user.slice/pod{UID}",
        "/{A}",
        "/libpod_parent",
        "/libpod_parent/conmon",
        "/machine.slice/libpod-conmon-{A}.scope",
        "/notkubepods/pod{UID}",
        "/kubepods/podzzzzzzzzzzzz",
        "/docker/not-an-id",
        "/docker",
        "/a:b:c",
    ] {
        check(path, None);
    }
    assert_eq!(identify(&CgroupPath::root().join(b"\xff\xfe").join(b"docker-\xff.scope")), None);
}
