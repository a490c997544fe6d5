//! In the place of `native` where there is no Linux kernel: nothing is launched, and whoever asks is told what to use.
//!
//! The same names with the same functions, on types that nobody can have: so nothing above has to know, and nothing can
//! run without walls by mistake. macOS has walls too, by an interface that Apple keeps to itself and calls deprecated
//! (sandbox_init(3)); until what it enforces was proved, a command is not trusted to it.

use super::boundary::Protected;
use super::plan::Command;
use super::probe::Probe;
use crate::model::{Ending, Enforcement, LaunchFault, RunFault, SandboxProfile};
use crate::os::Sealed;
use crate::os::child;
use std::convert::Infallible;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Why the backend `native` cannot be had here.
pub(super) const MISSING: Option<&str> = Some("builds its walls out of the Linux kernel, and this system has another");

fn missing() -> LaunchFault {
    LaunchFault {
        step: "build walls of the Linux kernel".into(),
        cause: "this system has another kernel; use backend = \"docker\"".into(),
    }
}

/// That there is nothing.
pub(crate) fn probe_host() -> Vec<Probe> {
    let detail = "this system has another kernel: containers carry out commands (backend = \"docker\")".to_owned();
    // No command is refused for it: the configuration has no profile that wants it, or is refused itself.
    vec![Probe { wall: "linux kernel", here: false, required: false, detail }]
}

/// There is no list.
pub(crate) fn allowed_system_calls() -> Option<(usize, Vec<&'static str>)> {
    None
}

/// What would be handed to a sandbox.
#[expect(dead_code, reason = "there is none to hand it to")]
pub(crate) struct Descriptors<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    pub(crate) secrets: &'a [Sealed],
}

/// A uid of its own for a helper: there are none to lend.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) uid: u32,
    _never: Infallible,
}

impl Lent {
    /// Nobody's: who serves a container stays who it is.
    pub(crate) fn apart() -> Option<Self> {
        None
    }
}

/// What would start sandboxes.
pub(crate) struct Launcher(Infallible);

impl Launcher {
    /// # Errors
    /// Always.
    pub(crate) fn new(_: Protected) -> Result<Self, LaunchFault> {
        Err(missing())
    }

    /// # Errors
    /// Always.
    pub(crate) fn in_container() -> Result<Self, LaunchFault> {
        Err(missing())
    }

    pub(crate) fn launch(&mut self, _: &SandboxProfile, _: Command, _: Descriptors<'_>) -> Result<Launched, RunFault> {
        match self.0 {}
    }

    pub(crate) fn prove(&mut self, _: &SandboxProfile) -> Result<Vec<Proof>, RunFault> {
        match self.0 {}
    }

    pub(crate) fn refill(&mut self) {
        match self.0 {}
    }

    pub(crate) fn tidy(&mut self) {
        match self.0 {}
    }

    pub(crate) fn lend_uid(&mut self) -> Result<Option<Lent>, RunFault> {
        match self.0 {}
    }

    pub(crate) fn protected(&self) -> &Protected {
        match self.0 {}
    }

    pub(crate) fn is_contained(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn finish(&mut self, _: Launched) -> Finished {
        match self.0 {}
    }
}

/// A wall that held.
pub(crate) struct Proof {
    pub(crate) act: String,
    pub(crate) what: String,
    pub(crate) answer: String,
}

/// A sandbox that runs.
pub(crate) struct Launched {
    pub(crate) status: OwnedFd,
    pub(crate) monitor: Monitor,
    never: Infallible,
}

impl Launched {
    pub(crate) fn kill(&self) {
        match self.never {}
    }

    pub(crate) fn hold(&self, _: bool) {
        match self.never {}
    }

    pub(crate) fn channel(&self) -> &OwnedFd {
        match self.never {}
    }

    pub(crate) fn receive(&mut self) -> io::Result<Handed> {
        match self.never {}
    }

    pub(crate) fn private_folder(&self) -> Option<&Path> {
        match self.never {}
    }

    pub(crate) fn pidfd(&self) -> &child::Handle {
        match self.never {}
    }
}

/// What one would say of itself.
pub(crate) struct Monitor(Infallible);

impl Monitor {
    pub(crate) fn feed(&mut self, _: &[u8]) {
        match self.0 {}
    }

    pub(crate) fn refused(&self) -> &[String] {
        match self.0 {}
    }

    pub(crate) fn stands(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.0 {}
    }
}

/// How it would have ended.
#[expect(dead_code, reason = "none is launched that could end")]
pub(crate) enum Verdict {
    Ended(Ending),
    Killed,
    Fault(RunFault),
}

/// What would be left of it.
pub(crate) struct Finished {
    pub(crate) out_of_memory: bool,
    pub(crate) out_of_processes: bool,
    pub(crate) enforcement: Option<Enforcement>,
    pub(crate) elapsed: Duration,
}

/// What it would hand over.
#[expect(dead_code, reason = "none is launched that could hand anything over")]
pub(crate) enum Handed {
    Doors(Vec<OwnedFd>),
    Terminal(OwnedFd),
}
