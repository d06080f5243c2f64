//! Workloads with known bytes.
fn main() {}
