//! A machine that does something else while a test runs: `memtrail-workload beside` in cgroups of its own.

use crate::{cgroup::TestCgroup, place::Folder, workload::Workload};
use anyhow::{Context, Result, ensure};

/// Of all that it does together; beyond it the load fails, not the machine.
const LIMIT_BYTES: u64 = 192 << 20;
/// What ends the processes that are to be killed by a limit.
const OOM_LIMIT_BYTES: u64 = 16 << 20;
/// It ends by itself then, should the test not end it: longer than any test's limit in the short form.
const MILLISECONDS: &str = "900000";

/// A load beside a test; ended when dropped.
#[derive(Debug)]
pub struct Load {
    // Before its cgroups and files: fields are dropped in this order.
    workload: Workload,
    has_uring: bool,
    oom: Option<TestCgroup>,
    _work: TestCgroup,
    _parent: TestCgroup,
    _folder: Folder,
}

impl Load {
    /// Starts it: short processes, kills, page cache and io_uring, and kills at a limit if asked for.
    pub fn start(with_oom_kills: bool) -> Result<Load> {
        let folder = Folder::new("beside")?;
        let parent = TestCgroup::new("beside")?;
        parent.limit(LIMIT_BYTES)?;
        let work = parent.child("work")?;
        let oom = with_oom_kills.then(|| parent.child("oom")).transpose()?;
        let dir = folder.path().display().to_string();
        let mut args = vec!["beside".to_owned(), "--milliseconds".to_owned(), MILLISECONDS.to_owned(), "--dir".to_owned(), dir];
        if let Some(oom) = &oom {
            oom.limit(OOM_LIMIT_BYTES)?;
            args.extend(["--cgroup".to_owned(), oom.directory().display().to_string()]);
        }
        let mut workload = Workload::start(&work, &args)?;
        let steps = workload.run_to("ready")?;
        let has_uring = steps.last().and_then(|step| step.figures.get("has_uring")?.as_f64()).context("has_uring of the load")? > 0.0;
        Ok(Load { workload, has_uring, oom, _work: work, _parent: parent, _folder: folder })
    }

    /// Ends it. An error if it did not do all along what it is for.
    pub fn end(mut self) -> Result<()> {
        let steps = self.workload.run_to("ended")?;
        self.workload.finish()?;
        let figures = &steps.last().context("no step")?.figures;
        println!("beside: {figures:?}{}", if self.has_uring { "" } else { "; this kernel lets nobody use io_uring" });
        let did = |what: &str| figures.get(what).and_then(serde_json::Value::as_f64).with_context(|| format!("{what} of the load"));
        for (what, is_asked) in
            [("forks", true), ("kills", true), ("file_bytes", true), ("uring_calls", self.has_uring), ("oom_kills", self.oom.is_some())]
        {
            ensure!(!is_asked || did(what)? > 0.0, "there were no {what} beside the test");
        }
        Ok(())
    }
}
