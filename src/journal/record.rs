//! What a record says: an event and its facts. Never output, never the environment, never a secret.

use crate::model::{Enforcement, ExecRequest, Principal};
use crate::redact::Redactor;
use serde::{Deserialize, Serialize};

macro_rules! events {
    ($($name:ident = $text:literal, $id:literal, $priority:literal;)*) => {
        /// What happened. Each has a name, a MESSAGE_ID for journald and a syslog priority.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Event { $($name,)* }

        impl Event {
            /// All there are.
            pub(super) const ALL: &[Event] = &[$(Event::$name,)*];

            /// The name in VAMBRACE_EVENT.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Event::$name => $text,)* }
            }

            /// MESSAGE_ID and PRIORITY of an event's name.
            pub(super) fn journald_facts(name: &str) -> (&'static str, u8) {
                match name { $($text => ($id, $priority),)* _ => ("", 5) }
            }
        }
    };
}

events! {
    GatewayStarted = "gateway.started", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a01", 5;
    GatewayStopped = "gateway.stopped", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a02", 5;
    JournalMended = "journal.mended", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a03", 4;
    RunnerRestarted = "runner.restarted", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a04", 4;
    ConfigReloaded = "config.reloaded", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a05", 5;
    ConfigRefused = "config.refused", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a06", 4;
    AuthRefused = "auth.refused", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a10", 4;
    RequestDenied = "request.denied", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a11", 4;
    TokenShown = "token.shown", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a20", 5;
    TokenRotated = "token.rotated", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a21", 5;
    PasswordSet = "password.set", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a22", 5;
    DeviceRequested = "device.requested", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a40", 5;
    DevicePaired = "device.paired", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a41", 5;
    DeviceApproved = "device.approved", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a42", 5;
    DeviceRejected = "device.rejected", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a43", 5;
    DeviceRemoved = "device.removed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a44", 5;
    DeviceRenamed = "device.renamed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a45", 5;
    DeviceInvited = "device.invited", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a46", 5;
    DeviceTokenRotated = "device.token.rotated", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a47", 5;
    DeviceTokenRevoked = "device.token.revoked", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a48", 5;
    NodeRequested = "node.requested", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a50", 5;
    NodeApproved = "node.approved", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a51", 5;
    NodeRejected = "node.rejected", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a52", 5;
    NodeRemoved = "node.removed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a53", 5;
    NodeRenamed = "node.renamed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a54", 5;
    SecretSet = "secret.set", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a70", 5;
    SecretGranted = "secret.granted", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a71", 5;
    SecretRemoved = "secret.removed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a72", 5;
    KeyRotated = "key.rotated", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a73", 5;
    StateBackedUp = "state.backed-up", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a74", 5;
    StateRestored = "state.restored", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a75", 4;
    ChangeRefused = "change.refused", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a60", 4;
    ExecPermitted = "exec.permitted", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a30", 5;
    ExecDenied = "exec.denied", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a31", 4;
    ExecFinished = "exec.finished", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a32", 5;
    ExecFailed = "exec.failed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a33", 4;
    NetConnected = "net.connected", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a34", 5;
    NetRefused = "net.refused", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a35", 4;
    NetFailed = "net.failed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a36", 4;
    SandboxRemoved = "sandbox.removed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a38", 5;
    LockdownOn = "lockdown.on", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a80", 3;
    LockdownOff = "lockdown.off", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a81", 4;
}

/// The facts of one event. What does not apply is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) event: String,
    /// Who asked: `device:…`, `uid:…`, `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// Where from: a socket address, or `unix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// What it is done to: a device, a node, a request, a setup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// The scopes asked for or granted, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
    /// Whom a secret is granted to from now on, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agents: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// The argv as it is executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cwd: Option<String>,
    /// The profile's line that is executed before the command, where its container is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) setup: Option<String>,
    /// The secrets asked for, by name, never their values: `NAME` or `NAME as VARIABLE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enforcement: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ending: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) elapsed_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output_bytes: Option<u64>,
    /// What something in the sandbox tried to execute that is not on its list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused: Vec<String>,
    /// Bounds that the command met without being ended for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) limits_reached: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Bytes of a command that stand in its record; a longer one is cut and stands for itself by its digest.
const MAX_COMMAND: usize = 8 << 10;

/// Words of a command that stand in its record.
const MAX_WORDS: usize = 256;

/// Characters of what an entry is about: the longest domain (253) with its port and address fit.
const MAX_TARGET: usize = 320;

/// Characters of an error.
const MAX_ERROR: usize = 1 << 10;

/// What stands for a command that is too long for a record: its length and SHA-256 (words, each ended by NUL).
fn beyond_bounds(argv: &[String]) -> Option<String> {
    let length: usize = argv.iter().map(String::len).sum();
    if length <= MAX_COMMAND && argv.len() <= MAX_WORDS {
        return None;
    }
    let whole: Vec<u8> = argv.iter().flat_map(|word| word.bytes().chain([0])).collect();
    let digest = crate::crypto::hex(&crate::crypto::sha256(&[&whole]));
    Some(format!("[cut: {} words, {length} bytes, sha256 {digest}]", argv.len()))
}

/// The argv, or as much of it as a record holds with what stands for all of it.
fn bounded(argv: Vec<String>) -> Vec<String> {
    let Some(whole) = beyond_bounds(&argv) else { return argv };
    let mut left = MAX_COMMAND;
    let mut kept = Vec::new();
    for word in argv.iter().take(MAX_WORDS) {
        let part: String = word
            .chars()
            .scan(0, |used, c| {
                *used += c.len_utf8();
                (*used <= left).then_some(c)
            })
            .collect();
        left -= part.len();
        kept.push(part);
        if left == 0 {
            break;
        }
    }
    kept.push(whole);
    kept
}

impl Record {
    pub(crate) fn new(event: Event) -> Self {
        Record { event: event.as_str().to_owned(), ..Default::default() }
    }

    /// With who asked.
    pub(crate) fn by(mut self, principal: &Principal, from: &str) -> Self {
        self.principal = Some(principal.label());
        self.device = principal.device.as_ref().map(|d| d.0.clone());
        self.from = Some(from.to_owned());
        self
    }

    /// With what it is done to, cut to a bounded length.
    pub(crate) fn about(mut self, target: &str) -> Self {
        self.target = Some(target.chars().take(MAX_TARGET).collect());
        self
    }

    /// With the command asked for.
    pub(crate) fn asking(mut self, request: &ExecRequest) -> Self {
        self.agent = Some(request.agent.to_string());
        self.session = request.session.as_ref().map(ToString::to_string);
        self.command = Some(request.argv.clone());
        self.cwd = request.cwd.clone();
        self.secrets = request.secrets.iter().map(ToString::to_string).collect();
        self
    }

    /// With what went wrong, cut to a bounded length.
    pub(crate) fn error(mut self, text: &str) -> Self {
        self.error = Some(text.chars().take(MAX_ERROR).collect());
        self
    }

    /// As it is written: secrets covered first, then the command cut, so that no half of one is left at the cut.
    pub(crate) fn covered(mut self, redactor: &Redactor) -> Self {
        let words = self.command.iter_mut().flatten().chain(&mut self.refused);
        let texts =
            [&mut self.cwd, &mut self.setup, &mut self.error, &mut self.target, &mut self.session, &mut self.rule];
        for text in words.chain(texts.into_iter().filter_map(Option::as_mut)) {
            if let Some(covered) = redactor.text(text) {
                *text = covered;
            }
        }
        self.command = self.command.map(bounded);
        self.setup = self.setup.map(|line| bounded(vec![line]).join(" "));
        self
    }

    /// With the rule that decided, and how.
    pub(crate) fn decided(mut self, verdict: &str, rule: &str) -> Self {
        self.verdict = Some(verdict.to_owned());
        self.rule = Some(rule.to_owned());
        self
    }

    /// With what the kernel enforced.
    pub(crate) fn walls(mut self, enforcement: &Enforcement) -> Self {
        self.enforcement = Some(enforcement.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_secrets_is_written_and_read_as_before_there_were_any() {
        let text = r#"{"event":"exec.permitted","agent":"main","verdict":"permit"}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        let record = Record { secrets: vec!["API_KEY".into()], ..record };
        assert!(serde_json::to_string(&record).unwrap().contains(r#""secrets":["API_KEY"],"verdict""#));
    }

    fn written(argv: Vec<String>, redactor: &Redactor) -> Vec<String> {
        Record { command: Some(argv), ..Record::new(Event::ExecPermitted) }.covered(redactor).command.unwrap()
    }

    #[test]
    fn a_command_of_any_length_makes_a_short_record_that_names_all_of_it() {
        assert_eq!(written(vec!["a".into(), "b".into()], &Redactor::none()), ["a", "b"]);
        for argv in [vec!["\u{1}".repeat(130_000)], vec!["é".repeat(60_000); 2], vec!["x".to_owned(); 4096]] {
            let kept = written(argv.clone(), &Redactor::none());
            let json = serde_json::to_string(&kept).unwrap();
            assert!(json.len() < 64 << 10, "{}", json.len());
            assert!(kept.last().unwrap().starts_with(&format!("[cut: {} words", argv.len())));
        }
    }

    #[test]
    fn a_secret_in_a_record_is_covered_also_where_the_command_is_cut() {
        let value = "canary-0123456789";
        let secret = crate::model::Secret::new(value.as_bytes().to_vec());
        let redactor = Redactor::new([("KEY".to_owned(), secret)]);
        assert_eq!(written(vec!["curl".into(), format!("x={value}")], &redactor), ["curl", "x=[secret KEY]"]);
        let long = format!("{}{value}{}", "x".repeat(MAX_COMMAND - 6), "y".repeat(9000));
        let kept = written(vec![long], &redactor).concat();
        assert!(!kept.contains("canary"), "{}", &kept[MAX_COMMAND - 40..]);
        let record = Record::new(Event::ExecFailed).error(value).about(value).covered(&redactor);
        assert!(!serde_json::to_string(&record).unwrap().contains("canary"));
    }
}
