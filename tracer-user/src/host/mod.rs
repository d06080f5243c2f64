//! Facts about this host, its kernel, and what this process may do on it; and the files that it makes.

pub mod append;
pub mod clock;
pub mod elf;
pub mod kernel;
mod lock;
pub mod meminfo;
pub mod pclntab;
pub mod phases;
pub mod privileges;
pub mod proc;
pub mod write;

pub use lock::lock;
