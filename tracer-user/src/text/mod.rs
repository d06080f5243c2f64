//! Names, sizes, times and patterns as text: the ground floor. Pure; it knows nothing of what the text is about.

mod columns;
pub mod date;
mod escape;
pub mod glob;
pub mod source;
pub mod units;
pub mod xml;

pub use columns::{cut_middle, pad_left, pad_right, width, wrap};
pub use escape::{escape, escape_bytes, hex};
