//! Walls around one command: a pure plan, then its execution.
//!
//! `plan` turns a profile into a closed list of steps without touching the host; `native` carries
//! it out on Linux, and `elsewhere` stands in its place on other systems: there are no walls, and nothing runs. Knows nothing of who asked or why.

mod boundary;
mod docker;
mod environment;
pub(crate) mod kept;
mod listed;
#[cfg(target_os = "linux")]
mod native;
#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
mod native;
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "`native` alone carries out a whole plan"))]
mod plan;
mod probe;

pub(crate) use boundary::Protected;
pub(crate) use docker::{
    Contents, Engine, Entered, Found, Place, Settings as EngineSettings, left_inside, look_into, make_image,
    probe_engine, usual_engines,
};
pub(crate) use environment::{dangerous_name, refused_name};
pub(crate) use listed::runs_code;
pub(crate) use native::{
    Descriptors, Finished, Handed, Launched, Launcher, Lent, Verdict, allowed_system_calls, probe_host,
};
pub(crate) use plan::{Command, view};
pub(crate) use probe::Probe;

/// Why the backend `native` cannot be had on this system, as what follows its name.
pub(crate) const NATIVE_MISSING: Option<&str> = native::MISSING;
