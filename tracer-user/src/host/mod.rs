//! Facts about this host, its kernel, and what this process may do on it.

pub mod clock;
pub mod kernel;
pub mod phases;
pub mod privileges;
pub mod proc;
