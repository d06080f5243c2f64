//! Facts about the running kernel: what it is, what it has, where it keeps things. I/O here, decisions above.

pub mod btf;
pub mod facts;
pub mod targets;
