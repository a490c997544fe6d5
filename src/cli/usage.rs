//! What is said of a command line that is none: as of everything else that fails, what happened and what to do.

use super::args::Cli;
use super::render::{Codes, Fault, finish};
use clap::CommandFactory;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::process::ExitCode;

/// Says it; help and version, where those were asked for.
pub(super) fn tell(error: &clap::Error) -> ExitCode {
    let told = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            super::render::text(&told);
            finish(Ok(ExitCode::SUCCESS), Codes::Ours)
        }
        // The help itself, because it was not asked for.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            super::render::note(told.trim_end());
            finish(Err(Fault::new("no command is given").hint("the commands stand above").code(2)), Codes::Ours)
        }
        _ => finish(Err(fault(&told)), codes(std::env::args_os())),
    }
}

/// From clap's own paragraphs: what is wrong, tips, the usage, and a word about `--help`.
fn fault(told: &str) -> Fault {
    let words = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = told.split("\n\n");
    let message = paragraphs.next().unwrap_or_default();
    let rest: Vec<&str> = paragraphs.map(str::trim).collect();
    let tips = rest.iter().flat_map(|paragraph| paragraph.lines()).filter_map(|line| line.trim().strip_prefix("tip: "));
    let usage = rest.iter().find_map(|paragraph| paragraph.strip_prefix("Usage: "));
    let mut hints: Vec<String> = tips.map(words).collect();
    hints.extend(usage.map(|usage| format!("usage: {}", words(usage))));
    hints.push("`--help` says what it takes".to_owned());
    Fault::new(words(message.strip_prefix("error: ").unwrap_or(message))).hint(hints.join("; ")).code(2)
}

/// Whose exit code it is, as far as the words can be understood.
fn codes(words: impl Iterator<Item = OsString>) -> Codes {
    let Ok(found) = Cli::command().ignore_errors(true).try_get_matches_from(words) else { return Codes::Ours };
    let is_a_run = match found.subcommand() {
        Some(("exec", _)) => true,
        Some(("sandbox", below)) => below.subcommand_name() == Some("run"),
        _ => false,
    };
    if is_a_run { Codes::OfACommand } else { Codes::Ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let said = |words: &[&str]| {
            let words: Vec<&str> = [&["vambrace"], words].concat();
            let fault = fault(&Cli::command().try_get_matches_from(words).unwrap_err().render().to_string());
            (fault.message, fault.hint.unwrap())
        };
        let (message, hint) = said(&["status", "--jsn"]);
        assert_eq!(message, "unexpected argument '--jsn' found");
        assert_eq!(
            hint,
            "a similar argument exists: '--json'; usage: vambrace status --json; `--help` says what it takes"
        );
        let (message, hint) = said(&["gateway", "--port", "65536"]);
        assert_eq!(message, "invalid value '65536' for '--port <PORT>': 65536 is not in 0..=65535");
        assert_eq!(hint, "`--help` says what it takes");
        assert_eq!(said(&["exec"]).0, "the following required arguments were not provided: <CMD>...");
    }

    #[test]
    fn a_code_is_a_commands_own_where_one_was_to_run() {
        let of = |words: &[&str]| codes([&["vambrace"], words].concat().into_iter().map(OsString::from));
        for words in [&["exec"][..], &["exec", "--bogus", "--", "x"], &["--url", "status", "exec", "--timeout"]] {
            assert_eq!(of(words), Codes::OfACommand, "{words:?}");
        }
        for words in [&["sandbox", "run", "--net", "all", "--", "x"][..], &["--config", "x", "sandbox", "run"]] {
            assert_eq!(of(words), Codes::OfACommand, "{words:?}");
        }
        for words in [&["status", "exec"][..], &["--config", "exec", "status", "-x"], &["sandbox", "probe", "run"]] {
            assert_eq!(of(words), Codes::Ours, "{words:?}");
        }
    }
}
