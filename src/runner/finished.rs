//! How a run ended, in the format between the processes.

use crate::model::{
    Container, Ending, Enforcement, ExecMode, LaunchFault, LimitKind, Means, Network, Outcome, RunFault, Tier,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a run ended: one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finished {
    outcome: Option<OutcomeRecord>,
    fault: Option<FaultRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeRecord {
    ending: String,
    code: u8,
    elapsed_us: u64,
    output_bytes: u64,
    refused: Vec<String>,
    out_of_processes: bool,
    tier: String,
    /// Id, image, plan, and whether its setup was executed.
    container: Option<(String, String, String, bool)>,
    namespaces: Vec<String>,
    host_uid: u32,
    landlock_abi: u8,
    seccomp_filters: u8,
    no_new_privs: bool,
    no_capabilities: bool,
    network: String,
    exec_mode: String,
    proofs: u8,
    proof: String,
    limits: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultRecord {
    kind: String,
    what: String,
    more: String,
}

impl Finished {
    pub(super) fn new(result: &Result<Outcome, RunFault>) -> Self {
        match result {
            Ok(outcome) => Finished { outcome: Some(OutcomeRecord::new(outcome)), fault: None },
            Err(fault) => Finished { outcome: None, fault: Some(FaultRecord::new(fault)) },
        }
    }

    /// The result; a record that makes no sense counts as a lost runner.
    pub(super) fn read(self) -> Result<Outcome, RunFault> {
        match (self.outcome, self.fault) {
            (Some(outcome), None) => outcome.read().ok_or(RunFault::RunnerGone),
            (None, Some(fault)) => Err(fault.read()),
            _ => Err(RunFault::RunnerGone),
        }
    }
}

impl OutcomeRecord {
    fn new(outcome: &Outcome) -> Self {
        let e = &outcome.enforcement;
        let code = match outcome.ending {
            Ending::Exited(code) => code,
            Ending::Signaled(signal) => signal,
            _ => 0,
        };
        OutcomeRecord {
            ending: outcome.ending.as_str().into(),
            code,
            elapsed_us: outcome.elapsed.as_micros() as u64,
            output_bytes: outcome.output_bytes,
            refused: outcome.refused.clone(),
            out_of_processes: outcome.out_of_processes,
            tier: e.tier.as_str().into(),
            container: e.container.clone().map(|c| (c.id, c.image, c.plan, c.set_up)),
            namespaces: e.namespaces.clone(),
            host_uid: e.host_uid,
            landlock_abi: e.landlock_abi,
            seccomp_filters: e.seccomp_filters,
            no_new_privs: e.no_new_privs,
            no_capabilities: e.no_capabilities,
            network: e.network.as_str().into(),
            exec_mode: e.exec_mode.as_str().into(),
            proofs: e.proofs,
            proof: e.proof.clone(),
            limits: e.limits.iter().map(|(k, m)| (k.as_str().into(), m.as_str().into())).collect(),
        }
    }

    fn read(self) -> Option<Outcome> {
        let ending = match self.ending.as_str() {
            "exited" => Ending::Exited(self.code),
            "signaled" => Ending::Signaled(self.code),
            other => Ending::parse(other)?,
        };
        let limit = |kind: LimitKind| Some((kind, Means::parse(self.limits.get(kind.as_str())?)?));
        let [cpu, memory, pids] = LimitKind::ALL;
        Some(Outcome {
            ending,
            elapsed: Duration::from_micros(self.elapsed_us),
            output_bytes: self.output_bytes,
            refused: self.refused,
            out_of_processes: self.out_of_processes,
            enforcement: Enforcement {
                tier: Tier::parse(&self.tier)?,
                container: self.container.map(|(id, image, plan, set_up)| Container { id, image, plan, set_up }),
                limits: [limit(cpu)?, limit(memory)?, limit(pids)?],
                namespaces: self.namespaces,
                host_uid: self.host_uid,
                landlock_abi: self.landlock_abi,
                seccomp_filters: self.seccomp_filters,
                no_new_privs: self.no_new_privs,
                no_capabilities: self.no_capabilities,
                network: Network::parse(&self.network)?,
                exec_mode: ExecMode::parse(&self.exec_mode)?,
                proofs: self.proofs,
                proof: self.proof,
            },
        })
    }
}

impl FaultRecord {
    fn new(fault: &RunFault) -> Self {
        let (what, more) = match fault {
            RunFault::Refused { what, hint } | RunFault::Engine { what, hint } => (what.clone(), hint.clone()),
            RunFault::WallMissing(fault) => (fault.step.clone(), fault.cause.clone()),
            RunFault::NotFound(command) => (command.clone(), String::new()),
            RunFault::NotExecutable { command, cause } => (command.clone(), cause.clone()),
            RunFault::NeverStarted(ending) => (ending.as_str().to_owned(), String::new()),
            RunFault::RunnerGone | RunFault::Busy | RunFault::LockedDown => Default::default(),
        };
        FaultRecord { kind: fault.code().into(), what, more }
    }

    fn read(self) -> RunFault {
        let FaultRecord { kind, what, more } = self;
        match kind.as_str() {
            "SANDBOX_REFUSED" => RunFault::Refused { what, hint: more },
            "ENGINE_UNAVAILABLE" => RunFault::Engine { what, hint: more },
            "WALL_UNAVAILABLE" => RunFault::WallMissing(LaunchFault { step: what, cause: more }),
            "COMMAND_NOT_FOUND" => RunFault::NotFound(what),
            "COMMAND_NOT_EXECUTABLE" => RunFault::NotExecutable { command: what, cause: more },
            "NEVER_STARTED" => Ending::parse(&what).map_or(RunFault::RunnerGone, RunFault::NeverStarted),
            "RUNNER_BUSY" => RunFault::Busy,
            "LOCKED_DOWN" => RunFault::LockedDown,
            _ => RunFault::RunnerGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let [cpu, memory, pids] = LimitKind::ALL;
        Outcome {
            ending: Ending::Signaled(9),
            elapsed: Duration::from_micros(1234),
            output_bytes: 7,
            refused: vec!["/usr/bin/id".into()],
            out_of_processes: true,
            enforcement: Enforcement {
                tier: Tier::Root,
                container: None,
                namespaces: vec!["mnt".into()],
                host_uid: 5,
                landlock_abi: 7,
                seccomp_filters: 1,
                no_new_privs: true,
                no_capabilities: true,
                network: Network::Host,
                exec_mode: ExecMode::Allowlist,
                proofs: 9,
                proof: "ab".into(),
                limits: [(cpu, Means::Unbounded), (memory, Means::Rlimit), (pids, Means::Cgroup)],
            },
        }
    }

    #[test]
    fn an_outcome_and_every_fault_arrive_as_they_were() {
        let sent = outcome();
        let read = Finished::new(&Ok(sent.clone())).read().unwrap();
        assert_eq!((read.ending, read.enforcement, read.elapsed), (sent.ending, sent.enforcement, sent.elapsed));
        for fault in [
            RunFault::Refused { what: "a".into(), hint: "b".into() },
            RunFault::WallMissing(LaunchFault { step: "a".into(), cause: "b".into() }),
            RunFault::NotFound("a".into()),
            RunFault::NotExecutable { command: "a".into(), cause: "b".into() },
            RunFault::NeverStarted(Ending::Cancelled),
            RunFault::RunnerGone,
            RunFault::Busy,
            RunFault::LockedDown,
        ] {
            assert_eq!(Finished::new(&Err(fault.clone())).read().unwrap_err(), fault);
        }
    }
}
