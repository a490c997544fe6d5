//! What `journalctl -x` says beside a record: the message catalog of systemd, an entry for each event.

use super::record::Event;
use std::fmt::Write as _;

/// What an event is, in a line; and what it means, with what to do where there is something.
///
/// Every event has an arm, or this does not compile. `@FIELD@` is filled in by journalctl.
fn text(event: Event) -> (&'static str, &'static str) {
    match event {
        Event::GatewayStarted => ("The gateway has started", "The chain of records goes on from here."),
        Event::GatewayStopped => (
            "The gateway has stopped",
            "A start without this record before it means that the last stop was no orderly one.",
        ),
        Event::ConfigReloaded => (
            "The configuration was read again",
            "It was whole and is in force; what needs a restart is in the gateway's log.",
        ),
        Event::ConfigRefused => (
            "The configuration could not be used and nothing was changed",
            "@VAMBRACE_ERROR@. vambrace config check shows the place. What was in force before is in force still.",
        ),
        Event::JournalMended => (
            "The journal's last record was cut short and is gone",
            "The host or the gateway ended while it was written. Everything before it is whole: vambrace journal verify.",
        ),
        Event::RunnerRestarted => (
            "A runner was lost and is connected again",
            "Every command that it ran has ended with it. The runner's own log tells why: journalctl -u 'vambrace-runner*'.",
        ),
        Event::AuthRefused => (
            "Somebody was not let in",
            "From @VAMBRACE_FROM@. Many of these from one place are somebody who guesses; the place is locked out for a while.",
        ),
        Event::RequestDenied => (
            "A request was refused",
            "@VAMBRACE_PRINCIPAL@ asked for what it may not: @VAMBRACE_RULE@. vambrace devices list shows who may what.",
        ),
        Event::TokenShown => ("The gateway's token was shown", "To @VAMBRACE_PRINCIPAL@."),
        Event::TokenRotated => ("The gateway's token was replaced", "The old one opens nothing any more."),
        Event::PasswordSet => ("The gateway's password was set", "The old one opens nothing any more."),
        Event::DeviceRequested => (
            "A device waits for approval",
            "vambrace devices list shows what it asks for, vambrace devices approve @VAMBRACE_TARGET@ lets it in.",
        ),
        Event::DevicePaired => {
            ("A device was paired", "By a setup code, or because it is the operator's own on this host.")
        }
        Event::DeviceApproved => {
            ("A device was approved", "By @VAMBRACE_PRINCIPAL@. vambrace devices revoke takes it back.")
        }
        Event::DeviceRejected => ("A device was refused", "By @VAMBRACE_PRINCIPAL@. It may ask again."),
        Event::DeviceRemoved => ("A device was forgotten", "With everything that was granted to it."),
        Event::DeviceRenamed => ("A device has another name", "By @VAMBRACE_PRINCIPAL@."),
        Event::DeviceInvited => ("A setup code was made", "It pairs one device, once, within ten minutes."),
        Event::DeviceTokenRotated => ("A device has a new token", "The old one opens nothing any more."),
        Event::DeviceTokenRevoked => {
            ("A device lost its token", "Its connections have ended. It must be approved again.")
        }
        Event::NodeRequested => {
            ("A node declares what is not enabled", "vambrace node pending shows it, vambrace node approve enables it.")
        }
        Event::NodeApproved => ("What a node declares was enabled", "By @VAMBRACE_PRINCIPAL@."),
        Event::NodeRejected => ("What a node declares was refused", "By @VAMBRACE_PRINCIPAL@."),
        Event::NodeRemoved => ("A node was removed", "With its commands and its token."),
        Event::NodeRenamed => ("A node has another name", "By @VAMBRACE_PRINCIPAL@."),
        Event::SecretSet => {
            ("A secret was set", "@VAMBRACE_TARGET@, by @VAMBRACE_PRINCIPAL@. Its value stands nowhere in the clear.")
        }
        Event::SecretGranted => ("Who may use a secret was changed", "@VAMBRACE_TARGET@, by @VAMBRACE_PRINCIPAL@."),
        Event::SecretRemoved => ("A secret was forgotten", "@VAMBRACE_TARGET@, by @VAMBRACE_PRINCIPAL@."),
        Event::KeyRotated => {
            ("Everything was sealed anew under a new key", "vambrace status says where the key comes from.")
        }
        Event::StateBackedUp => {
            ("The state was backed up", "By @VAMBRACE_PRINCIPAL@. Whoever can open the file has every secret.")
        }
        Event::StateRestored => ("The state was made from a backup", "What happened after the backup is not in it."),
        Event::ChangeRefused => (
            "A change was refused",
            "@VAMBRACE_PRINCIPAL@ wanted to change what is kept, and it could not be done or may not be.",
        ),
        Event::ExecPermitted => {
            ("A command may run", "Its end is a record of its own, exec.finished or exec.failed, of the same run.")
        }
        Event::ExecDenied => (
            "A command was refused",
            "Of agent @VAMBRACE_AGENT@, by the rule @VAMBRACE_RULE@. vambrace sandbox explain says which setting that is.",
        ),
        Event::ExecFinished => {
            ("A command has ended", "Of agent @VAMBRACE_AGENT@. VAMBRACE_ENFORCEMENT says which walls were around it.")
        }
        Event::ExecFailed => (
            "A command could not be run",
            "The walls could not be built, or there is no runner: vambrace doctor says what is missing.",
        ),
        Event::NetConnected => ("A command has connected", "To @VAMBRACE_TARGET@, which is on the list of its agent."),
        Event::NetRefused => (
            "A connection of a command was refused",
            "To @VAMBRACE_TARGET@. If it is wanted, name it in allow_domains of the agent.",
        ),
        Event::NetFailed => {
            ("A connection of a command failed", "To @VAMBRACE_TARGET@, which is on its list but did not answer.")
        }
        Event::SandboxRemoved => {
            ("What a sandbox kept was removed", "It lay unused for long enough, or an operator said so.")
        }
        Event::LockdownOn => (
            "Lockdown is on",
            "Every command stands still and none begins, also after a restart, until vambrace lockdown off.",
        ),
        Event::LockdownOff => ("Lockdown is off", "By @VAMBRACE_PRINCIPAL@. What stood still goes on."),
    }
}

/// The catalog as systemd reads it (journalctl(1), `--update-catalog`).
pub(crate) fn catalog() -> String {
    let mut catalog = String::new();
    for event in Event::ALL {
        let (id, _) = Event::journald_facts(event.as_str());
        let (subject, meaning) = text(*event);
        let _ = write!(
            catalog,
            "-- {id}\nSubject: {subject}\nDefined-By: Vambrace\nDocumentation: man:vambrace(7)\n\n{meaning}\n\n"
        );
    }
    catalog
}

/// Every event by its name, with what it is in a line.
pub(crate) fn events() -> impl Iterator<Item = (&'static str, &'static str)> {
    Event::ALL.iter().map(|event| (event.as_str(), text(*event).0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_event_has_an_entry_of_its_own_id() {
        let catalog = catalog();
        let ids: HashSet<&str> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(ids.len(), Event::ALL.len(), "two events have one id");
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
        for event in Event::ALL {
            let (subject, meaning) = text(*event);
            assert!(!subject.is_empty() && !subject.ends_with('.'), "{}: {subject}", event.as_str());
            assert!(meaning.ends_with('.'), "{}: {meaning}", event.as_str());
        }
    }

    /// A field that journald does not get would stand in the text as it is written here.
    #[test]
    fn entries_name_only_fields_that_records_have() {
        let known = include_str!("journald.rs");
        let catalog = catalog();
        let fields: Vec<&str> = catalog.split('@').skip(1).step_by(2).collect();
        assert!(fields.len() > 10, "{fields:?}");
        for field in fields {
            assert!(known.contains(&format!("put(\"{field}\"")), "{field}");
        }
    }
}
