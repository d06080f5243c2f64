//! Tests on a real kernel: the machine's own, or the one of a VM that runs this same binary. They need root, and so are ignored unless
//! asked for: `cargo test -p memtrail-tests --test native -- --ignored`.
//!
//! `MEMTRAIL_TEST_PROVIDER` forces a provider, `MEMTRAIL_TEST_BYTES` limits the sizes, `MEMTRAIL_TEST_TABLE` collects the rows,
//! `MEMTRAIL_TEST_LIMIT` is the longest time of a test in seconds, see [`harness::watchdog`];
//! `MEMTRAIL_BIN` and `MEMTRAIL_WORKLOAD_BIN` name programs that are not in the target folder.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod accuracy;
mod allocators;
mod beside;
mod calibration;
mod churn;
mod collapse;
mod command;
mod containers;
mod counters;
mod diagnosis;
mod diff;
mod dirty;
mod events;
mod files;
mod first_screen;
mod follow;
mod freeze;
mod fuzz;
mod histograms;
mod hugetlb;
mod hung;
mod input;
mod java;
mod javascript;
mod jvm;
mod lifecycle;
mod losses;
mod mappings;
mod mark;
mod missed;
mod mounts;
mod moved;
mod namespace;
mod naming;
mod nested;
mod node;
mod occupancy;
mod oom;
mod oom_evidence;
mod oom_host;
mod oom_loops;
mod owners;
mod packages;
mod privileges;
mod python;
mod rates;
mod regions;
mod serve;
mod snapshots;
mod stacks;
mod stream;
mod swap;
mod threads;
mod top;
mod unwinding;
mod verdicts;
mod waits;
mod workload_truth;
