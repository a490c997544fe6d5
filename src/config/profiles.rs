//! One profile after the other: what a layer of the file lays over what is below it, what a backend cannot give, and the word
//! where each setting came from. What cannot be meant is refused by its key.

use super::compose::canonical;
use super::file::{AgentFile, ConfigFault, DockerFile, ExecFile, SandboxModeFile};
use super::layer::{AccessFile, BackendFile, Layer, NetworkFile, ScopeFile, TierFile};
use super::units;
use crate::model::{
    Backend, Domain, EngineHost, ExecMode, Limits, Network, SandboxProfile, SandboxScope, Tier, WorkspaceAccess,
};
use std::path::{Path, PathBuf};

/// Whether an engine could take this for a name, a tag or a digest of an image, and for nothing else.
pub(crate) fn is_image(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
        && !text.contains("..")
}

/// The path with everything before its last part resolved: whether that part is a link is looked at when it is opened.
fn canonical_parent(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => canonical(parent).join(name),
        _ => path.to_owned(),
    }
}

/// Reads the profiles of one file.
pub(super) struct ProfileReader<'a> {
    pub(super) path: &'a Path,
}

impl ProfileReader<'_> {
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) -> ConfigFault {
        ConfigFault::at_key(self.path, key, message, "`vambrace config schema` describes every key")
    }

    pub(super) fn agent(
        &self,
        name: &str,
        agent: &AgentFile,
        defaults: &SandboxProfile,
    ) -> Result<SandboxProfile, ConfigFault> {
        let profile = self.layer(&format!("agents.{name}.sandbox"), &agent.sandbox, defaults.clone())?;
        let mut profile = self.exec(&format!("agents.{name}.exec"), &agent.exec, profile)?;
        if let Some(workspace) = &agent.workspace {
            profile.workspace = Some(self.folder(&format!("agents.{name}.workspace"), workspace)?);
        }
        Ok(profile)
    }

    /// Lays what may be executed over a profile.
    pub(super) fn exec(
        &self,
        key: &str,
        file: &ExecFile,
        below: SandboxProfile,
    ) -> Result<SandboxProfile, ConfigFault> {
        let exec_mode = file.sandbox_mode.map_or(below.exec_mode, |mode| match mode {
            SandboxModeFile::Full => ExecMode::Full,
            SandboxModeFile::Allowlist => ExecMode::Allowlist,
        });
        let exec_allow = file.allow.clone().unwrap_or_else(|| below.exec_allow.clone());
        for path in &exec_allow {
            let is_plain =
                path.starts_with('/') && !path.contains(['\0', '\n']) && !path.split('/').any(|part| part == "..");
            if !is_plain || path.trim_end_matches('/').is_empty() {
                return Err(
                    self.fault(&format!("{key}.allow"), format!("{path:?} is no absolute path inside the walls"))
                );
            }
        }
        // A list that nothing reads would be taken for one that holds.
        if file.allow.is_some() && exec_mode == ExecMode::Full {
            return Err(self.fault(&format!("{key}.allow"), "needs sandbox_mode = \"allowlist\""));
        }
        Ok(SandboxProfile { exec_mode, exec_allow, ..below })
    }

    fn folder(&self, key: &str, path: &Path) -> Result<PathBuf, ConfigFault> {
        if !path.is_absolute() {
            return Err(self.fault(key, format!("{} is not an absolute path", path.display())));
        }
        Ok(canonical_parent(path))
    }

    /// Lays a layer over a profile.
    pub(super) fn layer(&self, key: &str, layer: &Layer, below: SandboxProfile) -> Result<SandboxProfile, ConfigFault> {
        let folders = |what: &str, paths: &Option<Vec<PathBuf>>, below: Vec<PathBuf>| match paths {
            None => Ok(below),
            Some(paths) => paths.iter().map(|p| self.folder(&format!("{key}.{what}"), p)).collect(),
        };
        let network = layer.network.map_or(below.network, |network| match network {
            NetworkFile::None => Network::None,
            NetworkFile::Allowlist => Network::Allowlist,
            NetworkFile::Host => Network::Host,
        });
        let domains = match &layer.allow_domains {
            None => below.domains,
            Some(_) if network != Network::Allowlist => {
                return Err(self.fault(&format!("{key}.allow_domains"), "needs network = \"allowlist\""));
            }
            Some(domains) => domains
                .iter()
                .map(|text| Domain::parse(text).map_err(|why| (text, why)))
                .collect::<Result<_, _>>()
                .map_err(|(text, why)| self.fault(&format!("{key}.allow_domains"), format!("{text:?}: {why}")))?,
        };
        let image = match &layer.image {
            None => below.image,
            Some(text) if is_image(text) => text.clone(),
            Some(text) => return Err(self.fault(&format!("{key}.image"), format!("{text:?} is no name of an image"))),
        };
        let engine = self.engine(&format!("{key}.docker"), &layer.docker)?.or(below.engine);
        let days = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => units::days(text).map(Some).ok_or_else(|| {
                self.fault(&format!("{key}.{name}"), format!("{text:?} is no duration up to ten years, e.g. \"7d\""))
            }),
        };
        Ok(SandboxProfile {
            engine,
            setup: layer.setup.clone().or(below.setup),
            backend: layer.backend.map_or(below.backend, |backend| match backend {
                BackendFile::Native => Backend::Native,
                BackendFile::Docker => Backend::Docker,
            }),
            image,
            workspace: below.workspace,
            kept: None,
            scope: layer.scope.map_or(below.scope, |scope| match scope {
                ScopeFile::Session => SandboxScope::Session,
                ScopeFile::Agent => SandboxScope::Agent,
                ScopeFile::Shared => SandboxScope::Shared,
            }),
            least_tier: layer.least_tier.map_or(below.least_tier, |tier| match tier {
                TierFile::Root => Tier::Root,
                TierFile::UserNamespace => Tier::UserNamespace,
                TierFile::Landlock => Tier::Landlock,
            }),
            idle: days("idle", &layer.idle)?.unwrap_or(below.idle),
            age: days("age", &layer.age)?.or(below.age),
            exec_mode: below.exec_mode,
            exec_allow: below.exec_allow,
            domains,
            network,
            workspace_access: layer.workspace_access.map_or(below.workspace_access, |access| match access {
                AccessFile::None => WorkspaceAccess::None,
                AccessFile::Ro => WorkspaceAccess::ReadOnly,
                AccessFile::Rw => WorkspaceAccess::ReadWrite,
            }),
            read_only: folders("ro", &layer.ro, below.read_only)?,
            read_write: folders("rw", &layer.rw, below.read_write)?,
            env_allow: layer.env.clone().unwrap_or(below.env_allow),
            limits: self.limits(key, layer, below.limits)?,
        })
    }

    /// The engine that a section names.
    pub(super) fn engine(&self, key: &str, file: &DockerFile) -> Result<Option<EngineHost>, ConfigFault> {
        let Some(host) = &file.host else {
            return match (&file.tls, &file.ssh_config) {
                (None, None) => Ok(None),
                _ => Err(self.fault(&format!("{key}.host"), "is missing: `tls` and `ssh_config` belong to it")),
            };
        };
        let parsed = EngineHost::parse(host, file.tls.as_deref(), file.ssh_config.as_deref());
        parsed.map(Some).map_err(|why| self.fault(&format!("{key}.host"), format!("{host:?}: {why}")))
    }

    /// A backend that this system does not have at all is refused here, not at the first command.
    pub(super) fn check_system(
        &self,
        key: &str,
        profile: &SandboxProfile,
        native_missing: Option<&str>,
    ) -> Result<(), ConfigFault> {
        match native_missing.filter(|_| profile.backend == Backend::Native) {
            None => Ok(()),
            Some(why) => Err(ConfigFault::at_key(
                self.path,
                &format!("{key}.backend"),
                format!("\"native\" {why}"),
                "set backend = \"docker\" below [defaults.sandbox]: a container engine carries out commands then",
            )),
        }
    }

    /// What a backend cannot give is refused here, not left out there.
    pub(super) fn check_backend(&self, key: &str, profile: &SandboxProfile) -> Result<(), ConfigFault> {
        if profile.backend == Backend::Native {
            let alone = |what: &str| Err(self.fault(&format!("{key}.{what}"), "is for backend = \"docker\" alone"));
            return match (&profile.setup, &profile.age) {
                (Some(_), _) => alone("setup"),
                (None, Some(_)) => alone("age"),
                (None, None) => Ok(()),
            };
        }
        if profile.setup.is_some() && profile.network == Network::Allowlist {
            return Err(
                self.fault(&format!("{key}.setup"), "has no network with \"allowlist\": build it into the image")
            );
        }
        if profile.engine.as_ref().is_some_and(EngineHost::is_remote) {
            let remote = |what: &str, why| Err(self.fault(&format!("{key}.{what}"), why));
            if profile.workspace_access != WorkspaceAccess::None {
                return remote("workspace_access", "must be \"none\": the engine is on another machine");
            }
            if !profile.read_only.is_empty() || !profile.read_write.is_empty() {
                return remote("ro", "must be empty, as `rw`: the engine is on another machine");
            }
            if profile.network == Network::Allowlist {
                return remote("network", "cannot be \"allowlist\": the engine is on another machine");
            }
        }
        Ok(())
    }

    fn limits(&self, key: &str, layer: &Layer, below: Limits) -> Result<Limits, ConfigFault> {
        let file = &layer.limits;
        let bytes = |name: &str, text: &Option<String>, below: u64| match text {
            None => Ok(below),
            Some(text) => units::bytes(text).ok_or_else(|| {
                self.fault(&format!("{key}.limits.{name}"), format!("{text:?} is no size, e.g. \"512M\""))
            }),
        };
        let timeout = match &file.timeout {
            None => below.timeout,
            Some(text) => units::duration(text).ok_or_else(|| {
                self.fault(
                    &format!("{key}.limits.timeout"),
                    format!("{text:?} is no duration up to 7 days, e.g. \"60s\""),
                )
            })?,
        };
        let milli_cpus = match file.cpus {
            None => below.milli_cpus,
            Some(cpus) if (0.01..=4096.0).contains(&cpus) => (cpus * 1000.0) as u32,
            Some(_) => return Err(self.fault(&format!("{key}.limits.cpus"), "must lie between 0.01 and 4096")),
        };
        let pids = match file.pids {
            None => below.pids,
            Some(0) => return Err(self.fault(&format!("{key}.limits.pids"), "must be at least 1")),
            Some(pids) => pids,
        };
        Ok(Limits {
            milli_cpus,
            memory_bytes: bytes("memory", &file.memory, below.memory_bytes)?,
            pids,
            timeout,
            output_bytes: bytes("output", &file.output, below.output_bytes)?,
            scratch_bytes: bytes("scratch", &file.scratch, below.scratch_bytes)?,
            disk_bytes: bytes("disk", &file.disk, below.disk_bytes)?,
        })
    }
}

impl Layer {
    /// The settings of a profile, each with the layer it came from: the first of `layers` that has it.
    pub(crate) fn origins(profile: &SandboxProfile, layers: &[(&str, &Layer)]) -> Vec<(&'static str, String, String)> {
        let from = |has: &dyn Fn(&Layer) -> bool| {
            layers.iter().find(|(_, layer)| has(layer)).map_or("built in", |(name, _)| *name).to_owned()
        };
        let paths = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ");
        let words = |domains: &[Domain]| domains.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let limits = &profile.limits;
        vec![
            ("backend", profile.backend.as_str().into(), from(&|l| l.backend.is_some())),
            ("image", profile.image.clone(), from(&|l| l.image.is_some())),
            ("setup", profile.setup.clone().unwrap_or_default(), from(&|l| l.setup.is_some())),
            (
                "docker.host",
                profile.engine.as_ref().map_or_else(|| "that of [docker]".into(), ToString::to_string),
                from(&|l| l.docker.host.is_some()),
            ),
            ("workspace_access", profile.workspace_access.as_str().into(), from(&|l| l.workspace_access.is_some())),
            ("scope", profile.scope.as_str().into(), from(&|l| l.scope.is_some())),
            ("idle", units::show_duration(profile.idle), from(&|l| l.idle.is_some())),
            ("age", profile.age.map(units::show_duration).unwrap_or_else(|| "any".into()), from(&|l| l.age.is_some())),
            ("least_tier", profile.least_tier.as_str().into(), from(&|l| l.least_tier.is_some())),
            ("network", profile.network.as_str().into(), from(&|l| l.network.is_some())),
            ("allow_domains", words(&profile.domains), from(&|l| l.allow_domains.is_some())),
            ("ro", paths(&profile.read_only), from(&|l| l.ro.is_some())),
            ("rw", paths(&profile.read_write), from(&|l| l.rw.is_some())),
            ("env", profile.env_allow.join(" "), from(&|l| l.env.is_some())),
            ("limits.cpus", format!("{}", f64::from(limits.milli_cpus) / 1000.0), from(&|l| l.limits.cpus.is_some())),
            ("limits.memory", units::show_bytes(limits.memory_bytes), from(&|l| l.limits.memory.is_some())),
            ("limits.pids", limits.pids.to_string(), from(&|l| l.limits.pids.is_some())),
            ("limits.timeout", units::show_duration(limits.timeout), from(&|l| l.limits.timeout.is_some())),
            ("limits.output", units::show_bytes(limits.output_bytes), from(&|l| l.limits.output.is_some())),
            ("limits.scratch", units::show_bytes(limits.scratch_bytes), from(&|l| l.limits.scratch.is_some())),
            ("limits.disk", units::show_bytes(limits.disk_bytes), from(&|l| l.limits.disk.is_some())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_no_native_walls_each_profile_has_to_name_another_backend() {
        let path = Path::new("/nonexistent/v.toml");
        let check = |backend, missing| {
            let profile = SandboxProfile { backend, ..SandboxProfile::default() };
            ProfileReader { path }.check_system("profiles.x", &profile, missing)
        };
        let fault = check(Backend::Native, Some("is not here")).unwrap_err();
        assert!(fault.message.starts_with("profiles.x.backend: \"native\" is not here"), "{fault}");
        assert!(check(Backend::Docker, Some("is not here")).is_ok());
        assert!(check(Backend::Native, None).is_ok());
    }
}
