//! Records for systemd's journal, by its native protocol (systemd's JOURNAL_NATIVE_PROTOCOL).
//!
//! Not through the logging crate: a record must report whether it was taken.

use super::chain::Entry;
use super::record::Event;
use std::io;
use std::os::unix::net::UnixDatagram;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to the host's journald.
pub(super) struct Journald {
    socket: UnixDatagram,
}

impl Journald {
    /// Connects where there is one.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Journald { socket })
    }

    /// Sends one entry with its fields.
    pub(super) fn send(&self, entry: &Entry) -> io::Result<()> {
        let datagram = datagram(entry);
        self.socket.send(&datagram).map(|_| ()).or_else(|_| {
            // journald may have been restarted since; its socket stays, our connection may not.
            self.socket.connect(SOCKET)?;
            self.socket.send(&datagram).map(|_| ())
        })
    }
}

fn datagram(entry: &Entry) -> Vec<u8> {
    let record = &entry.record;
    let (message_id, priority) = Event::journald_facts(&record.event);
    let command = record.command.as_ref().map(|argv| argv.join(" "));
    let message = match &command {
        Some(command) => format!("{}: {command}", record.event),
        None => record.event.clone(),
    };
    let mut bytes = Vec::with_capacity(1024);
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            field(&mut bytes, name, value);
        }
    };
    put("MESSAGE", Some(&message));
    put("MESSAGE_ID", Some(message_id));
    put("PRIORITY", Some(&priority.to_string()));
    put("SYSLOG_IDENTIFIER", Some("vambrace"));
    put("VAMBRACE_EVENT", Some(&record.event));
    put("VAMBRACE_SEQ", Some(&entry.seq.to_string()));
    put("VAMBRACE_CHAIN", Some(&entry.hash));
    put("VAMBRACE_AGENT", record.agent.as_deref());
    put("VAMBRACE_SESSION", record.session.as_deref());
    put("VAMBRACE_DEVICE", record.device.as_deref());
    put("VAMBRACE_PRINCIPAL", record.principal.as_deref());
    put("VAMBRACE_FROM", record.from.as_deref());
    put("VAMBRACE_TARGET", record.target.as_deref());
    put("VAMBRACE_AGENTS", record.agents.as_deref());
    put("VAMBRACE_SCOPES", record.scopes.as_deref());
    put("VAMBRACE_RUN", record.run.as_deref());
    put("VAMBRACE_COMMAND", command.as_deref());
    put("VAMBRACE_SETUP", record.setup.as_deref());
    // A field may stand more than once: so `journalctl VAMBRACE_SECRET=NAME` finds every use of one.
    for secret in &record.secrets {
        put("VAMBRACE_SECRET", secret.split(' ').next());
    }
    put("VAMBRACE_VERDICT", record.verdict.as_deref());
    put("VAMBRACE_RULE", record.rule.as_deref());
    put("VAMBRACE_ENFORCEMENT", record.enforcement.as_deref());
    put("VAMBRACE_EXIT", record.exit.map(|e| e.to_string()).as_deref());
    put("VAMBRACE_ERROR", record.error.as_deref());
    bytes
}

/// `NAME=value\n`, or with an explicit length where the value holds a newline: so no value can forge a field.
fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Record;

    #[test]
    fn a_newline_in_a_command_forges_no_field() {
        let mut record = Record::new(Event::ExecPermitted);
        record.command = Some(vec!["echo".into(), "x\nVAMBRACE_VERDICT=permit".into()]);
        let bytes = datagram(&Entry::new(1, 0, record, "p"));
        let value = "echo x\nVAMBRACE_VERDICT=permit";
        let mut expected = b"VAMBRACE_COMMAND\n".to_vec();
        expected.extend((value.len() as u64).to_le_bytes());
        expected.extend(value.as_bytes());
        assert!(bytes.windows(expected.len()).any(|w| w == expected));
    }

    #[test]
    fn each_secret_of_a_run_can_be_looked_for_by_its_name_and_its_setup_is_told() {
        let mut record = Record::new(Event::ExecPermitted);
        record.setup = Some("npm ci".into());
        record.secrets = vec!["API_KEY".into(), "TOKEN as GH_TOKEN".into()];
        let text = String::from_utf8(datagram(&Entry::new(1, 0, record, "p"))).unwrap();
        assert!(text.contains("\nVAMBRACE_SETUP=npm ci\nVAMBRACE_SECRET=API_KEY\nVAMBRACE_SECRET=TOKEN\n"), "{text}");
    }
}
