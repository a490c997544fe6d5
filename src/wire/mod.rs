//! The protocol's spelling: frames, handshake, parameters and results, strictly read.
//!
//! The only room that knows JSON on the wire. Unknown fields, duplicate keys and wrong types are
//! errors; what passes becomes a `model::Action`. Source: protocol 4 of the OpenClaw gateway, in
//! our own words; our own methods are `exec.*`, `journal.*` and `token.*`.

pub(crate) mod bytes;
mod connect;
mod control;
mod frame;
mod methods;
mod pairing;
mod results;
mod secrets;
mod whois;

pub(crate) use connect::{AuthParams, ClientInfo, ConnectParams, DeviceParams, HelloOk, HelloParts, signed_payload};
pub(crate) use frame::{Close, ErrorCode, ErrorShape, Frame, Incoming, close, event, request, response};
pub(crate) use methods::{EVENTS, Invalid, METHODS, action};
pub(crate) use results::{ExecResult, OutputEvent, enforcement_json};
pub(crate) use whois::tailnet_login;

/// The protocol version spoken.
pub(crate) const PROTOCOL: u32 = 4;

/// The lowest version a probe or a node may offer.
pub(crate) const LEAST_PROBE_PROTOCOL: u32 = 3;

/// Largest frame before authentication, in bytes.
pub(crate) const MAX_PREAUTH_FRAME: usize = 65_536;

/// Largest frame after authentication, in bytes.
pub(crate) const MAX_FRAME: usize = 26_214_400;

/// Most bytes queued for one socket.
pub(crate) const MAX_BUFFERED: usize = 52_428_800;

/// Milliseconds between two `tick` events.
pub(crate) const TICK_MS: u64 = 30_000;
