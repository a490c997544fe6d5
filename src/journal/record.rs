//! What a record says: an event and its facts. Never output, never the environment, never a secret.

use crate::model::{Enforcement, ExecRequest, Principal};
use serde::{Deserialize, Serialize};

macro_rules! events {
    ($($name:ident = $text:literal, $id:literal, $priority:literal;)*) => {
        /// What happened. Each has a name, a MESSAGE_ID for journald and a syslog priority.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Event { $($name,)* }

        impl Event {
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
    AuthRefused = "auth.refused", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a10", 4;
    RequestDenied = "request.denied", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a11", 4;
    TokenShown = "token.shown", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a20", 5;
    TokenRotated = "token.rotated", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a21", 5;
    ExecPermitted = "exec.permitted", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a30", 5;
    ExecDenied = "exec.denied", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a31", 4;
    ExecFinished = "exec.finished", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a32", 5;
    ExecFailed = "exec.failed", "5d4c1a1f2b0e4f6c9a7be1c8d3f20a33", 4;
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// The argv as it is executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cwd: Option<String>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
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

    /// With the command asked for.
    pub(crate) fn asking(mut self, request: &ExecRequest) -> Self {
        self.agent = Some(request.agent.to_string());
        self.session = request.session.as_ref().map(ToString::to_string);
        self.command = Some(request.argv.clone());
        self.cwd = request.cwd.clone();
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
