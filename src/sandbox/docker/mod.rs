//! Walls by a container engine: the same profile, carried out by Docker or what speaks its API.
//!
//! A container is made from a closed `plan`, of an `image` that has this very program in it (`bundle`), and shows
//! folders of the host by mounts of our own (`shown`). In it runs a second runner, which takes the same orders and adds
//! what walls it can: the engine is asked once for each container, not for each command. `engine` is all that speaks
//! the API.

mod answers;
mod base;
mod bridge;
mod build;
mod bundle;
mod contents;
mod engine;
mod enter;
#[cfg(target_os = "linux")]
mod host;
#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
mod host;
mod image;
mod lists;
mod loaders;
mod look;
mod maker;
mod memory;
mod meter;
mod plan;
mod podman;
mod probe;
mod reach;
mod shown;

pub(crate) use base::make_image;
pub(crate) use contents::{Contents, Found, look_into};
pub(crate) use engine::{Engine, Place, Settings};
pub(crate) use enter::Entered;
pub(crate) use host::usual_engines;
pub(crate) use probe::probe_engine;

use crate::model::{Network, SandboxProfile, Tier, WorkspaceAccess};
use crate::sandbox::plan::inside;

/// What of a profile is left to be done inside the container: its folders stand at their places already.
pub(crate) fn left_inside(profile: &SandboxProfile) -> SandboxProfile {
    let places = |paths: &[std::path::PathBuf]| paths.iter().map(|path| inside(path)).collect();
    SandboxProfile {
        workspace: None,
        workspace_access: WorkspaceAccess::None,
        kept: None,
        read_only: places(&profile.read_only),
        read_write: places(&profile.read_write),
        // What leads out by an allowlist is served from the host.
        network: if profile.network == Network::Host { Network::Host } else { Network::None },
        domains: Vec::new(),
        least_tier: Tier::Landlock,
        ..profile.clone()
    }
}
