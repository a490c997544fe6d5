//! Walls around one command: a pure plan, then its execution.
//!
//! `plan` turns a profile into a closed list of steps without touching the host; `native` carries
//! it out on Linux. Knows nothing of who asked or why.

mod boundary;
mod docker;
mod environment;
pub(crate) mod kept;
mod listed;
mod native;
mod plan;

pub(crate) use boundary::Protected;
pub(crate) use docker::{
    Contents, Engine, Entered, Found, Place, Settings as EngineSettings, left_inside, look_into, make_image,
    probe_engine,
};
pub(crate) use environment::{dangerous_name, refused_name};
pub(crate) use listed::runs_code;
pub(crate) use native::{
    Descriptors, Finished, Handed, Launched, Launcher, Lent, Probe, Verdict, allowed_system_calls, probe_host,
};
pub(crate) use plan::{Command, view};
