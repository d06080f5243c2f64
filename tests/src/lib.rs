//! Harness for tests that trace real workloads.
//!
//! * [`hierarchy`]: where the memory controller is, v1 or v2.
//! * [`cgroup`]: a memory cgroup of a test's own, removed when dropped.
//! * [`stat`]: `memory.stat` as numbers and as kinds that mean the same on v1 and v2.
//! * [`workload`]: `memtrail-workload` in such a cgroup, step by step.
//! * [`place`]: files that are not in the page cache, and a tmpfs of a test's own.
//! * [`fuse`]: a file system whose server stops answering.
//! * [`memtrail`]: the tracer as a process, and its JSON report.
//! * [`report`]: questions to that report.
//! * [`kernel`]: what the running kernel can do, as far as bounds depend on it.
//! * [`nmt`]: a JVM's own account, and what of it is resident.
//! * [`pagemap`]: the pages of a process.
//! * [`load`]: what else a machine does while a test runs.
//! * [`signals`]: the dispositions that children begin with.
//! * [`watchdog`]: a time limit for every test.
//! * [`accuracy`]: the accuracy table, as data, and what runs a row of it.
//!
//! It never kills a process that it did not start, and never touches a cgroup outside its own folder.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking"))]

pub mod accuracy;
pub mod cgroup;
pub mod child;
pub mod fuse;
pub mod hierarchy;
pub mod kernel;
pub mod load;
pub mod memtrail;
pub mod nmt;
pub mod pagemap;
pub mod place;
pub mod report;
pub mod serve;
pub mod signals;
pub mod stat;
pub mod watchdog;
pub mod workload;
