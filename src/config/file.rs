//! The file a person writes: TOML, unknown keys refused, errors with line, column and a caret.

use super::layer::Layer;
use crate::model::EngineHost;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) gateway: GatewayFile,
    pub(crate) runner: RunnerFile,
    pub(crate) docker: DockerFile,
    pub(crate) journal: JournalFile,
    pub(crate) store: StoreFile,
    pub(crate) defaults: DefaultsFile,
    /// Agents by name.
    pub(crate) agents: BTreeMap<String, AgentFile>,
    /// Named walls that a request may choose.
    pub(crate) profiles: BTreeMap<String, Layer>,
}

/// Where the gateway listens and who may come in.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GatewayFile {
    /// `loopback`, `tailnet`, `lan`, or an address. Anything beyond loopback takes authentication, and TLS or a trusted
    /// proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bind: Option<String>,
    /// TCP port, 18789 without it; 0 takes a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Names besides our addresses by which clients and proxies call us: what a Host header may carry.
    pub(crate) hosts: Vec<String>,
    /// Web pages that may connect, as `scheme://host[:port]`.
    pub(crate) allowed_origins: Vec<String>,
    /// How devices beyond this host reach us, e.g. `wss://gateway.example.org`; what setup codes carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_url: Option<String>,
    pub(crate) auth: AuthFile,
    pub(crate) tls: TlsFile,
}

/// TLS on the TCP port.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsFile {
    /// Without a certificate here, one of our own is made; `status` shows its fingerprint.
    pub(crate) enabled: bool,
    /// The certificate and its chain, PEM. Read again on SIGHUP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
}

/// Authentication.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<AuthMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local_trust: Option<LocalTrustFile>,
    /// Users besides root and our own who may use the unix socket: names or uids.
    pub(crate) operators: Vec<Operator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trusted_proxy: Option<TrustedProxyFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tailnet: Option<TailnetFile>,
}

/// What somebody beyond the unix socket must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuthMode {
    /// The gateway's token.
    Token,
    /// The gateway's password; `vambrace password set` sets it.
    Password,
    /// A user that a trusted proxy names.
    TrustedProxy,
    /// A user that the tailnet names.
    Tailnet,
    /// Nothing; on loopback alone.
    None,
}

/// What a process of this host gets without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LocalTrustFile {
    /// The unix socket admits operators; loopback TCP always needs a credential.
    Socket,
    /// A direct loopback connection of an operator's uid other than root needs none either.
    SameUser,
    /// Nor does any direct loopback connection, whoever's it is.
    Loopback,
    /// The unix socket admits root alone.
    Off,
}

/// Proxies whose word about users is taken; with `mode = "trusted-proxy"`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TrustedProxyFile {
    /// Addresses or networks they connect from. On this host an address is not enough: see `users` and `client_ca`.
    pub(crate) proxies: Vec<String>,
    /// Users of this host whose processes are proxies, by the kernel's word: names or uids.
    pub(crate) users: Vec<Operator>,
    /// PEM of the authority whose certificate a proxy must show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca: Option<PathBuf>,
    /// The header that names the user; the proxy must set or remove it on every request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_header: Option<String>,
    /// Users that are let in; `["*"]` for everybody whom the proxy names.
    pub(crate) allow_users: Vec<String>,
    /// What they may hold; every operator scope unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<Vec<String>>,
}

/// Users whom tailscaled names; with `mode = "tailnet"`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TailnetFile {
    /// tailscaled's socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<PathBuf>,
    /// Logins that are let in; `["*"]` for everybody on the tailnet.
    pub(crate) allow_users: Vec<String>,
    /// What they may hold; every operator scope unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<Vec<String>>,
}

/// A user by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Operator {
    Uid(u32),
    Name(String),
}

/// The runner.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunnerFile {
    /// The socket of a runner that is its own service; without it the gateway starts one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<PathBuf>,
    /// The same for the runner of containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) docker_socket: Option<PathBuf>,
}

/// A container engine. The environment is never asked for one.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DockerFile {
    /// Where it is: `unix:///PATH` (`unix:///var/run/docker.sock` without it); on another machine `tcp://ADDRESS:PORT` or
    /// `ssh://[USER@]HOST[:PORT]`, whose containers see nothing of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// With `tcp://`: a folder with ca.pem, cert.pem and key.pem. Without TLS no engine is spoken to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<PathBuf>,
    /// With `ssh://`: the configuration of ssh, which names keys and known hosts, instead of the runner's user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ssh_config: Option<PathBuf>,
}

impl DockerFile {
    /// An engine as a runner is told of it on its command line.
    pub(crate) fn told(engine: &EngineHost) -> String {
        let (host, tls, ssh_config) = engine.parts();
        let file = DockerFile { host: Some(host), tls: tls.map(Into::into), ssh_config: ssh_config.map(Into::into) };
        serde_json::to_string(&file).unwrap_or_default()
    }

    /// The reverse.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn engine(text: &str) -> Result<EngineHost, String> {
        let file: DockerFile = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let host = file.host.ok_or("`host` is missing")?;
        EngineHost::parse(&host, file.tls.as_deref(), file.ssh_config.as_deref()).map_err(ToOwned::to_owned)
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == DockerFile::default()
    }
}

/// The key that the state is sealed with.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreFile {
    /// Where the key comes from; without it the first there is of a credential, a key file and the machine itself.
    /// A state that is sealed already opens with the key it was sealed with, until `vambrace secrets rotate-key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<KeyFrom>,
    /// A file of 32 random bytes or 64 hex digits, mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// The key file before this one, until `vambrace secrets rotate-key` has sealed everything with the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous_key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyFrom {
    /// `vambrace.key` among the credentials systemd gave the service.
    SystemdCredential,
    /// `key_file`.
    KeyFile,
    /// scrypt of the host's id and a random salt in the state folder.
    Machine,
}

/// The journal.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JournalFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) journald: Option<JournaldFile>,
}

/// Whether records go to journald as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JournaldFile {
    /// Where it runs.
    Auto,
    /// Always; what it does not take is not done.
    Required,
    /// Never.
    Off,
}

/// What holds for every agent.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DefaultsFile {
    pub(crate) sandbox: Layer,
    pub(crate) exec: ExecFile,
}

/// What may be executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExecFile {
    /// Inside the walls: `full`, where the walls are the limit, or `allowlist`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox_mode: Option<SandboxModeFile>,
    /// With `allowlist`: absolute paths inside of executables and folders of such, `*` and `?` allowed. Whatever an
    /// interpreter on the list is told to do, it does. What commands write is never executed, nor what a link there names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SandboxModeFile {
    Full,
    Allowlist,
}

/// One agent.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AgentFile {
    /// Its folder on the host, shown as /workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<PathBuf>,
    /// Named profiles that the agent itself may choose; an operator may choose any for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) profiles: Vec<String>,
    pub(crate) sandbox: Layer,
    pub(crate) exec: ExecFile,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigFault {
    /// `file:line:col`, or the file alone.
    pub(crate) place: String,
    pub(crate) message: String,
    /// The line and a caret below the column.
    pub(crate) excerpt: Option<String>,
    pub(crate) hint: Option<String>,
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFault {}

impl ConfigFault {
    /// A file that was named and is not there.
    pub(crate) fn missing(path: &Path) -> Self {
        ConfigFault {
            place: path.display().to_string(),
            message: "there is no such file".into(),
            excerpt: None,
            hint: Some("leave --config out to run with defaults".into()),
        }
    }

    /// A fault of a value rather than of the text: names the key.
    pub(super) fn at_key(path: &Path, key: &str, message: impl Into<String>, hint: &str) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let found = find_key(&text, key).map(|span| locate(&text, span));
        ConfigFault {
            place: match &found {
                Some((line, column, _)) => format!("{}:{line}:{column}", path.display()),
                // From a flag, or composed of several.
                None => path.display().to_string(),
            },
            message: format!("{key}: {}", message.into()),
            excerpt: found.map(|(_, _, excerpt)| excerpt),
            hint: Some(hint.into()),
        }
    }
}

/// Largest file read.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file; `None` where there is none.
///
/// # Errors
/// Where it cannot be read or is no configuration, with the place and the nearest key.
pub(crate) fn read(path: &Path) -> Result<Option<File>, ConfigFault> {
    let fault = |message: String| ConfigFault {
        place: path.display().to_string(),
        message,
        excerpt: None,
        hint: Some("a text in TOML, readable for whom it is; --config names another".into()),
    };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fault(format!("cannot be read: {e}"))),
        Ok(meta) if !meta.is_file() || meta.len() > MAX_FILE => {
            return Err(fault("is not a regular file of at most 1 MiB".into()));
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(|e| fault(format!("cannot be read: {e}")))?;
    parse(path, &text).map(Some)
}

fn parse(path: &Path, text: &str) -> Result<File, ConfigFault> {
    toml::from_str(text).map_err(|e| {
        let (line, column, excerpt) = locate(text, e.span().unwrap_or(0..0));
        let message = e.message().lines().next().unwrap_or("is no configuration").to_owned();
        ConfigFault {
            place: format!("{}:{line}:{column}", path.display()),
            hint: nearest(&message).or_else(|| Some("`vambrace man vambrace.toml` describes every key".into())),
            message,
            excerpt: Some(excerpt),
        }
    })
}

/// Where a dotted key stands.
fn find_key(text: &str, key: &str) -> Option<Range<usize>> {
    let root = toml::de::DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
        if parts.peek().is_none() {
            return Some(name.span());
        }
        let toml::de::DeValue::Table(inner) = value.get_ref() else { return Some(name.span()) };
        table = inner;
    }
    None
}

/// Line and column from 1, and the line with a caret.
fn locate(text: &str, span: Range<usize>) -> (usize, usize, String) {
    let start = span.start.min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[..start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    let content = text[line_start..].lines().next().unwrap_or("");
    let width = text[start..span.end.min(text.len()).max(start)].lines().next().unwrap_or("").chars().count().max(1);
    let gutter = line.to_string();
    let excerpt =
        format!("{gutter} | {content}\n{} | {}{}", " ".repeat(gutter.len()), " ".repeat(column - 1), "^".repeat(width));
    (line, column, excerpt)
}

/// From "unknown field `prot`, expected one of `bind`, `port`": the key that was probably meant.
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    message.starts_with("unknown").then_some(())?;
    let known: Vec<&str> = quoted.collect();
    let best = known.iter().min_by_key(|k| distance(wrong, k))?;
    if distance(wrong, best) <= 1 + wrong.len() / 3 {
        return Some(format!("did you mean `{best}`?"));
    }
    Some(format!("known here: {}", known.join(", ")))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The JSON Schema of the file.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(File).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_shown_with_its_place_and_the_nearest_one() {
        let fault = parse(Path::new("v.toml"), "[gateway]\nprot = 5\n").unwrap_err();
        assert_eq!(fault.place, "v.toml:2:1");
        assert!(fault.message.contains("unknown field `prot`"), "{}", fault.message);
        assert_eq!(fault.excerpt.unwrap(), "2 | prot = 5\n  | ^^^^");
        assert_eq!(fault.hint.as_deref(), Some("did you mean `port`?"));
    }

    #[test]
    fn a_wrong_value_is_shown_under_its_caret() {
        let fault = parse(Path::new("v.toml"), "[gateway]\nport = \"x\"\n").unwrap_err();
        assert_eq!(fault.place, "v.toml:2:8");
        let fault = parse(Path::new("v.toml"), "[defaults.sandbox]\nnetwork = \"all\"\n").unwrap_err();
        assert!(fault.message.contains("unknown variant `all`"), "{}", fault.message);
        for bad in ["[gateway", "gateway = 1", "[gateway]\nport = 1\nport = 2", "[gateway.auth]\nmode = \"\""] {
            assert!(parse(Path::new("v.toml"), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_found_in_tables_of_every_spelling() {
        let text = "[gateway]\nport = 1\nauth.mode = 'none'\n[agents.b]\nsandbox = { network = 'host' }\n";
        let place = |key| find_key(text, key).map(|span| locate(text, span)).map(|(line, column, _)| (line, column));
        assert_eq!(place("gateway.port"), Some((2, 1)));
        assert_eq!(place("gateway.auth.mode"), Some((3, 6)));
        assert_eq!(place("agents.b.sandbox.network"), Some((5, 13)));
        assert_eq!(place("gateway.bind"), None);
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        assert!(parse(Path::new("v.toml"), "").is_ok());
    }
}
