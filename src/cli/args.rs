//! Every command and flag, with the text that `--help`, the man pages and the completions show.

mod sandbox;
mod service;

pub(super) use sandbox::{
    BackendArg, BuildImageArgs, CheckImageArgs, FileArgs, Net, SandboxCommand, SandboxExplainArgs, SandboxProbeArgs,
    SandboxPruneArgs, SandboxRunArgs,
};
pub(super) use service::{ServiceArgs, ServiceCommand};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// A gateway through which AI agents run commands inside walls, with evidence.
#[derive(Debug, Parser)]
#[command(name = "vambrace", version, max_term_width = 100, propagate_version = true)]
#[command(
    after_help = "Exit codes of `exec` and `sandbox run`: the command's own; 124 timed out; 125 vambrace failed; \
126 refused; 127 not found; 128+n ended by signal n; wrong usage of them is 125 too. Other commands: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) places: PlaceArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where things are; the same for every command.
#[derive(Debug, Clone, Args)]
pub(super) struct PlaceArgs {
    /// Configuration file [env: VAMBRACE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// State folder; its gateway has its sockets below it [env: VAMBRACE_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Gateway to talk to instead of the one on its unix socket: wss://HOST[:PORT], or ws:// on loopback; with
    /// VAMBRACE_TOKEN or VAMBRACE_PASSWORD, or as a paired device [env: VAMBRACE_GATEWAY_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub(super) url: Option<String>,
    /// SHA-256 of the certificate that gateway must show; remembered once it did [env: VAMBRACE_GATEWAY_FINGERPRINT]
    #[arg(long, global = true, value_name = "HEX")]
    pub(super) fingerprint: Option<String>,
}

/// Whether facts are printed for machines.
#[derive(Debug, Clone, Args)]
pub(super) struct Output {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway in the foreground
    Gateway(GatewayArgs),
    /// Run the runner alone, as a service of its own
    Runner(RunnerArgs),
    /// Be the way out of one sandbox; the runner starts it
    #[command(hide = true)]
    Egress(EgressArgs),
    /// Run a command through the gateway, inside walls
    Exec(ExecArgs),
    /// Walls without a gateway: run, look at, probe
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Say what the gateway is and does
    Status(Output),
    /// Ask whether commands can be run; exit 0 if they can
    Health(Output),
    /// Show or replace the gateway's token; on the gateway's own host only
    #[command(subcommand)]
    Token(TokenCommand),
    /// Set the gateway's password, from a prompt or standard input
    #[command(subcommand)]
    Password(PasswordCommand),
    /// Say which devices may come in, and pair this command line with a gateway
    #[command(subcommand)]
    Devices(DevicesCommand),
    /// Say what paired nodes may offer
    #[command(subcommand)]
    Node(NodeCommand),
    /// Keep secrets for agents, and the key that everything is sealed with
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Write the whole state to one sealed file (age format) that opens on another machine
    Backup(BackupArgs),
    /// Make a state folder out of a backup, sealed under this machine's key; the gateway must not run
    Restore(RestoreArgs),
    /// Stop every sandbox at once, and let no command begin
    #[command(subcommand)]
    Lockdown(LockdownCommand),
    /// Read the journal and check its chain
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Check, show and describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Keep the gateway as a service of this host, or of one user
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Say what this host lacks, and the command that repairs it; exit 1 where something required is missing
    Doctor(Output),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page, or write all of them
    Man {
        /// The command whose page to print, e.g. `exec` or `sandbox run`; also `vambrace.toml` and `vambrace.7`; without it
        /// that of vambrace
        command: Option<String>,
        /// Write every page into this folder instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    /// Where to listen: `loopback`, `tailnet`, `lan` or an address; beyond loopback with TLS or a trusted proxy
    #[arg(long)]
    pub(super) bind: Option<String>,
    /// TCP port; 0 takes a free one
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Have commands run by the runner that listens here, instead of starting one
    #[arg(long, value_name = "PATH")]
    pub(super) runner_socket: Option<PathBuf>,
    /// The same for the runner of containers
    #[arg(long, value_name = "PATH")]
    pub(super) docker_runner_socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RunnerArgs {
    /// Listen for the gateway on this unix socket
    #[arg(long, value_name = "PATH", required_unless_present_any = ["inherited", "in_container", "rest"])]
    pub(super) socket: Option<PathBuf>,
    /// User whose gateway may give orders: a name or uid; without it, our own
    #[arg(long, value_name = "USER")]
    pub(super) gateway_user: Option<String>,
    /// Never show this path inside a sandbox, nor anything above or below it
    #[arg(long, value_name = "PATH")]
    pub(super) protect: Vec<PathBuf>,
    /// Where sandboxes keep their trees
    #[arg(long, value_name = "DIR")]
    pub(super) kept: Option<PathBuf>,
    /// Where agents without a workspace of their own get one
    #[arg(long, value_name = "DIR")]
    pub(super) workspaces: Option<PathBuf>,
    /// Have connections that sandboxes may make carried out by the service that listens here, as a runner without a network
    #[arg(long, value_name = "PATH", requires = "socket")]
    pub(super) egress_socket: Option<PathBuf>,
    /// Home folder that is never shown inside a sandbox
    #[arg(long, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// Take orders from standard input, a socket: how the gateway starts its own runner
    #[arg(long, hide = true, conflicts_with = "socket")]
    pub(super) inherited: bool,
    /// What builds the walls: each backend has a runner of its own
    #[arg(long, value_enum, default_value = "native")]
    pub(super) backend: BackendArg,
    /// With --backend docker: the engine's socket
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    pub(super) engine: PathBuf,
    /// With --backend docker: another engine that profiles may name, as JSON: {"host": "ssh://…", "ssh_config": "/…"}
    #[arg(long, value_name = "JSON")]
    pub(super) elsewhere: Vec<String>,
    /// With --backend docker: a folder of ours where mounts stand for the engine
    #[arg(long, value_name = "DIR", required_if_eq("backend", "docker"))]
    pub(super) scratch: Option<PathBuf>,
    /// With --backend docker: tells this gateway's containers from another's, 16 hex digits; without it, made of this
    /// machine's id and --kept
    #[arg(long, value_name = "ID")]
    pub(super) gateway: Option<String>,
    /// Take orders by pipes inside a container: how the docker runner gets into one
    #[arg(long, hide = true, conflicts_with_all = ["socket", "inherited"])]
    pub(super) in_container: bool,
    /// Do nothing until told to end: what keeps a container between two commands
    #[arg(long, hide = true, conflicts_with_all = ["socket", "inherited", "in_container"])]
    pub(super) rest: bool,
}

#[derive(Debug, Args)]
pub(super) struct EgressArgs {
    /// Become this uid, and the gid of the same number
    #[arg(long)]
    pub(super) uid: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Agent for whom the command runs
    #[arg(long, default_value = "main")]
    pub(super) agent: String,
    /// Session of the agent: its commands share a home folder and /tmp
    #[arg(long)]
    pub(super) session: Option<String>,
    /// Named profile of the configuration instead of the agent's own walls
    #[arg(long)]
    pub(super) profile: Option<String>,
    /// Working folder inside the workspace
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<String>,
    /// Environment variable for the command; its name must be allowed
    #[arg(long = "env", value_name = "K=V")]
    pub(super) env: Vec<String>,
    /// Secret to be the file /run/secrets/NAME; may be given again
    #[arg(long, value_name = "NAME")]
    pub(super) secret: Vec<String>,
    /// Secret to be an environment variable, of its own name or another; may be given again. Whatever the command starts
    /// inherits it: prefer a file
    #[arg(long, value_name = "NAME[=VARIABLE]")]
    pub(super) secret_env: Vec<String>,
    /// End the command after this time, e.g. 30s; never more than its profile allows
    #[arg(long, value_name = "TIME")]
    pub(super) timeout: Option<String>,
    /// Give the command a terminal, joined to this one
    #[arg(short, long, conflicts_with = "json")]
    pub(super) tty: bool,
    /// Where it runs
    #[arg(long, value_enum, default_value = "sandbox")]
    pub(super) host: Host,
    /// Print one JSON object with output, ending and walls instead of streaming
    #[arg(long)]
    pub(super) json: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Host {
    /// Inside walls on the gateway's host
    Sandbox,
}

#[derive(Debug, Subcommand)]
pub(super) enum LockdownCommand {
    /// Stop what runs and refuse what is asked, also after a restart, until `lockdown off`
    On(LockdownOnArgs),
    /// Let everything go on; for an operator with admin scope
    Off(Output),
    /// Say whether it is on, and how many commands stand still
    Status(Output),
}

#[derive(Debug, Args)]
pub(super) struct LockdownOnArgs {
    /// End what runs instead of stopping it where it is
    #[arg(long)]
    pub(super) kill: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print the token
    Show(Output),
    /// Replace the token; the old one opens nothing any more, and its connections are closed
    Rotate(Output),
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretsCommand {
    /// Keep a secret, its value from a prompt or standard input
    Set(SecretsSetArgs),
    /// Show names and who may use them; never a value
    List(Output),
    /// Forget a secret and every grant of it
    Remove {
        /// The secret
        name: String,
    },
    /// Keep all secrets of a file, or of standard input
    Import(SecretsImportArgs),
    /// Seal everything anew under a new key, from the best source there is; works with and without a running gateway
    RotateKey(Output),
}

/// Who may use a secret.
#[derive(Debug, Args)]
pub(super) struct GrantArgs {
    /// Agent that may use it; may be given again. Without it a new secret is nobody's, and an old one's grants stay
    #[arg(long, value_name = "AGENT")]
    pub(super) agent: Vec<String>,
    /// No agent may use it
    #[arg(long, conflicts_with = "agent")]
    pub(super) no_agent: bool,
}

#[derive(Debug, Args)]
pub(super) struct SecretsSetArgs {
    /// Its name: A-Z, 0-9 and '_'
    pub(super) name: String,
    #[command(flatten)]
    pub(super) grant: GrantArgs,
    /// Change who may use it and leave the value as it is
    #[arg(long)]
    pub(super) keep_value: bool,
    /// Keep every byte of standard input, also a line's end
    #[arg(long)]
    pub(super) exact: bool,
}

#[derive(Debug, Args)]
pub(super) struct SecretsImportArgs {
    /// File to read; without it, or with '-', standard input
    pub(super) file: Option<PathBuf>,
    /// What it is
    #[arg(long, value_enum, default_value = "env")]
    pub(super) format: ImportFormat,
    #[command(flatten)]
    pub(super) grant: GrantArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ImportFormat {
    /// Lines NAME=VALUE
    Env,
    /// One object of names and texts
    Json,
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// File to write, which must not be there; '-' is standard output
    pub(super) file: PathBuf,
    /// Seal it for this age recipient instead of a passphrase from a prompt or standard input
    #[arg(long, value_name = "AGE1…")]
    pub(super) recipient: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    pub(super) file: PathBuf,
    /// File with the age identity that opens it, instead of a passphrase from a prompt or standard input
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,
    /// Put it in the place of the state that is there, which is lost
    #[arg(long)]
    pub(super) replace: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum JournalCommand {
    /// Print the latest entries and then new ones as they come
    Tail(JournalListArgs),
    /// Print the latest entries
    List(JournalListArgs),
    /// Walk the chain of all entries; exit 1 where it does not hold
    Verify(JournalVerifyArgs),
    /// Print what `journalctl -x` says of each event: the message catalog for journald
    Catalog,
}

#[derive(Debug, Clone, Args)]
pub(super) struct JournalListArgs {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
    /// Only entries after this number
    #[arg(long, value_name = "SEQ")]
    pub(super) after: Option<u64>,
    /// Only this event, e.g. exec.finished
    #[arg(long, value_name = "EVENT")]
    pub(super) event: Option<String>,
    /// Read this journal folder instead of asking the gateway
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Print JSON, one entry a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct JournalVerifyArgs {
    /// Read this journal folder instead of asking the gateway
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Read the file and say what is wrong with it, with line and column
    Check(Output),
    /// Have the running gateway read the file again; exit 1 where it does not take it
    Reload(Output),
    /// Print the settings in force
    Show(Output),
    /// Print the path of the file
    Path,
    /// Print the JSON Schema of the file
    Schema,
}

#[derive(Debug, Subcommand)]
pub(super) enum PasswordCommand {
    /// Set it; the old one opens nothing any more, and its connections are closed
    Set,
}

/// What a device comes in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleArg {
    /// It asks: an operator's client, or an agent
    Operator,
    /// It is asked: a host that runs commands for the gateway
    Node,
}

impl RoleArg {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            RoleArg::Operator => "operator",
            RoleArg::Node => "node",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum DevicesCommand {
    /// Show requests that wait, and paired devices
    List(Output),
    /// Let a device in that waits, for what it asks or less
    Approve(ApproveArgs),
    /// Refuse a request; the device may ask again
    Reject(RequestArgs),
    /// Take a device's token away; it must be approved again
    Revoke(RevokeArgs),
    /// Give a device a new token; it may hold less from then on, never more
    Rotate(RotateArgs),
    /// Give a device a name
    Rename(RenameArgs),
    /// Forget a device and everything granted to it
    Remove(DeviceArgs),
    /// Make a setup code that pairs one device at once
    Invite(InviteArgs),
    /// Pair this command line with the gateway that made a setup code, read from a prompt or standard input
    Join,
    /// Show who this command line is to the gateway of --url
    Identity(IdentityArgs),
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// The request, or the beginning of it
    pub(super) request: String,
    /// Grant only this scope of those asked for; may be given again
    #[arg(long, value_name = "SCOPE")]
    pub(super) scope: Vec<String>,
    /// It is this agent, and may run commands for itself and nothing else
    #[arg(long, value_name = "AGENT", conflicts_with = "scope")]
    pub(super) agent: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// The request, or the beginning of it
    pub(super) request: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// The device, or the beginning of its id
    pub(super) device: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RenameArgs {
    /// The device, or the beginning of its id
    pub(super) device: String,
    /// Its new name
    pub(super) name: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The device, or the beginning of its id
    pub(super) device: String,
    /// The role it loses
    #[arg(long, value_enum, default_value = "operator")]
    pub(super) role: RoleArg,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The device, or the beginning of its id
    pub(super) device: String,
    /// The role whose token is replaced
    #[arg(long, value_enum, default_value = "operator")]
    pub(super) role: RoleArg,
    /// Keep only this scope; may be given again
    #[arg(long, value_name = "SCOPE")]
    pub(super) scope: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    /// What the device comes in as
    #[arg(long, value_enum, default_value = "operator")]
    pub(super) role: RoleArg,
    /// Grant this scope; may be given again; without it operator.read
    #[arg(long, value_name = "SCOPE", conflicts_with = "agent")]
    pub(super) scope: Vec<String>,
    /// It is this agent, and may run commands for itself and nothing else
    #[arg(long, value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// How the device reaches the gateway; without it `gateway.public_url` or the address it listens on
    #[arg(long, value_name = "URL")]
    pub(super) public_url: Option<String>,
    /// Print the code alone, without its picture
    #[arg(long)]
    pub(super) no_qr: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// Also print the key that signs HTTP requests to it; it is a secret
    #[arg(long)]
    pub(super) signing_key: bool,
    /// Forget what that gateway gave us: its certificate and our token; it is then a stranger
    #[arg(long, conflicts_with = "signing_key")]
    pub(super) forget: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Show nodes and what is enabled
    List(Output),
    /// Show what nodes declare that is not enabled yet
    Pending(Output),
    /// Show everything about a node
    Describe(NodeArgs),
    /// Enable what a node declares
    Approve(RequestArgs),
    /// Refuse what a node declares
    Reject(RequestArgs),
    /// Give a node a name
    Rename(RenameArgs),
    /// Take a node's commands and its token away
    Remove(NodeArgs),
}

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node, or the beginning of its id
    pub(super) node: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}
