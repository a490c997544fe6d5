//! The one way out of a sandbox whose network is an allowlist: `vambrace egress`, a process for each run.
//!
//! The command's network namespace has loopback alone. Names are asked of a server at 127.0.0.1:53, which answers with a
//! stand-in address; every stand-in is delivered locally, to listeners on the allowed ports. Name server and listeners
//! are sockets of that namespace, handed to this process outside of it: it knows the name behind each stand-in and joins
//! the connection to the addresses the host's resolver gave. Nothing else leads out, so no program needs to know a proxy.
//!
//! `confine` builds the process's own walls, and `elsewhere` in its place none: then nothing is served.
//! `allow`, `addresses`, `dns`, `pins` and `order` are pure; `names` and `relay` move bytes; `serve` is the process.
//! Knows nothing of walls, runs or journals. Keeps true: no byte leaves towards an address that was not resolved for an
//! allowed name and is not public.

mod addresses;
mod allow;
#[cfg(target_os = "linux")]
mod confine;
#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
mod confine;
mod desk;
mod dns;
mod names;
mod order;
mod outbox;
mod pins;
mod relay;
mod serve;

pub(crate) use order::{Order, Report, Reports};
pub(crate) use serve::ENVIRONMENT;
pub(crate) use serve::serve_inherited;
