//! Connections of a sandbox whose network is an allowlist, as records: every one, and every name that was refused.

use crate::egress::Report;
use crate::journal::{Event, Record};

/// The record of what the way out reports; `None` for a name that resolved, which its connections say again.
pub(super) fn record(report: &Report) -> Option<Record> {
    let shown = |name: &Option<String>| name.clone().unwrap_or_else(|| "no name".into());
    Some(match report {
        Report::Resolved { .. } => return None,
        Report::Connected { name, port, address } => Record::new(Event::NetConnected)
            .about(&format!("{name}:{port} at {address}"))
            .decided("permit", "allow_domains"),
        Report::RefusedName { name, why } => {
            Record::new(Event::NetRefused).about(name).decided("deny", "allow_domains").error(why)
        }
        Report::RefusedConnection { name, port, address, why } => Record::new(Event::NetRefused)
            .about(&format!("{}:{port} at {address}", shown(name)))
            .decided("deny", "allow_domains")
            .error(why),
        Report::Failed { name, port, address, why } => {
            Record::new(Event::NetFailed).about(&format!("{name}:{port} at {address}")).error(why)
        }
        Report::Dropped { count } => Record::new(Event::NetRefused)
            .error(&format!("{count} more connections or names were not recorded one by one")),
    })
}
