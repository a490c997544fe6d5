//! What an engine's answers mean, and how they are told to people.

use super::reach::short;
use crate::model::RunFault;
use bollard::errors::Error;

/// Whether the engine says that there is no such thing.
pub(super) fn missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// What the engine said, while this was done.
pub(super) fn fault(doing: &str, error: &Error) -> RunFault {
    // Of what ended a stream no more than this is passed on to us.
    let more = match error {
        Error::IOError { .. } => " (it broke off, took too long, or is longer than an answer may be)",
        _ => "",
    };
    RunFault::Engine {
        what: format!("the container engine could not {doing}: {}{more}", short(error)),
        hint: "`docker info` and the engine's log tell more".into(),
    }
}

pub(super) fn gone(name: &str) -> RunFault {
    RunFault::Engine {
        what: format!("the container {name} is gone"),
        hint: "somebody has removed it, or the engine was restarted; send the command once more".into(),
    }
}

/// Whether this is a container's id: it goes into records, and into the names of paths of the engine's API.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Differences, as many and as long as a person reads: an engine names them.
pub(super) fn told(differences: Vec<String>) -> Vec<String> {
    differences.into_iter().take(20).map(|text| plain(&text).chars().take(100).collect()).collect()
}

/// An engine's words, on one line and no longer than one is read.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
