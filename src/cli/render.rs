//! Errors and hints, tables, text from outside made safe for a terminal.

use crate::client::ClientFault;
use crate::config::ConfigFault;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::OnceLock;

/// What went wrong, what to do, and the exit code.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) code: u8,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Fault { message: message.into(), hint: None, code: 1 }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl From<ConfigFault> for Fault {
    fn from(fault: ConfigFault) -> Self {
        let hint = fault.hint.clone();
        Fault { message: fault.to_string(), hint, code: 1 }
    }
}

impl From<ClientFault> for Fault {
    fn from(fault: ClientFault) -> Self {
        let hint = match &fault {
            ClientFault::Unreachable { .. } => Some("is it running? `vambrace gateway` starts one".to_owned()),
            ClientFault::BadUrl(_) => Some("give wss://HOST[:PORT], or ws://HOST:PORT with a loopback host".into()),
            ClientFault::OtherCertificate { .. } => Some(
                "somebody may be in between. If the gateway's operator changed it, forget the old one with \
                 `vambrace devices identity --forget` and pin the new one with --fingerprint"
                    .into(),
            ),
            ClientFault::Untrusted { .. } => {
                Some("pin it with --fingerprint, as `vambrace status` on its host shows it".into())
            }
            ClientFault::Keyring(_) => Some("it lies in `client` of the state folder, and must be yours alone".into()),
            ClientFault::Refused(refusal) if refusal.details["requestId"].is_string() => {
                let request = refusal.details["requestId"].as_str().unwrap_or_default();
                Some(format!("an operator of the gateway can let it in: vambrace devices approve {request}"))
            }
            ClientFault::Refused(refusal) => {
                let known = refusal_hint(refusal.name()).or(refusal.hint());
                Some(known.unwrap_or("`--help` of the command describes what it takes").to_owned())
            }
            ClientFault::Protocol(_) | ClientFault::Ended(_) => Some("the gateway's log tells why".into()),
        };
        // What a gateway says is one line, whatever it holds: it must not look like a hint of ours.
        Fault { message: one_line(&fault.to_string()), hint: hint.map(|hint| one_line(&hint)), code: 1 }
    }
}

fn refusal_hint(name: &str) -> Option<&'static str> {
    match name {
        "AUTH_TOKEN_MISSING" => Some("set VAMBRACE_TOKEN, or run this as an operator of the gateway's host"),
        "AUTH_TOKEN_MISMATCH" => {
            Some("the token was rotated or belongs to another gateway: `vambrace token show` on its host")
        }
        "AUTH_DEVICE_TOKEN_MISMATCH" => {
            Some("the pairing was revoked or replaced: ask an operator for a new setup code")
        }
        "AUTH_PASSWORD_MISSING" => Some("set VAMBRACE_PASSWORD, or run this as an operator of the gateway's host"),
        "AUTH_RATE_LIMITED" => {
            Some("wait some minutes; operators on the gateway's host are never locked out of its socket")
        }
        "AUTH_BOOTSTRAP_TOKEN_INVALID" => Some("a setup code is good once and for ten minutes: ask for a new one"),
        "MISSING_SCOPE" => Some("run this as an operator on the gateway's own host"),
        _ => None,
    }
}

/// What an exit code says (README.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// The code is a command's own; ours are from 124 on.
    OfACommand,
    /// 0 done, 1 failed, 2 wrong usage.
    Ours,
}

/// Why standard output is not whole, once it is not.
static UNTOLD: OnceLock<std::io::Error> = OnceLock::new();

/// Prints the fault if there is one.
pub(super) fn finish(result: Result<ExitCode, Fault>, codes: Codes) -> ExitCode {
    let told = result.and_then(|code| match UNTOLD.get() {
        None => Ok(code),
        Some(error) => Err(Fault::new(format!("standard output cannot be written to: {error}"))
            .hint("what was asked for is done, and what it told is not whole")),
    });
    match told {
        Ok(code) => code,
        Err(fault) => {
            note(&format!("error: {}", printable(&fault.message)));
            let hint = fault.hint.as_deref().unwrap_or("`vambrace doctor` says what this host lacks");
            note(&format!("hint: {}", printable(hint)));
            ExitCode::from(match (codes, fault.code) {
                (Codes::OfACommand, 0..=123) => 125,
                (Codes::OfACommand, code) => code,
                (Codes::Ours, 2) => 2,
                (Codes::Ours, _) => 1,
            })
        }
    }
}

/// Prints a line to standard output. A reader that is gone ends us (SIGPIPE); a disk that is full is told at the end.
pub(super) fn line(whole: &str) {
    text(&format!("{whole}\n"));
}

/// Prints a whole text, which has its own line ends.
pub(super) fn text(whole: &str) {
    bytes(whole.as_bytes());
}

/// Passes bytes on to standard output.
pub(super) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        let _ = UNTOLD.set(error);
    }
}

/// Prints a line to standard error, where there is nobody else to tell that it cannot be written to.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints JSON as a person can read it too.
pub(super) fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Text with everything escaped that a terminal would act on or that a reader would not see:
/// control bytes, bidirectional overrides, zero-width characters (CVE-2021-42574 and kin).
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = matches!(c, '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}');
        if hidden || (c.is_control() && c != '\n') {
            let _ = write!(shown, "\\u{{{:x}}}", c as u32);
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The same on one line.
pub(super) fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// Rows in columns, each as wide as its widest cell.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(printable("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("rm\u{200b} \u{202e}x"), "rm\\u{200b} \\u{202e}x");
        assert_eq!(one_line("a\nb\r"), "a\\nb\\u{d}");
        assert_eq!(printable("Grüße, 世界"), "Grüße, 世界");
    }
}
