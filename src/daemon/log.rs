//! Ordinary logs: to journald when the service manager connected us to it, else to standard error.

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging for this process; VAMBRACE_LOG is error, warn, info, debug or trace.
pub(crate) fn start() {
    let level = std::env::var("VAMBRACE_LOG").ok().and_then(|l| l.parse::<Level>().ok()).unwrap_or(Level::INFO);
    let filter = LevelFilter::from_level(level);
    // systemd sets JOURNAL_STREAM when standard error goes to journald already: then send fields, not lines.
    let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let registry = tracing_subscriber::registry().with(filter);
    let started = match journald {
        Some(layer) => registry.with(layer.with_syslog_identifier("vambrace".into())).try_init(),
        None => {
            use std::io::IsTerminal;
            // https://no-color.org
            let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let plain = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal() && !is_plain)
                .with_target(false);
            registry.with(plain).try_init()
        }
    };
    // A second start in one process changes nothing.
    let _ = started;
}
