//! Takes the stored snapshots that tests of the analysis run on (tracer-user/tests/fixtures/snapshots), on the kernel that it runs on.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use harness::{
    cgroup::TestCgroup,
    memtrail::{Memtrail, Mode, providers, record_args_of},
    place::{Folder, Tmpfs},
    workload::Workload,
};

/// Bytes of each workload.
const EACH: &str = "4194304";

/// A cgroup with heap, arenas, page cache, tmpfs and one that is removed with a file left, by each provider. Prints a line for each snapshot:
/// `SNAPSHOT <provider> <base64>`. It fails if a snapshot cannot be read back, or its report lacks what was made.
#[test]
#[ignore = "takes fixtures"]
fn capture_snapshots() {
    for provider in providers() {
        let (tmpfs, folder) = (Tmpfs::new("snapshots").unwrap(), Folder::new("snapshots-files").unwrap());
        let top = TestCgroup::new("snapshots").unwrap();
        let [heap, arenas, cache] = ["heap", "arenas", "cache"].map(|name| top.child(name).unwrap());
        let mut gone = top.child("gone").unwrap();
        let stored = folder.path().join("stored.mtsnap");
        let mut args = record_args_of(&[top.path()], Mode::Default, provider.as_deref());
        args.extend(["--snapshot".to_owned(), stored.to_str().unwrap().to_owned()]);
        let memtrail = Memtrail::start(&args).unwrap();
        let mut living = [
            Workload::start(&heap, &["anon", "--bytes", EACH]).unwrap(),
            Workload::start(&arenas, &["regions", "--bytes", EACH, "--threads", "2"]).unwrap(),
            Workload::start(&cache, &["file", "--dir", folder.path().to_str().unwrap(), "--bytes", EACH]).unwrap(),
        ];
        for (workload, step) in living.iter_mut().zip(["touched", "filled", "written"]) {
            workload.run_to(step).unwrap();
        }
        Workload::start(&gone, &["tmpfs", "--keep", "--dir", tmpfs.path().to_str().unwrap(), "--bytes", EACH]).unwrap().finish().unwrap();
        let gone_path = gone.path().to_owned();
        gone.remove().unwrap();
        top.settled_kinds().unwrap();
        let outcome = memtrail.stop().unwrap();
        assert!(outcome.report["cgroups"].as_array().unwrap().iter().any(|row| row["path"] == gone_path.as_str()), "{}", outcome.stderr);
        let bytes = std::fs::read(&stored).unwrap();
        let snapshot = memtrail::recording::stored::read(&stored).unwrap();
        assert!(!snapshot.charges.samples.is_empty() && !snapshot.names.frames.is_empty());
        println!("SNAPSHOT {} {}", provider.as_deref().unwrap_or("best"), BASE64_STANDARD.encode(bytes));
    }
}
