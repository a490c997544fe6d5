//! One layer of sandbox settings, as a person writes it: of the defaults, an agent or a profile. Knows nothing of what lies
//! above or below it.

use super::file::DockerFile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Sandbox settings; what is absent comes from the layer below.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Layer {
    /// What builds the walls: `native` (the Linux kernel) or `docker` (a container engine).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<BackendFile>,
    /// With `docker`: the image, as the engine knows it, e.g. `vambrace-sandbox:latest` or `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// With `docker`: a shell line that is executed once in each new container, in the same walls, before its first command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) setup: Option<String>,
    /// With `docker`: the engine, if it is another than that of `[docker]`.
    #[serde(skip_serializing_if = "DockerFile::is_empty")]
    pub(crate) docker: DockerFile,
    /// Which commands share a home folder and `/tmp`: those of one `session` (a command without one has its own), of
    /// the `agent`, or of everybody (`shared`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<ScopeFile>,
    /// How long what a sandbox keeps may lie unused, e.g. `7d`; then it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<String>,
    /// With `docker`: how old a container may become, e.g. `30d`: then it is removed when nothing runs in it, and what is kept
    /// stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age: Option<String>,
    /// The weakest walls that are accepted: `root` (a uid of its own), `user-namespace`, or `landlock` (no namespaces).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) least_tier: Option<TierFile>,
    /// `none`, `ro` or `rw`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace_access: Option<AccessFile>,
    /// `none`, `allowlist` or `host`. With `docker`, `host` is a bridge that leads everywhere but to other containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkFile>,
    /// With `allowlist`: what can be reached, e.g. `crates.io`, `*.crates.io`, `example.org:8443`; ports 443 and 80
    /// unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_domains: Option<Vec<String>>,
    /// Further host folders, shown read-only at their own path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ro: Option<Vec<PathBuf>>,
    /// Further host folders, shown writable at their own path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rw: Option<Vec<PathBuf>>,
    /// Names of environment variables a request may set; `X_*` allows a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "LimitsFile::is_empty")]
    pub(crate) limits: LimitsFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BackendFile {
    Native,
    Docker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScopeFile {
    Session,
    Agent,
    Shared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TierFile {
    Root,
    UserNamespace,
    Landlock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AccessFile {
    None,
    Ro,
    Rw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NetworkFile {
    None,
    Allowlist,
    Host,
}

/// Bounds on one run, as people write them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    /// CPUs, e.g. 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<f64>,
    /// Memory, e.g. `512M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<String>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pids: Option<u32>,
    /// Time from start to end, e.g. `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<String>,
    /// Bytes it may print, e.g. `8M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<String>,
    /// /tmp, home and /dev/shm together, e.g. `256M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scratch: Option<String>,
    /// What one run may add to the workspace and other folders on disk, e.g. `4G`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk: Option<String>,
}

impl LimitsFile {
    fn is_empty(&self) -> bool {
        *self == LimitsFile::default()
    }
}
