//! Tests on the machine's own kernel. They need root, and so are ignored unless asked for:
//! `cargo test -p memtrail-tests --test native -- --ignored`.

mod workload_truth;
