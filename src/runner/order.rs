//! The only format between the gateway and the runner: closed, versioned, bounded.
//!
//! A frame is a little-endian u32 length, one byte of kind, a little-endian u64 run number, and the
//! payload: JSON of a closed struct for control, raw bytes for data. Lengths count from the kind on. Beside the first
//! bytes of a Start stand the descriptors of its secrets, sealed memfds in the order of their names.

use super::finished::Finished;
use crate::model::{
    Delivery, Domain, EngineHost, ExecMode, FileAct, Limits, MOST_SECRETS_A_RUN, Network, SandboxProfile, SandboxScope,
    SecretName, SecretUse, StandingContainer, Stdin, Tier, WindowSize, WorkspaceAccess, is_variable_name,
};
use crate::sandbox::Command;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The version both sides must speak; the gateway and the runner are the same program, but may be upgraded apart.
pub(super) const VERSION: u32 = 6;

/// Largest frame in either direction, in bytes.
pub(super) const MAX_FRAME: usize = 1 << 20;

/// Output the runner may send of one run before the gateway has said that it was passed on.
pub(crate) const WINDOW: u32 = 256 << 10;

/// Standard input the gateway may send of one run before the runner has said that the command took it.
pub(super) const INPUT_WINDOW: u32 = 256 << 10;

/// What the gateway tells the runner.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    Start(Box<Start>),
    Input(Vec<u8>),
    InputEnd,
    Cancel,
    /// So many more bytes of output may be sent.
    Credit(u32),
    /// The terminal has another size.
    Resize(WindowSize),
    /// Stops every run of this connection and refuses new ones, or lets them go on; with run number 0.
    Hold(bool),
    /// Ends every run of this connection: an operator has locked everything down; with run number 0.
    LockDown,
    /// The next secret of the Start that follows, where no descriptor can stand beside it: into a container.
    Secret(Vec<u8>),
    /// What this sandbox keeps is gone, so its container goes too; with run number 0. In the runner of containers alone.
    Discard(String),
    /// Something about what sandboxes keep; the number is that of the question.
    Kept(KeptOrder),
    /// What stands for this sandbox; the command is nobody's, the number is that of the question. In the runner of
    /// containers alone.
    Look(Box<Start>),
}

/// What the runner tells the gateway.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Report {
    /// The first frame of a connection, with run number 0.
    Hello(Hello),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The command has taken so many bytes of input.
    InputTaken(u32),
    /// What became of a name or a connection, with `Network::Allowlist`.
    Network(Box<crate::egress::Report>),
    Finished(Box<Finished>),
    /// The answer to `Order::Kept`; more follow after a list.
    Kept(KeptReport),
    /// The answer to `Order::Look`; nothing where no container stands.
    Looked(Option<Box<Looked>>),
}

/// A container that stands for a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Looked {
    id: String,
    created: String,
    state: String,
    differences: Vec<String>,
}

impl Looked {
    pub(super) fn new(standing: StandingContainer) -> Self {
        let StandingContainer { id, created, state, differences } = standing;
        Looked { id, created, state, differences }
    }

    pub(super) fn read(self) -> StandingContainer {
        let Looked { id, created, state, differences } = self;
        StandingContainer { id, created, state, differences }
    }
}

/// What is asked about kept sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum KeptOrder {
    List,
    /// Out of its place, so that the next command gets a new one.
    TakeOut(String),
    /// Removes what was taken out.
    Sweep,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum KeptReport {
    /// Name, when it was used last, and for how many seconds it may lie unused.
    Listed(Vec<(String, u64, u64)>),
    Done,
    Missing,
    Failed(String),
}

/// The runner introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) pid: u32,
    /// The wall that cannot be built here, if one cannot: then nothing runs.
    pub(super) unable: Option<String>,
}

/// One command and its walls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    argv: Vec<String>,
    cwd: PathBuf,
    env: BTreeMap<String, String>,
    stdin: bool,
    image: String,
    setup: Option<String>,
    /// Where the engine is, the folder of its certificates, ssh's configuration.
    engine: Option<(String, Option<PathBuf>, Option<PathBuf>)>,
    workspace: Option<PathBuf>,
    workspace_access: String,
    scope: String,
    kept: Option<PathBuf>,
    idle_seconds: u64,
    age_seconds: Option<u64>,
    network: String,
    domains: Vec<String>,
    read_only: Vec<PathBuf>,
    read_write: Vec<PathBuf>,
    milli_cpus: u32,
    memory_bytes: u64,
    pids: u32,
    timeout_ms: u64,
    output_bytes: u64,
    scratch_bytes: u64,
    disk_bytes: u64,
    exec_mode: String,
    exec_allow: Vec<String>,
    least_tier: String,
    /// Rows and columns.
    terminal: Option<(u16, u16)>,
    file: Option<FileRecord>,
    secrets: Vec<SecretRecord>,
}

/// An act of a file tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "act", rename_all = "kebab-case")]
enum FileRecord {
    Read { path: String, offset: u64, length: u64 },
    Write { path: String, append: bool },
    List { path: String },
}

impl FileRecord {
    fn new(act: &FileAct) -> Self {
        match act.clone() {
            FileAct::Read { path, offset, length } => FileRecord::Read { path, offset, length },
            FileAct::Write { path, append } => FileRecord::Write { path, append },
            FileAct::List { path } => FileRecord::List { path },
        }
    }

    fn read(self) -> FileAct {
        match self {
            FileRecord::Read { path, offset, length } => FileAct::Read { path, offset, length },
            FileRecord::Write { path, append } => FileAct::Write { path, append },
            FileRecord::List { path } => FileAct::List { path },
        }
    }
}

/// A secret of the command. Its value is no part of this format: a descriptor beside the frame holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretRecord {
    name: String,
    variable: Option<String>,
}

impl SecretRecord {
    fn new(wanted: &SecretUse) -> Self {
        SecretRecord { name: wanted.name.to_string(), variable: wanted.variable().map(ToOwned::to_owned) }
    }

    fn read(self) -> Option<SecretUse> {
        let delivery = match self.variable {
            None => Delivery::File,
            Some(variable) => Delivery::Variable(Some(variable).filter(|v| is_variable_name(v))?),
        };
        Some(SecretUse { name: SecretName::parse(&self.name).ok()?, delivery })
    }
}

impl Start {
    /// How many secrets it names: so many descriptors come beside it.
    pub(super) fn secrets(&self) -> usize {
        self.secrets.len()
    }

    pub(super) fn new(command: &Command, stdin: Stdin, profile: &SandboxProfile) -> Self {
        let limits = &profile.limits;
        Start {
            argv: command.argv.clone(),
            cwd: command.cwd.clone(),
            env: command.env.clone(),
            stdin: stdin == Stdin::Piped,
            image: profile.image.clone(),
            setup: profile.setup.clone(),
            engine: profile.engine.as_ref().map(|engine| {
                let (url, tls, ssh_config) = engine.parts();
                (url, tls.map(Into::into), ssh_config.map(Into::into))
            }),
            workspace: profile.workspace.clone(),
            workspace_access: profile.workspace_access.as_str().into(),
            scope: profile.scope.as_str().into(),
            kept: profile.kept.clone(),
            idle_seconds: profile.idle.as_secs(),
            age_seconds: profile.age.map(|age| age.as_secs()),
            network: profile.network.as_str().into(),
            domains: profile.domains.iter().map(ToString::to_string).collect(),
            read_only: profile.read_only.clone(),
            read_write: profile.read_write.clone(),
            milli_cpus: limits.milli_cpus,
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
            timeout_ms: limits.timeout.as_millis().try_into().unwrap_or(u64::MAX),
            output_bytes: limits.output_bytes,
            scratch_bytes: limits.scratch_bytes,
            disk_bytes: limits.disk_bytes,
            exec_mode: profile.exec_mode.as_str().into(),
            exec_allow: profile.exec_allow.clone(),
            least_tier: profile.least_tier.as_str().into(),
            terminal: command.terminal.map(|size| (size.rows, size.columns)),
            file: command.file.as_ref().map(FileRecord::new),
            secrets: command.secrets.iter().map(SecretRecord::new).collect(),
        }
    }

    /// What is to be run and in which walls; `None` where a word is none of ours.
    pub(super) fn read(self) -> Option<(Command, Stdin, SandboxProfile)> {
        let profile = SandboxProfile {
            image: self.image,
            setup: self.setup,
            engine: match self.engine {
                None => None,
                Some((url, tls, ssh)) => Some(EngineHost::parse(&url, tls.as_deref(), ssh.as_deref()).ok()?),
            },
            workspace: self.workspace,
            workspace_access: WorkspaceAccess::parse(&self.workspace_access)?,
            scope: SandboxScope::parse(&self.scope)?,
            kept: self.kept,
            idle: Duration::from_secs(self.idle_seconds),
            age: self.age_seconds.map(Duration::from_secs),
            network: Network::parse(&self.network)?,
            domains: self.domains.iter().map(|text| Domain::parse(text).ok()).collect::<Option<_>>()?,
            read_only: self.read_only,
            read_write: self.read_write,
            env_allow: Vec::new(),
            exec_mode: ExecMode::parse(&self.exec_mode)?,
            exec_allow: self.exec_allow,
            least_tier: Tier::parse(&self.least_tier)?,
            limits: Limits {
                milli_cpus: self.milli_cpus,
                memory_bytes: self.memory_bytes,
                pids: self.pids,
                timeout: Duration::from_millis(self.timeout_ms),
                output_bytes: self.output_bytes,
                scratch_bytes: self.scratch_bytes,
                disk_bytes: self.disk_bytes,
            },
            ..SandboxProfile::default()
        };
        let stdin = if self.stdin { Stdin::Piped } else { Stdin::Closed };
        if self.secrets.len() > MOST_SECRETS_A_RUN {
            return None;
        }
        let secrets = self.secrets.into_iter().map(SecretRecord::read).collect::<Option<_>>()?;
        let terminal = self.terminal.map(|(rows, columns)| WindowSize { rows, columns });
        let file = self.file.map(FileRecord::read);
        Some((Command { argv: self.argv, cwd: self.cwd, env: self.env, secrets, terminal, file }, stdin, profile))
    }
}

/// A payload with its kind: what `framing` puts on the socket.
pub(super) trait Message: Sized {
    /// The kind byte and the payload.
    fn parts(&self) -> (u8, Vec<u8>);
    /// The message of this kind, or `None` where there is none or the payload is not one.
    fn from_parts(kind: u8, payload: Vec<u8>) -> Option<Self>;
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl Message for Order {
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Order::Start(start) => (1, json(start)),
            Order::Input(bytes) => (2, bytes.clone()),
            Order::InputEnd => (3, Vec::new()),
            Order::Cancel => (4, Vec::new()),
            Order::Credit(bytes) => (5, bytes.to_le_bytes().to_vec()),
            Order::Resize(size) => (6, [size.rows.to_le_bytes(), size.columns.to_le_bytes()].concat()),
            Order::Hold(held) => (7, vec![u8::from(*held)]),
            Order::LockDown => (8, Vec::new()),
            Order::Secret(bytes) => (9, bytes.clone()),
            Order::Discard(sandbox) => (10, sandbox.clone().into_bytes()),
            Order::Kept(order) => (11, json(order)),
            Order::Look(start) => (12, json(start)),
        }
    }

    fn from_parts(kind: u8, payload: Vec<u8>) -> Option<Self> {
        match kind {
            1 => serde_json::from_slice(&payload).ok().map(|s| Order::Start(Box::new(s))),
            2 => Some(Order::Input(payload)),
            3 => payload.is_empty().then_some(Order::InputEnd),
            4 => payload.is_empty().then_some(Order::Cancel),
            5 => Some(Order::Credit(u32::from_le_bytes(payload.try_into().ok()?))),
            6 => {
                let [r0, r1, c0, c1] = payload.try_into().ok()?;
                let (rows, columns) = (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1]));
                Some(Order::Resize(WindowSize { rows, columns }))
            }
            7 => match payload[..] {
                [0] => Some(Order::Hold(false)),
                [1] => Some(Order::Hold(true)),
                _ => None,
            },
            8 => payload.is_empty().then_some(Order::LockDown),
            9 => Some(Order::Secret(payload)),
            10 => String::from_utf8(payload).ok().map(Order::Discard),
            11 => serde_json::from_slice(&payload).ok().map(Order::Kept),
            12 => serde_json::from_slice(&payload).ok().map(|s| Order::Look(Box::new(s))),
            _ => None,
        }
    }
}

impl Message for Report {
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Report::Hello(hello) => (1, json(hello)),
            Report::Stdout(bytes) => (2, bytes.clone()),
            Report::Stderr(bytes) => (3, bytes.clone()),
            Report::InputTaken(bytes) => (4, bytes.to_le_bytes().to_vec()),
            Report::Finished(finished) => (5, json(finished)),
            Report::Network(report) => (6, json(report)),
            Report::Kept(report) => (7, json(report)),
            Report::Looked(looked) => (8, json(looked)),
        }
    }

    fn from_parts(kind: u8, payload: Vec<u8>) -> Option<Self> {
        match kind {
            1 => serde_json::from_slice(&payload).ok().map(Report::Hello),
            2 => Some(Report::Stdout(payload)),
            3 => Some(Report::Stderr(payload)),
            4 => Some(Report::InputTaken(u32::from_le_bytes(payload.try_into().ok()?))),
            5 => serde_json::from_slice(&payload).ok().map(|f| Report::Finished(Box::new(f))),
            6 => crate::egress::Report::decode(&payload).map(|r| Report::Network(Box::new(r))),
            7 => serde_json::from_slice(&payload).ok().map(Report::Kept),
            8 => serde_json::from_slice(&payload).ok().map(Report::Looked),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ordered_is_what_arrives() {
        let profile = SandboxProfile { workspace: Some("/srv/x".into()), network: Network::Host, ..Default::default() };
        let env = [("C".into(), "d".into())].into();
        let secrets = [Delivery::File, Delivery::Variable("V".into())]
            .map(|delivery| SecretUse { name: SecretName::parse("S").unwrap(), delivery });
        let terminal = Some(WindowSize { rows: 2, columns: 3 });
        let file = Some(FileAct::Read { path: "a/b".into(), offset: 3, length: 9 });
        let command = Command { argv: vec!["a".into()], cwd: "b".into(), env, secrets: secrets.into(), terminal, file };
        let order = Order::Start(Box::new(Start::new(&command, Stdin::Piped, &profile)));
        let (kind, payload) = order.parts();
        let Some(Order::Start(start)) = Order::from_parts(kind, payload) else { panic!("not a start") };
        assert_eq!(start.read(), Some((command, Stdin::Piped, profile)));
    }

    #[test]
    fn every_small_order_arrives_as_it_was() {
        let size = WindowSize { rows: 258, columns: 3 };
        for order in [
            Order::Resize(size),
            Order::Hold(true),
            Order::Hold(false),
            Order::LockDown,
            Order::Credit(7),
            Order::Kept(KeptOrder::TakeOut("shared".into())),
        ] {
            let (kind, payload) = order.parts();
            assert_eq!(Order::from_parts(kind, payload), Some(order));
        }
        assert_eq!(Order::from_parts(7, vec![2]), None);
        assert_eq!(Order::from_parts(6, vec![1, 2, 3]), None);
    }

    #[test]
    fn an_unknown_field_word_or_kind_is_no_order() {
        let secret = SecretUse { name: SecretName::parse("S").unwrap(), delivery: Delivery::Variable("V".into()) };
        let (kind, payload) = Order::Start(Box::new(Start::new(
            &Command {
                argv: vec![],
                cwd: "".into(),
                env: Default::default(),
                secrets: vec![secret],
                terminal: None,
                file: None,
            },
            Stdin::Closed,
            &SandboxProfile::default(),
        )))
        .parts();
        let text = String::from_utf8(payload).unwrap();
        assert_eq!(Order::from_parts(kind, text.replacen('{', r#"{"privileged":true,"#, 1).into_bytes()), None);
        for (right, wrong) in [("\"none\"", "\"all\""), ("\"S\"", "\"../S\""), ("\"V\"", "\"V=W\""), ("\"V\"", "\"\"")]
        {
            let Some(Order::Start(start)) = Order::from_parts(kind, text.replace(right, wrong).into_bytes()) else {
                panic!("not a start")
            };
            assert_eq!(start.read(), None, "{wrong}");
        }
        assert_eq!(Order::from_parts(99, Vec::new()), None);
        assert_eq!(Order::from_parts(5, vec![1]), None);
    }
}
