//! The memtrail binary.
fn main() {}
