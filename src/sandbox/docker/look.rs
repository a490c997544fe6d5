//! Containers that are made to look into an image and never started.
//!
//! Whoever makes one removes it, also when interrupted. One whose maker was killed bears his mark: the next who looks into
//! an image removes it, and so does every runner that speaks to this engine.

use super::answers::fault;
use super::lists::{self, Listed, told};
use super::plan;
use crate::model::RunFault;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptionsBuilder};
use rustix::process::{Pid, test_kill_process};
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// The label of such a container; its value is its maker's mark.
const MAKER: &str = "io.vambrace.maker";

/// How long one of a maker who cannot be looked for is left alone: twice as long as any of them takes.
const OF_STRANGERS: Duration = Duration::from_secs(2 * 3600);

/// Makes one, and removes those that were left.
///
/// # Errors
/// Where the engine is not there, or has no such image.
pub(super) async fn into(docker: &Docker, image: &str) -> Result<String, RunFault> {
    sweep(docker).await;
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        // It never runs; an image need not have a command of its own.
        entrypoint: Some(vec!["/nothing".into()]),
        labels: Some(HashMap::from([(MAKER.to_owned(), Maker::this().map(|maker| maker.text()).unwrap_or_default())])),
        host_config: Some(HostConfig { network_mode: Some("none".into()), ..Default::default() }),
        ..Default::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await;
    Ok(made.map_err(|e| fault("look into the image", &e))?.id)
}

/// Removes one.
///
/// # Errors
/// Where the engine does not.
pub(super) async fn done(docker: &Docker, id: &str) -> Result<(), RunFault> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    docker.remove_container(id, Some(options)).await.map_err(|e| fault("remove a container", &e))
}

/// Removes those whose makers are gone.
pub(super) async fn sweep(docker: &Docker) {
    let listed = lists::with_label(docker, MAKER).await;
    for Listed { id, labels, age, is_new } in told(listed) {
        // A container has the labels of its image too, which anybody may have made: one of a sandbox, or one that somebody
        // uses, is none of ours.
        let (Some(mark), None, true) = (labels.get(MAKER), labels.get(plan::SANDBOX), is_new) else { continue };
        if is_left(mark, age) && done(docker, &id).await.is_ok() {
            tracing::info!(container = id, "a container that was made to look into an image was left, and is removed");
        }
    }
}

/// Whether nobody looks into one any more.
fn is_left(mark: &str, age: Duration) -> bool {
    match (Maker::read(mark), Maker::this()) {
        (Some(maker), Some(us)) if maker.place == us.place => maker.is_gone(),
        _ => age > OF_STRANGERS,
    }
}

/// A process, as no other can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Maker {
    /// The host since it was booted, and which of its views of processes.
    place: String,
    pid: i32,
    /// Clock ticks between boot and its start (proc_pid_stat(5)).
    started: u64,
}

impl Maker {
    fn this() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let view = fs::read_link("/proc/self/ns/pid").ok()?;
        let pid = i32::try_from(std::process::id()).ok()?;
        let place = format!("{} {}", boot.trim(), view.display());
        Some(Maker { place, pid, started: started(pid)? })
    }

    fn text(&self) -> String {
        format!("{} {} {}", self.pid, self.started, self.place)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Maker { place: parts.next()?.to_owned(), pid, started })
    }

    /// Whether it has ended. What may not be seen counts as there.
    fn is_gone(&self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 0) else { return true };
        match test_kill_process(pid) {
            Err(rustix::io::Errno::SRCH) => true,
            _ => started(self.pid).is_some_and(|started| started != self.started),
        }
    }
}

fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, the 22nd field.
    stat.rsplit(") ").next()?.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a process that ends")]
    fn a_container_is_left_when_its_maker_has_ended_and_not_before() {
        let us = Maker::this().unwrap();
        assert_eq!(Maker::read(&us.text()).unwrap(), us);
        assert!(!is_left(&us.text(), OF_STRANGERS * 2), "this process is there");
        assert!(
            is_left(&Maker { started: us.started + 1, ..us.clone() }.text(), Duration::ZERO),
            "another of its number"
        );
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(ended.id()).unwrap();
        ended.wait().unwrap();
        assert!(is_left(&Maker { pid, ..us.clone() }.text(), Duration::ZERO), "nobody has this number");
        for strange in [Maker { place: "elsewhere".into(), ..us }.text(), String::new(), "x".into(), "0 0".into()] {
            assert!(!is_left(&strange, OF_STRANGERS), "{strange}");
            assert!(is_left(&strange, OF_STRANGERS + Duration::from_secs(1)), "{strange}");
        }
    }
}
