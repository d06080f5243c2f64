//! Harness for tests that trace real workloads.
