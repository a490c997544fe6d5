//! The other process: orders in, outcomes out.
//!
//! `order` is the only format between gateway and runner, `serve` the runner's side, `client` the
//! gateway's; `pump` carries one native run, `relay` passes one on into a container, within `bounds`; both with their `streams`, its `way_out` to the network and its `disk` bound. The runner has no listener on the network and holds no secret; it takes orders from the
//! gateway's uid alone. When either side goes, every sandbox of that connection ends.

mod bounds;
mod client;
mod disk;
mod finished;
mod framing;
mod inbox;
mod line;
mod order;
mod pump;
mod relay;
mod runners;
mod serve;
mod shared_way;
mod spawner;
mod streams;
mod trees;
mod way_out;

pub(crate) use client::{Client, Remote, RunEvent, RunHandle, RunnerState, Supply};
pub(crate) use runners::Runners;
pub(crate) use serve::{Around, With, rest, serve_in_container, serve_inherited, serve_socket};
pub(crate) use spawner::Spawner;
pub(crate) use way_out::{Helpers, WayOut};
