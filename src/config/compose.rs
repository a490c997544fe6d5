//! From places, file and flags to what the rooms take.

use super::doors::{DoorReader, DoorSettings};
use super::file::{ConfigFault, File, JournaldFile, KeyFrom, StoreFile};
use super::places::Places;
use super::profiles::ProfileReader;
use crate::journal::JournaldUse;
use crate::model::{AgentId, Backend, EngineHost, Network, ProfileName, SandboxProfile};
use crate::os;
use crate::policy::Policy;
use crate::sandbox::{self, Protected, dangerous_name, refused_name};
use crate::store::{KeySettings, KeySource};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The default port.
const PORT: u16 = 18789;

/// Everything the composition root needs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) doors: DoorSettings,
    pub(crate) runner_socket: Option<PathBuf>,
    pub(crate) docker_runner_socket: Option<PathBuf>,
    pub(crate) docker: DockerSettings,
    pub(crate) journald: JournaldUse,
    pub(crate) keys: KeySettings,
    pub(crate) profiles: Profiles,
    pub(crate) protected: Protected,
}

/// The container engine.
#[derive(Debug, Clone)]
pub(crate) struct DockerSettings {
    pub(crate) host: EngineHost,
    /// Those that profiles name.
    pub(crate) others: Vec<EngineHost>,
    /// Whether a profile names the backend `docker`.
    pub(crate) is_used: bool,
}

/// The sandbox settings of everybody.
#[derive(Debug, Clone)]
pub(crate) struct Profiles {
    pub(crate) workspaces: PathBuf,
    /// Where sandboxes keep what they keep.
    pub(crate) sandboxes: PathBuf,
    pub(crate) defaults: SandboxProfile,
    pub(crate) agents: BTreeMap<AgentId, SandboxProfile>,
    pub(crate) named: BTreeMap<ProfileName, SandboxProfile>,
    pub(crate) agent_profiles: BTreeMap<AgentId, Vec<ProfileName>>,
}

impl Profiles {
    /// As the rules take them.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            defaults: self.defaults.clone(),
            workspaces: self.workspaces.clone(),
            sandboxes: self.sandboxes.clone(),
            agents: self.agents.clone(),
            profiles: self.named.clone(),
            agent_profiles: self.agent_profiles.clone(),
            refused_env: refused_name,
            dangerous_env: dangerous_name,
        }
    }
}

/// What the command line says over the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    pub(crate) bind: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) runner_socket: Option<PathBuf>,
    pub(crate) docker_runner_socket: Option<PathBuf>,
}

/// Composes settings; flags stand over the file.
///
/// # Errors
/// The key whose value cannot be used.
pub(crate) fn compose(file: &File, places: &Places, flags: &Flags) -> Result<Settings, ConfigFault> {
    let reader = ProfileReader { path: &places.config };
    let rest = Reader { path: &places.config };
    let bind = flags.bind.as_deref().or(file.gateway.bind.as_deref()).unwrap_or("loopback");
    let port = flags.port.or(file.gateway.port).unwrap_or(PORT);
    let host = reader.engine("docker", &file.docker)?;
    // The runner is told of one on this host; one elsewhere is each profile's.
    let engine = host.clone().filter(EngineHost::is_remote);
    let built_in = SandboxProfile { engine, ..SandboxProfile::default() };
    let defaults = reader.layer("defaults.sandbox", &file.defaults.sandbox, built_in)?;
    let defaults = reader.exec("defaults.exec", &file.defaults.exec, defaults)?;
    let mut agents = BTreeMap::new();
    for (name, agent) in &file.agents {
        let id = AgentId::parse(name).map_err(|e| reader.fault(&format!("agents.{name}"), e.to_string()))?;
        agents.insert(id, reader.agent(name, agent, &defaults)?);
    }
    let mut named = BTreeMap::new();
    for (name, layer) in &file.profiles {
        let key = format!("profiles.{name}");
        let id = ProfileName::parse(name).map_err(|e| reader.fault(&key, e.to_string()))?;
        named.insert(id, reader.layer(&key, layer, defaults.clone())?);
    }
    let doors = DoorReader { path: &places.config }.read(file, bind, port)?;
    let mut with_host = [("defaults.sandbox".to_owned(), &defaults)]
        .into_iter()
        .chain(agents.iter().map(|(id, profile)| (format!("agents.{id}.sandbox"), profile)))
        .chain(named.iter().map(|(name, profile)| (format!("profiles.{name}"), profile)))
        .filter(|(_, profile)| profile.network == Network::Host);
    if let Some((key, _)) = with_host.next().filter(|_| doors.asks_nothing_of_local_processes()) {
        // A command on the host's network is a local process too, in one tier even of the operator's uid.
        return Err(ConfigFault::at_key(
            &places.config,
            &format!("{key}.network"),
            "\"host\" would let a command in the walls come back through a door that asks a local process for nothing",
            "leave gateway.auth.local_trust at \"socket\" and choose a mode other than \"none\"",
        ));
    }
    drop(with_host);
    let mut agent_profiles = BTreeMap::new();
    for (name, agent) in &file.agents {
        let key = format!("agents.{name}.profiles");
        let id = AgentId::parse(name).map_err(|e| reader.fault(&key, e.to_string()))?;
        let mut chosen = Vec::new();
        for profile in &agent.profiles {
            let profile = ProfileName::parse(profile).map_err(|e| reader.fault(&key, e.to_string()))?;
            if !named.contains_key(&profile) {
                return Err(reader.fault(&key, format!("there is no profile {:?}", &*profile)));
            }
            chosen.push(profile);
        }
        agent_profiles.insert(id, chosen);
    }
    for (key, profile) in [("defaults.sandbox".to_owned(), &defaults)]
        .into_iter()
        .chain(agents.iter().map(|(id, profile)| (format!("agents.{id}.sandbox"), profile)))
        .chain(named.iter().map(|(name, profile)| (format!("profiles.{name}"), profile)))
    {
        reader.check_system(&key, profile, sandbox::NATIVE_MISSING)?;
        reader.check_backend(&key, profile)?;
    }
    let usual = sandbox::usual_engines(std::env::var_os("HOME").map(PathBuf::from).as_deref());
    let host = host.unwrap_or_else(|| EngineHost::Unix(found_engine(&usual)));
    let own = [&defaults].into_iter().chain(agents.values()).chain(named.values());
    // Whoever has one of these has the engine: its socket, or the keys to it.
    let keys = own.filter_map(|profile| profile.engine.as_ref()).chain([&host]).filter_map(|host| match host {
        EngineHost::Unix(path) => Some(path.clone()),
        EngineHost::Tls { certificates, .. } => Some(certificates.clone()),
        EngineHost::Ssh { config, .. } => config.clone(),
    });
    let engines: Vec<PathBuf> = keys.chain(usual).collect();
    let is_used = [&defaults]
        .into_iter()
        .chain(agents.values())
        .chain(named.values())
        .any(|profile| profile.backend == Backend::Docker);
    let mut others: Vec<EngineHost> = Vec::new();
    let all = [&defaults].into_iter().chain(agents.values()).chain(named.values());
    for engine in all.filter_map(|profile| profile.engine.clone()) {
        if !others.contains(&engine) {
            others.push(engine);
        }
    }
    Ok(Settings {
        docker: DockerSettings { host, others, is_used },
        doors,
        runner_socket: rest.runner("runner.socket", &flags.runner_socket, &file.runner.socket)?,
        docker_runner_socket: rest.runner(
            "runner.docker_socket",
            &flags.docker_runner_socket,
            &file.runner.docker_socket,
        )?,
        journald: match file.journal.journald {
            None | Some(JournaldFile::Auto) => JournaldUse::Auto,
            Some(JournaldFile::Required) => JournaldUse::Required,
            Some(JournaldFile::Off) => JournaldUse::Off,
        },
        keys: rest.keys(&file.store, places)?,
        profiles: Profiles {
            workspaces: canonical(&places.workspaces),
            sandboxes: canonical(&places.sandboxes),
            defaults,
            agents,
            named,
            agent_profiles,
        },
        protected: protected(places, &file.store, &engines),
    })
}

/// The first of these sockets that is there, or the last, where one would be looked for.
fn found_engine(usual: &[PathBuf]) -> PathBuf {
    let found = usual.iter().find(|socket| socket.symlink_metadata().is_ok()).or(usual.last());
    found.cloned().unwrap_or_default()
}

/// What no sandbox may be shown: our own places as they really are.
fn protected(places: &Places, store: &StoreFile, engines: &[PathBuf]) -> Protected {
    let config_dir = places.config.parent().map(Path::to_owned).unwrap_or_default();
    // A file named on the command line may lie anywhere: then it alone is ours, not its folder.
    let config = if places.config_is_named { places.config.clone() } else { config_dir };
    let keys = [&store.key_file, &store.previous_key_file, &places.credentials].into_iter().flatten();
    let own = [&places.state, &places.runtime, &config].into_iter().chain(keys);
    // Whoever reaches the engine's socket is root on its host.
    let engines = engines.iter().flat_map(|engine| [canonical(engine), engine.to_owned()]);
    let own = own.map(|p| canonical(p)).chain(engines).collect();
    let home = std::env::var_os("HOME").map(|h| canonical(Path::new(&h)));
    Protected { own, home, kept: Some(canonical(&places.sandboxes)), workspaces: Some(canonical(&places.workspaces)) }
}

/// The path as it really is, where it is there.
pub(super) fn canonical(path: &Path) -> PathBuf {
    os::fs::canonical(path).unwrap_or_else(|_| path.to_owned())
}

/// Reads what belongs to no profile.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn fault(&self, key: &str, message: impl Into<String>) -> ConfigFault {
        ConfigFault::at_key(self.path, key, message, "`vambrace config schema` describes every key")
    }

    fn keys(&self, file: &StoreFile, places: &Places) -> Result<KeySettings, ConfigFault> {
        for (key, path) in [("key_file", &file.key_file), ("previous_key_file", &file.previous_key_file)] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(self.fault(&format!("store.{key}"), format!("{} is not an absolute path", path.display())));
            }
        }
        let wanted = file.key.map(|key| match key {
            KeyFrom::SystemdCredential => KeySource::Credential,
            KeyFrom::KeyFile => KeySource::KeyFile,
            KeyFrom::Machine => KeySource::Machine,
        });
        if wanted == Some(KeySource::KeyFile) && file.key_file.is_none() {
            return Err(self.fault("store.key", "\"key-file\" needs store.key_file"));
        }
        Ok(KeySettings {
            wanted,
            key_file: file.key_file.clone(),
            previous_key_file: file.previous_key_file.clone(),
            credentials: places.credentials.clone(),
        })
    }

    /// The socket of a runner that is a service.
    fn runner(
        &self,
        key: &str,
        flag: &Option<PathBuf>,
        file: &Option<PathBuf>,
    ) -> Result<Option<PathBuf>, ConfigFault> {
        match flag.as_ref().or(file.as_ref()) {
            Some(path) if !path.is_absolute() => {
                Err(self.fault(key, format!("{} is not an absolute path", path.display())))
            }
            path => Ok(path.cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::places::Overrides;

    fn settings(text: &str) -> Result<Settings, ConfigFault> {
        let overrides =
            Overrides { state_dir: Some("/nonexistent/state".into()), config: Some("/nonexistent/v.toml".into()) };
        compose(&toml::from_str(text).unwrap(), &Places::find(&overrides, 0), &Flags::default())
    }

    #[test]
    fn with_no_file_everything_has_its_default() {
        let settings = settings("").unwrap();
        assert_eq!(settings.doors.address.to_string(), "127.0.0.1:18789");
        assert_eq!(settings.profiles.defaults, SandboxProfile::default());
        assert_eq!(settings.profiles.workspaces, Path::new("/nonexistent/state-workspaces"));
    }

    #[test]
    fn an_agents_layer_lies_over_the_defaults() {
        let text = "[defaults.sandbox]\nnetwork='host'\nlimits={memory='1G'}\n[agents.b]\nworkspace='/srv/b'\nsandbox={limits={pids=9}}";
        let settings = settings(text).unwrap();
        let b = &settings.profiles.agents[&AgentId::parse("b").unwrap()];
        assert_eq!((b.network, b.limits.memory_bytes, b.limits.pids), (Network::Host, 1 << 30, 9));
        assert_eq!(b.workspace.as_deref(), Some(Path::new("/srv/b")));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_key() {
        for (text, key) in [
            ("[runner]\nsocket='runner.sock'", "runner.socket"),
            ("[runner]\ndocker_socket='./x'", "runner.docker_socket"),
            ("[gateway]\nbind='0.0.0.0'", "gateway.bind"),
            ("[gateway]\nbind='::'", "gateway.bind"),
            ("[gateway]\nbind='localhost.'", "gateway.bind"),
            ("[gateway]\nbind=''", "gateway.bind"),
            ("[agents.B]\n", "agents.B"),
            ("[agents.b]\nworkspace='rel'", "agents.b.workspace"),
            ("[defaults.sandbox.limits]\nmemory='much'", "defaults.sandbox.limits.memory"),
            ("[defaults.sandbox.limits]\ncpus=0.0", "defaults.sandbox.limits.cpus"),
            ("[defaults.sandbox.limits]\ntimeout='0s'", "defaults.sandbox.limits.timeout"),
            ("[gateway]\nbind='lan'", "gateway.bind"),
            ("[gateway]\nbind='0'", "gateway.bind"),
            ("[gateway]\nbind='example.org'", "gateway.bind"),
            ("[gateway]\nbind='::ffff:0.0.0.0'", "gateway.bind"),
            (
                "[gateway]\nbind='192.0.2.1'\n[gateway.tls]\nenabled=true\n[gateway.auth]\nmode='none'",
                "gateway.auth.mode",
            ),
            ("[gateway]\nhosts=['*']", "gateway.hosts"),
            ("[gateway]\nhosts=['a:1']", "gateway.hosts"),
            ("[gateway]\nallowed_origins=['*']", "gateway.allowed_origins"),
            ("[gateway]\nallowed_origins=['https://x/']", "gateway.allowed_origins"),
            ("[gateway]\npublic_url='https://x'", "gateway.public_url"),
            ("[gateway]\npublic_url='wss://u@x'", "gateway.public_url"),
            ("[gateway.tls]\ncertificate='/x'", "gateway.tls.enabled"),
            ("[gateway.tls]\nenabled=true\ncertificate='/x'", "gateway.tls.key"),
            ("[gateway.auth]\nmode='trusted-proxy'", "gateway.auth.trusted_proxy.proxies"),
            ("[gateway.auth.trusted_proxy]\nproxies=['10.0.0.1']\nallow_users=['a']", "gateway.auth.trusted_proxy"),
            (
                "[gateway.auth]\nmode='trusted-proxy'\n[gateway.auth.trusted_proxy]\nproxies=['10.0.0.1']",
                "gateway.auth.trusted_proxy.allow_users",
            ),
            (
                "[gateway.auth]\nmode='trusted-proxy'\n[gateway.auth.trusted_proxy]\nproxies=['0.0.0.0/0']\nallow_users=['a']",
                "gateway.auth.trusted_proxy.proxies",
            ),
            (
                "[gateway.auth]\nmode='trusted-proxy'\n[gateway.auth.trusted_proxy]\nproxies=['127.0.0.1']\nallow_users=['a']",
                "gateway.auth.trusted_proxy.proxies",
            ),
            (
                "[gateway.auth]\nmode='trusted-proxy'\n[gateway.auth.trusted_proxy]\nusers=[0]\nallow_users=['a']",
                "gateway.auth.trusted_proxy.users",
            ),
            (
                "[gateway.auth]\nmode='trusted-proxy'\nlocal_trust='loopback'\n[gateway.auth.trusted_proxy]\nproxies=['10.0.0.1']\nallow_users=['a']",
                "gateway.auth.local_trust",
            ),
            (
                "[gateway.auth]\nmode='trusted-proxy'\n[gateway.auth.trusted_proxy]\nproxies=['10.0.0.1']\nallow_users=['a']\nuser_header='host'",
                "gateway.auth.trusted_proxy.user_header",
            ),
            (
                "[gateway.auth]\nmode='trusted-proxy'\n[gateway.auth.trusted_proxy]\nproxies=['10.0.0.1']\nallow_users=['a']\nclient_ca='/x'",
                "gateway.auth.trusted_proxy.client_ca",
            ),
            ("[gateway.auth]\nmode='tailnet'", "gateway.auth.tailnet.allow_users"),
            (
                "[gateway.auth]\nmode='tailnet'\n[gateway.auth.tailnet]\nallow_users=['a']\nscopes=['operator.zzz']",
                "gateway.auth.tailnet.scopes",
            ),
            ("[gateway.auth]\nmode='none'\n[profiles.online]\nnetwork='host'", "profiles.online.network"),
            ("[gateway.auth]\nlocal_trust='same-user'\n[defaults.sandbox]\nnetwork='host'", "defaults.sandbox.network"),
            (
                "[gateway.auth]\nlocal_trust='loopback'\n[agents.b]\nsandbox={network='host'}",
                "agents.b.sandbox.network",
            ),
            ("[agents.b]\nprofiles=['online']", "agents.b.profiles"),
            (
                "[gateway.auth]\nmode='tailnet'\nlocal_trust='loopback'\n[gateway.auth.tailnet]\nallow_users=['a']",
                "gateway.auth.local_trust",
            ),
            ("[gateway.auth]\noperators=['nobody-of-that-name']", "gateway.auth.operators"),
        ] {
            let fault = settings(text).unwrap_err();
            assert!(fault.message.starts_with(key), "{text}: {fault}");
        }
    }

    #[test]
    fn a_wider_door_takes_tls_or_a_proxy() {
        let wide = settings("[gateway]\nbind='lan'\n[gateway.tls]\nenabled=true").unwrap();
        assert_eq!(wide.doors.address.to_string(), "[::]:18789");
        let proxied = "[gateway]\nbind='192.0.2.1'\n[gateway.auth]\nmode='trusted-proxy'\n[gateway.auth.trusted_proxy]\nproxies=['192.0.2.7']\nallow_users=['*']";
        assert!(settings(proxied).is_ok());
    }
}
