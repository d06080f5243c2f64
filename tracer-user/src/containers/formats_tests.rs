#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const ID: &str = "9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e";
const UID: &str = "6b21aa11-0c1d-4f3e-9a55-1234567890ab";

fn of(name: &str, image: &str, restart: Option<u32>) -> Named {
    Named { name: Some(name.into()), image: Some(image.into()), restart, ..Named::default() }
}

fn in_pod(named: Named) -> Named {
    Named { pod: Some("cart-7".into()), namespace: Some("shop".into()), pod_uid: Some(UID.into()), ..named }
}

/// Each fixture is cut down from what the runtime writes, keys and nesting as they are.
#[test]
fn each_runtimes_file_is_understood() {
    let fixture = |name: &str| std::fs::read(format!("{}/tests/fixtures/containers/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert_eq!(oci(&fixture("containerd-cri.json")), Some(in_pod(of("web", "docker.io/library/nginx:1.27", None))));
    let sandbox = Named { name: None, sandbox: true, ..in_pod(of("", "registry.k8s.io/pause:3.9", None)) };
    assert_eq!(oci(&fixture("containerd-sandbox.json")), Some(Named { image: None, ..sandbox }));
    assert_eq!(oci(&fixture("crio.json")), Some(in_pod(of("web", "quay.io/shop/web:7", Some(4)))));
    assert_eq!(oci(&fixture("nerdctl.json")), Some(Named { image: None, ..of("db", "", None) }));
    assert_eq!(oci(&fixture("podman.json")), None, "Podman keeps its names elsewhere");
    assert_eq!(docker(&fixture("docker.json")), Some(of("shop-db-1", "postgres:16", Some(2))));
    assert_eq!(docker(&fixture("docker-kubernetes.json")), Some(in_pod(of("web", "sha256:1b2c", Some(3)))));
    let index = storage_index(&fixture("podman-containers.json")).unwrap();
    assert_eq!(index[ID], of("sleepy_hopper", "docker.io/library/nginx:1.27.4", None));
    assert_eq!(index[&"0".repeat(64)], of("web", "quay.io/shop/web:7", None));
}

#[test]
fn the_kubelets_log_names_tell_pod_container_and_restarts() {
    let link = format!("cart-7_shop_web-{ID}.log");
    let target = format!("/var/log/pods/shop_cart-7_{UID}/web/3.log");
    let expected = Named { image: None, ..in_pod(of("web", "", Some(3))) };
    assert_eq!(log_link(&link, &target), Some((ID.to_owned(), expected)));
    for (link, target) in [
        (format!("cart-8_shop_web-{ID}.log"), target.clone()),
        (format!("cart-7_shop_web-{ID}"), target.clone()),
        (format!("cart-7_shop-{ID}.log"), target.clone()),
        ("cart-7_shop_web-xyz.log".to_owned(), target.clone()),
        (link.clone(), "/var/log/pods/x/web/3.log".to_owned()),
        (link.clone(), format!("/var/log/pods/shop_cart-7_{UID}/web/three.log")),
        (link.clone(), String::new()),
        (String::new(), target),
    ] {
        assert_eq!(log_link(&link, &target), None, "{link} {target}");
    }
    assert_eq!(pod_log_directory("a_b_c_d"), None);
    assert_eq!(pod_log_directory("a__c"), None);
}

#[test]
fn what_is_no_such_file_is_nothing_and_breaks_nothing() {
    let deep = "[".repeat(100_000);
    for bytes in ["", "{}", "null", "[]", "{\"annotations\":null}", "{\"annotations\":{\"a\":1}}", "{\"Config\":7}", "\u{0}", deep.as_str()]
    {
        assert_eq!(oci(bytes.as_bytes()), None, "{bytes:.20}");
        assert_eq!(docker(bytes.as_bytes()), None, "{bytes:.20}");
        assert!(storage_index(bytes.as_bytes()).is_none_or(|index| index.is_empty()), "{bytes:.20}");
    }
    assert_eq!(oci(b"\xff\xfe"), None);
    // Inner JSON that is none is passed over; what stands beside it counts.
    let broken = r#"{"annotations":{"io.kubernetes.cri-o.Labels":"{","io.kubernetes.cri-o.KubeName":"p"}}"#;
    assert_eq!(oci(broken.as_bytes()).unwrap().pod.as_deref(), Some("p"));
}

#[test]
fn long_names_are_cut_between_characters() {
    let long = "ä".repeat(LONGEST);
    let spec = serde_json::json!({ "annotations": { "io.kubernetes.cri.container-name": long } });
    let name = oci(spec.to_string().as_bytes()).unwrap().name.unwrap();
    assert_eq!(name.len(), LONGEST);
    assert!(long.starts_with(&name));
}
