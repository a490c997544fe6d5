//! What `make fuzz` drives: readers of bytes that strangers send. Built for fuzzing alone.

use crate::auth;
use crate::wire::{self, Incoming};

/// The frame decoder, and behind it every method's parameters and `connect`.
pub fn frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Incoming::Request(frame) = Incoming::read(text) {
        let _ = wire::action(&frame);
        if let Ok(params) = wire::ConnectParams::read(frame.params.as_deref()) {
            let _ = (params.role(), params.scopes().map(|scopes| scopes.names()));
        }
    }
}

/// The reader of a proxy's headers: two `X-Forwarded-For` and a user, separated by line feeds.
pub fn proxy(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |b| *b == b'\n');
    let (a, b, user) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    auth::fuzz_proxy(a, b, user);
}

/// The reader of a signed request's fields.
pub fn signature(bytes: &[u8]) {
    auth::fuzz_signature(&String::from_utf8_lossy(bytes));
}
