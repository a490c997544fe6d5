//! What the child says on its status pipe, and what that makes of the run.
//!
//! The pipe carries fixed records, each written in one piece: a step that failed, the walls as read
//! back from the kernel, an exec that failed, the command's end. Silence means the child was killed.

use super::battery::Proved;
use super::step::Step;
use crate::model::{Ending, LaunchFault, RunFault};
use std::io;

/// One record: tag, two numbers, a short text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// A step failed with this errno (0: a check of ours did not hold) and words.
    Failed {
        step: Step,
        errno: i32,
        text: String,
    },
    /// All walls stand, as read back.
    Walled(Evidence),
    /// The kernel refused to execute the command.
    ExecFailed {
        errno: i32,
    },
    Exited(u8),
    Signaled(u8),
    /// Something tried to execute this, which is not on the list.
    Refused(String),
}

/// What the kernel says of the child once all walls stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Evidence {
    pub(super) seccomp_filters: u8,
    pub(super) no_new_privs: bool,
    pub(super) no_capabilities: bool,
    pub(super) proved: Proved,
}

const FAILED: u8 = 1;
const WALLED: u8 = 2;
const EXEC_FAILED: u8 = 3;
const EXITED: u8 = 4;
const SIGNALED: u8 = 5;
const REFUSED: u8 = 6;
const HEAD: usize = 8;
/// Records stay below PIPE_BUF, so each write is atomic (pipe(7)).
const MAX_TEXT: usize = 500;

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let proved;
        let (tag, a, number, text) = match self {
            Report::Failed { step, errno, text } => (FAILED, *step as u8, *errno, text.as_str()),
            Report::Walled(e) => {
                let flags = i32::from(e.no_new_privs) | i32::from(e.no_capabilities) << 1;
                proved = e.proved.encode();
                (WALLED, e.seccomp_filters, flags, proved.as_str())
            }
            Report::ExecFailed { errno } => (EXEC_FAILED, 0, *errno, ""),
            Report::Exited(code) => (EXITED, *code, 0, ""),
            Report::Signaled(signal) => (SIGNALED, *signal, 0, ""),
            Report::Refused(path) => (REFUSED, 0, 0, path.as_str()),
        };
        let text = &text.as_bytes()[..text.len().min(MAX_TEXT)];
        let mut bytes = vec![tag, a];
        bytes.extend(number.to_le_bytes());
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text);
        bytes
    }

    /// Takes one whole record off the front, if there is one.
    fn decode(bytes: &mut Vec<u8>) -> Option<Result<Report, LaunchFault>> {
        let head: [u8; HEAD] = bytes.get(..HEAD)?.try_into().ok()?;
        let [tag, a, n0, n1, n2, n3, l0, l1] = head;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if bytes.len() < HEAD + length {
            return None;
        }
        let number = i32::from_le_bytes([n0, n1, n2, n3]);
        let text = String::from_utf8_lossy(&bytes[HEAD..HEAD + length]).into_owned();
        bytes.drain(..HEAD + length);
        let unknown = || LaunchFault { step: "read the launcher's report".into(), cause: format!("unknown tag {tag}") };
        Some(Ok(match tag {
            FAILED => match Step::from_number(a) {
                Some(step) => Report::Failed { step, errno: number, text },
                None => return Some(Err(unknown())),
            },
            WALLED => Report::Walled(Evidence {
                seccomp_filters: a,
                no_new_privs: number & 1 != 0,
                no_capabilities: number & 2 != 0,
                proved: match Proved::decode(&text) {
                    Some(proved) => proved,
                    None => return Some(Err(unknown())),
                },
            }),
            EXEC_FAILED => Report::ExecFailed { errno: number },
            EXITED => Report::Exited(a),
            SIGNALED => Report::Signaled(a),
            REFUSED => Report::Refused(text),
            _ => return Some(Err(unknown())),
        }))
    }
}

/// What the whole pipe amounts to once it is at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The command ran and ended by itself.
    Ended(Ending),
    /// The command ran (or was about to) and was killed from outside.
    Killed,
    /// It did not run.
    Fault(RunFault),
}

/// Collects the status pipe of one launch.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    pending: Vec<u8>,
    evidence: Option<Evidence>,
    refused: Vec<String>,
    end: Option<Verdict>,
    command: String,
}

impl Monitor {
    pub(super) fn new(command: &str) -> Self {
        Monitor { command: command.to_owned(), ..Default::default() }
    }

    /// Takes bytes as they come from the pipe.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(report) = Report::decode(&mut self.pending) {
            match report {
                Ok(report) => self.take(report),
                Err(fault) => self.end = Some(Verdict::Fault(RunFault::WallMissing(fault))),
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Walled(evidence) => self.evidence = Some(evidence),
            Report::Refused(path) => self.refused.push(path),
            // The first end counts: after a failed exec the init reports the exit of its child as well.
            _ if self.end.is_some() => {}
            Report::Failed { step, errno, text } => {
                let cause = if errno == 0 { text } else { errno_text(errno, &text) };
                self.end = Some(Verdict::Fault(self.fault(step, errno, cause)));
            }
            Report::ExecFailed { errno } => self.end = Some(Verdict::Fault(self.exec_fault(errno))),
            Report::Exited(code) => self.end = Some(Verdict::Ended(Ending::Exited(code))),
            Report::Signaled(signal) => self.end = Some(Verdict::Ended(Ending::Signaled(signal))),
        }
    }

    /// A place that is missing or a link is the caller's to mend; anything else is a wall.
    fn fault(&self, step: Step, errno: i32, cause: String) -> RunFault {
        let hint = match (step, errno) {
            (Step::OpenNamed, libc::ELOOP) => "name the folder itself; links are not followed",
            (Step::OpenNamed, libc::ENOENT) => "make the folder first, or correct its path in the configuration",
            (Step::OpenNamed, _) => "the folder must be reachable for the runner's user",
            (Step::WorkingFolder, _) => {
                "the working folder must exist inside the workspace and be reached without leaving it"
            }
            _ => return RunFault::WallMissing(LaunchFault { step: step.words().into(), cause }),
        };
        RunFault::Refused { what: format!("{}: {cause}", step.words()), hint: hint.into() }
    }

    fn exec_fault(&self, errno: i32) -> RunFault {
        match errno {
            libc::ENOENT | libc::ENOTDIR => RunFault::NotFound(self.command.clone()),
            libc::EACCES if !self.refused.is_empty() => RunFault::Refused {
                what: format!("{} is not on the list of executables", self.refused[0]),
                hint: "an operator may add it to `allow` in `exec` of the agent's configuration".into(),
            },
            _ => RunFault::NotExecutable { command: self.command.clone(), cause: errno_text(errno, "") },
        }
    }

    /// What something in the sandbox tried to execute and was not on the list, each path once.
    pub(crate) fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Whether the walls stand and the command may begin.
    pub(crate) fn stands(&self) -> bool {
        self.evidence.is_some()
    }

    /// The walls as read back, once the child has reported them.
    pub(super) fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    /// The verdict after the pipe's end.
    pub(crate) fn verdict(&self) -> Verdict {
        match (&self.end, &self.evidence) {
            (Some(end), _) => end.clone(),
            (None, Some(_)) => Verdict::Killed,
            (None, None) => Verdict::Fault(RunFault::WallMissing(LaunchFault {
                step: "build the walls".into(),
                cause: "the launcher's child was killed before they stood".into(),
            })),
        }
    }
}

fn errno_text(errno: i32, text: &str) -> String {
    let said = io::Error::from_raw_os_error(errno).to_string();
    if text.is_empty() { said } else { format!("{text}: {said}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_from_any_split_of_the_pipe() {
        let proved = Proved { answers: vec![(0, 2), (3, 0)], mounts: "ab".into() };
        let walled = Report::Walled(Evidence { seccomp_filters: 2, no_new_privs: true, no_capabilities: true, proved });
        let bytes: Vec<u8> = [walled, Report::Exited(3)].iter().flat_map(Report::encode).collect();
        for split in 0..bytes.len() {
            let mut monitor = Monitor::new("x");
            monitor.feed(&bytes[..split]);
            monitor.feed(&bytes[split..]);
            assert_eq!(monitor.verdict(), Verdict::Ended(Ending::Exited(3)));
            let evidence = monitor.evidence().unwrap();
            assert_eq!((evidence.seccomp_filters, &*evidence.proved.answers), (2, &[(0, 2), (3, 0)][..]));
        }
    }

    #[test]
    fn silence_before_the_walls_is_a_missing_wall_and_after_them_a_kill() {
        let mut monitor = Monitor::new("x");
        assert!(matches!(monitor.verdict(), Verdict::Fault(RunFault::WallMissing(_))));
        monitor.feed(&Report::Walled(Evidence::default()).encode());
        assert_eq!(monitor.verdict(), Verdict::Killed);
    }

    #[test]
    fn a_failed_exec_is_not_found_or_not_executable_and_the_exit_after_it_does_not_hide_it() {
        let verdict = |errno| {
            let mut monitor = Monitor::new("x");
            monitor.feed(&Report::ExecFailed { errno }.encode());
            monitor.feed(&Report::Exited(127).encode());
            monitor.verdict()
        };
        assert_eq!(verdict(libc::ENOENT), Verdict::Fault(RunFault::NotFound("x".into())));
        assert!(matches!(verdict(libc::EACCES), Verdict::Fault(RunFault::NotExecutable { .. })));
    }
}
