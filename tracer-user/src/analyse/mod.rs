//! From tables and readings to what a person is told: accounts, rows, verdicts, autopsies, comparisons.

pub mod accounts;
pub mod before;
pub mod common;
pub mod comparison;
pub mod figures;
pub mod naming;
pub mod oom;
pub mod rows;
pub mod verdicts;
