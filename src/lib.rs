//! Vambrace: armour for the arm that does the work.
//!
//! One package, one library, one binary. The rooms stand below, floor by floor, lowest first.
//! A room may use rooms of earlier paragraphs only; rooms of one paragraph do not know each
//! other. `tests/architecture.rs` reads this list and checks every `use crate::…`.

// These macros panic where nothing can be written any more, on a full disk for one: `cli::render` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// Floor 0, nouns: what everybody speaks of. No I/O, no async, no serde.
mod model;

// Floor 1, tools: bytes, the kernel, the protocol's spelling.
mod crypto;
#[allow(unsafe_code)]
mod os;
mod redact;
mod wire;

// Floor 2, rules: what may be done, what is kept, what has happened.
mod journal;
mod policy;
mod store;

// Floor 3, hands: who knocks, the walls, the one way out of them, the secrets of agents, a voice to speak to a gateway.
mod auth;
mod client;
mod egress;
mod sandbox;
mod secrets;

// Floor 4, runner: the other process.
mod runner;

// Floor 5, corridor: one request from frame to answer.
mod gateway;

// Floor 6, doors: sockets, HTTP, WebSocket.
mod server;

// Floor 7, whole: the rooms' settings, found, read and composed.
mod config;

// Floor 8, keepers: the composition root and the process's own life; the program as a service of its host.
mod daemon;
mod service;

// Floor 9, bell: arguments and rendering; the only room that prints.
mod cli;

pub use cli::main;

#[cfg(fuzzing)]
#[allow(missing_docs)]
pub mod fuzz;
