//! `memtrail top`: what fills which container, seen live, in a terminal. Pure: reports and keys in, lines out; who reads keys and reports is
//! `cli/top`.
//!
//! | file | what |
//! |---|---|
//! | [`state`] | which screen is shown, and what keys do |
//! | [`rows`] | containers and cgroups as rows, sorted and filtered |
//! | [`flame`] | stacks as a tree of boxes |
//! | [`screens`] | what each screen shows |
//! | [`theme`] | colours, and signs beside them |

pub mod flame;
pub mod rows;
pub mod screens;
pub mod state;
pub mod theme;
