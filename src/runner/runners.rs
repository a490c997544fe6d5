//! The runners of a gateway: one for each backend that its profiles name.

use super::client::{Client, RunHandle, RunnerState};
use crate::model::{Backend, RunFault, SandboxProfile, StandingContainer, Stdin};
use crate::os::Sealed;
use crate::sandbox::Command;

/// The gateway's hold on all of them.
#[derive(Clone)]
pub(crate) struct Runners {
    pub(crate) native: Client,
    pub(crate) docker: Option<Client>,
}

impl Runners {
    /// All there are, each with its name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Backend, &Client)> {
        [(Backend::Native, &self.native)].into_iter().chain(self.docker.iter().map(|docker| (Backend::Docker, docker)))
    }

    /// Orders a command from the runner of its profile's backend; values of secrets in the order of their names.
    ///
    /// # Errors
    /// Where that runner is not there, or the order is larger than it takes.
    pub(crate) fn start(
        &self,
        command: &Command,
        stdin: Stdin,
        profile: &SandboxProfile,
        secrets: Vec<Sealed>,
    ) -> Result<RunHandle, RunFault> {
        let runner = match profile.backend {
            Backend::Native => &self.native,
            Backend::Docker => self.docker.as_ref().ok_or(RunFault::RunnerGone)?,
        };
        runner.start(command, stdin, profile, secrets)
    }

    /// Stops every run at once and has new ones refused, or lets them go on; holds for every runner to come as well.
    pub(crate) fn hold(&self, held: bool) {
        self.all().for_each(|(_, runner)| runner.hold(held));
    }

    /// Ends every run for an operator's lockdown, those too that nobody else knows of yet.
    pub(crate) fn lock_down(&self) {
        self.all().for_each(|(_, runner)| runner.lock_down());
    }

    /// Says that a sandbox keeps nothing any more: its container, if it has one, goes as well.
    pub(crate) fn discard(&self, sandbox: &str) {
        if let Some(docker) = &self.docker {
            docker.discard(sandbox);
        }
    }

    /// The container that stands for the sandbox of a profile, where it has the backend and one stands.
    pub(crate) async fn standing(&self, profile: &SandboxProfile) -> Option<StandingContainer> {
        match &self.docker {
            Some(docker) if profile.backend == Backend::Docker => docker.look(profile).await,
            _ => None,
        }
    }

    /// What is known of each.
    pub(crate) fn states(&self) -> Vec<(Backend, RunnerState)> {
        self.all().map(|(backend, runner)| (backend, runner.state().borrow().clone())).collect()
    }
}
