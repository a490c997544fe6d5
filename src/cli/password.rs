//! Secrets that a person types or pipes in; and `password set`, which hashes here, so that only the hash goes on.

use super::args::PlaceArgs;
use super::render::{self, Fault};
use crate::auth;
use crate::daemon;
use crate::model::Secret;
use crate::os;
use serde_json::json;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

/// What can be typed or piped in.
pub(super) const TEXT: &str = "a line of UTF-8, from a terminal or standard input";

/// Most bytes read; a password that is longer is refused with its reason.
const MOST: u64 = 4096;

pub(super) fn set(place: &PlaceArgs) -> Result<ExitCode, Fault> {
    let password = ask()?;
    let hash = auth::hash_password(password.expose())
        .map_err(|why| Fault::new(format!("this password cannot be taken: {why}")).hint("12 to 1024 bytes").code(2))?;
    if place.has_gateway()? {
        place.call(&["operator.admin"], "password.set", Some(json!({"hash": hash})))?;
        render::line("the password is set; whoever came in by the old one was sent out");
        return Ok(ExitCode::SUCCESS);
    }
    let (settings, places) = place.settings()?;
    let state = places.state;
    daemon::keep_password(&state, &settings.keys, &hash).map_err(|e| {
        let hint = format!("{}; or start the gateway and run this as an operator", e.hint());
        Fault::new(e.to_string()).hint(hint)
    })?;
    render::line(&format!("the password is set for the gateway of {}", state.display()));
    Ok(ExitCode::SUCCESS)
}

fn ask() -> Result<Secret<String>, Fault> {
    let fault = |e: std::io::Error| Fault::new(format!("the password cannot be read: {e}")).hint(TEXT);
    if std::io::stdin().is_terminal() {
        let first = prompt("password: ").map_err(fault)?;
        let second = prompt("once more: ").map_err(fault)?;
        if first.expose() != second.expose() {
            return Err(Fault::new("the two are not the same").hint("nothing was changed; try again"));
        }
        return Ok(first);
    }
    piped().map_err(fault)
}

/// A setup code, which is a secret for as long as nobody has used it.
pub(super) fn ask_setup_code() -> Result<Secret<String>, Fault> {
    let asked = if std::io::stdin().is_terminal() { prompt("setup code: ") } else { piped() };
    asked.map_err(|e| Fault::new(format!("the setup code cannot be read: {e}")).hint(TEXT))
}

/// Standard input to its end. One line ending is the pipe's, not the secret's.
pub(super) fn piped() -> std::io::Result<Secret<String>> {
    let mut text = String::new();
    std::io::stdin().take(MOST).read_to_string(&mut text)?;
    let line = Secret::new(text);
    let secret = line.expose().strip_suffix('\n').unwrap_or(line.expose());
    Ok(Secret::new(secret.strip_suffix('\r').unwrap_or(secret).to_owned()))
}

pub(super) fn prompt(text: &str) -> std::io::Result<Secret<String>> {
    let mut stderr = std::io::stderr();
    stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush())?;
    let line = os::terminal::read_hidden_line();
    render::note("");
    line.map(Secret::new)
}
