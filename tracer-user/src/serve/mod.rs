//! A running trace by HTTP: metrics, profiles, OOM kills, reports. Reading only; nothing can be changed through it.
//!
//! The trace belongs to the collector's thread. The HTTP side is one thread of its own, which holds no capability, and asks the collector for
//! looks at the trace; whoever asks at the same time gets the same look. Every bound is here: connections, bytes and time of a request,
//! answers that are made at once.
//!
//! | file | what |
//! |---|---|
//! | [`look`] | looks at the trace: how they are asked for, and what they hold |
//! | [`kills`] | OOM kills since the start, by whose they were |
//! | [`access`] | who may ask: hosts, tokens, methods (pure) |
//! | [`route`] | what is asked: paths and queries (pure) |
//! | [`answer`] | what is answered |
//! | [`page`] | the page that a browser gets (pure) |
//! | [`server`] | connections and their bounds |
//! | [`window`] | the recordings on disk: the last hours |
//! | [`notify`] | telling systemd that all is well |
//! | [`client`] | asking another memtrail |

pub mod access;
pub mod answer;
pub mod client;
pub mod kills;
pub mod look;
pub mod notify;
pub mod page;
pub mod route;
pub mod server;
pub mod window;

/// Where a memtrail that serves listens for others on the same host.
pub const SOCKET: &str = "/run/memtrail-serve/serve.sock";
