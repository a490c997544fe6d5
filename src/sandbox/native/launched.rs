//! A sandbox that runs: its init, what can be done to it, and what is left of it.

use super::battery::NAMESPACES;
use super::inside;
use super::landlocked::Private;
use super::monitor::Monitor;
use super::slots::Slot;
use super::walls::Walls;
use crate::model::{Enforcement, LimitKind, Means, Tier};
use crate::os;
use crate::os::handover;
use crate::os::linux::cgroup::Group;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// A sandbox that has been started. Dropping it kills and reaps it.
pub(crate) struct Launched {
    /// The reading end of the status pipe; feed it to `monitor`.
    pub(crate) status: OwnedFd,
    pub(crate) monitor: Monitor,
    pub(crate) started: Instant,
    pub(super) inmate: Inmate,
    pub(super) channel: OwnedFd,
    /// Kept so that its mounts are taken down after us, not while somebody waits.
    pub(super) mounts: Option<OwnedFd>,
    pub(super) walls: Walls,
    pub(super) host_uid: u32,
    pub(super) landlock_abi: u8,
    /// Inside a container, whose control group is not ours: how often something was killed in it before.
    pub(super) oom_kills_before: Option<u64>,
    /// The same of processes that were refused.
    pub(super) refused_before: Option<u64>,
    pub(super) limits: [(LimitKind, Means); 3],
}

impl Launched {
    /// Ends the command and its whole tree at once.
    pub(crate) fn kill(&self) {
        self.inmate.kill();
    }

    /// Stops every process of the command, or lets them go on.
    pub(crate) fn hold(&self, held: bool) {
        let word = if held { inside::FREEZE } else { inside::THAW };
        // First of both where it is thawed, so that the init hears the word.
        if let Some(group) = &self.inmate.group {
            group.freeze(held);
        }
        // An init that is gone has nothing left to stop.
        let _ = rustix::io::write(&self.channel, &[word]);
    }

    /// Where the init hands things over: `receive` does not wait when this is readable.
    pub(crate) fn channel(&self) -> &OwnedFd {
        &self.channel
    }

    /// The next thing that the init hands over.
    ///
    /// # Errors
    /// Where the init is gone.
    pub(crate) fn receive(&mut self) -> io::Result<Handed> {
        let mut word = [0];
        let fds = handover::receive(&self.channel, &mut word)?;
        let mut fds = fds.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?.into_iter();
        if word[0] == inside::TERMINAL {
            let master = fds.next().ok_or_else(|| io::Error::other("the terminal did not arrive"))?;
            return Ok(Handed::Terminal(master));
        }
        self.mounts = fds.next();
        Ok(Handed::Doors(fds.collect()))
    }

    /// Where on the host's disk a run without namespaces has its scratch folders.
    pub(crate) fn private_folder(&self) -> Option<&Path> {
        self.inmate.private.as_ref().map(Private::path)
    }

    /// Becomes readable when the init has ended.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.inmate.pidfd
    }

    /// What the child read back from the kernel, with what the launcher chose; `None` before the walls stand.
    pub(super) fn enforcement(&self) -> Option<Enforcement> {
        let evidence = self.monitor.evidence()?;
        let walls = &self.walls;
        let own = |name: &&&str| match **name {
            "net" => walls.has_own_network(),
            "user" => walls.tier == Tier::UserNamespace,
            _ => true,
        };
        let namespaces = if walls.has_namespaces() { NAMESPACES } else { &[] };
        Some(Enforcement {
            tier: walls.tier,
            container: None,
            namespaces: namespaces.iter().filter(own).map(|name| (*name).to_owned()).collect(),
            host_uid: self.host_uid,
            landlock_abi: self.landlock_abi,
            seccomp_filters: evidence.seccomp_filters,
            no_new_privs: evidence.no_new_privs,
            no_capabilities: evidence.no_capabilities,
            network: walls.network,
            exec_mode: walls.exec_mode(),
            proofs: evidence.proved.rows(walls.tier).len() as u8,
            proof: evidence.proved.digest(walls.tier),
            limits: self.limits,
        })
    }
}

/// What is left of a sandbox after `finish`.
pub(crate) struct Finished {
    /// The kernel killed something in it at the memory bound.
    pub(crate) out_of_memory: bool,
    /// The kernel refused it a process at the bound on them.
    pub(crate) out_of_processes: bool,
    /// `None` where the walls were never complete.
    pub(crate) enforcement: Option<Enforcement>,
    pub(crate) elapsed: Duration,
    /// Mounts and control groups; whoever waits for the outcome need not wait until they are taken down.
    pub(super) _remains: Launched,
}

/// What an init hands over.
#[derive(Debug)]
pub(crate) enum Handed {
    /// Name server and listeners of a network that is an allowlist; none otherwise.
    Doors(Vec<OwnedFd>),
    /// The master of the command's terminal.
    Terminal(OwnedFd),
}

/// A child of the launcher: the init of a sandbox. Dropping it kills and reaps it.
pub(super) struct Inmate {
    pub(super) pidfd: OwnedFd,
    pub(super) group: Option<Group>,
    pub(super) slot: Slot,
    /// Where we make no namespaces the init is a keeper, which has to end what it keeps.
    pub(super) is_keeper: bool,
    /// Folders that go with it.
    pub(super) private: Option<Private>,
}

impl Inmate {
    /// Ends the init, and with it everything in its pid namespace, and reaps it.
    pub(super) fn end(&self) {
        self.kill();
        let _ = os::process::wait_pidfd(&self.pidfd);
    }

    /// Ends the init without waiting.
    fn kill(&self) {
        // With its group everything goes at once, whoever the init is and wherever it stands. It may not be in it yet.
        let _ = self.group.as_ref().map(Group::kill);
        match self.is_keeper {
            false => os::process::kill_pidfd(&self.pidfd),
            true => os::process::terminate_pidfd(&self.pidfd),
        }
    }
}

impl Drop for Inmate {
    fn drop(&mut self) {
        // A launch that failed half-way, too: no child is left to itself, and its group can go only after it.
        self.end();
    }
}
