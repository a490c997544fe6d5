//! What the service manager is told of us (sd_notify(3)); nothing where there is none.

use sd_notify::NotifyState;

/// Commands can be run, or what is missing is in the status.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; ends with `ready`.
pub(super) fn reloading() {
    // Since systemd 253 the one is nothing without the other.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// We live, and requests are answered.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The gateway does not run, and why: what `systemctl status` shows of a unit that has failed.
pub(crate) fn tell_failure(why: &str) {
    tell(&[NotifyState::Status(&format!("failed: {}", first_line(why)))]);
}

/// A status is one line; a longer one would be read as further words of the protocol.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn tell(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
