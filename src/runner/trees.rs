//! The folders of workspaces and kept sandboxes: made before a command, listed and removed, at the gateway's word.
//!
//! They belong to the runner's user, as everything does that commands write, so nobody else can do it. Whatever may be
//! large is looked at or removed by a process of its own: the runner has one thread, and lockdown and deadlines must not
//! wait for it.

use super::order::{KeptOrder, KeptReport};
use crate::model::{RunFault, SandboxProfile};
use crate::os;
use crate::os::child::{self, Fork};
use crate::sandbox::{Protected, kept};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Kept sandboxes that one report names.
const A_REPORT: usize = 1000;

/// Makes what a command of this profile writes to and is not there yet.
///
/// # Errors
/// Where it cannot be made, or is not ours alone.
pub(super) fn make(profile: &SandboxProfile, protected: &Protected) -> Result<(), RunFault> {
    // An agent without a workspace of its own gets one the first time it needs it.
    let workspaces = protected.workspaces.as_deref();
    if let Some(workspace) = profile.workspace.as_deref().filter(|w| workspaces.is_some() && w.parent() == workspaces) {
        os::fs::private_dir(workspace).map_err(unmade("workspace", workspace))?;
    }
    match &profile.kept {
        // Whoever gives orders names sandboxes, not folders.
        Some(folder) if folder.parent() != protected.kept.as_deref() => Err(RunFault::Refused {
            what: format!("{} is no place of a sandbox", folder.display()),
            hint: "gateway and runner must agree where sandboxes keep things: --kept".into(),
        }),
        Some(folder) => kept::make(folder, profile.idle).map_err(unmade("sandbox", folder)),
        None => Ok(()),
    }
}

fn unmade(what: &str, path: &Path) -> impl Fn(io::Error) -> RunFault {
    move |e| RunFault::Refused {
        what: format!("the {what} {} cannot be made: {e}", path.display()),
        hint: "look at the rights of its parent folder".into(),
    }
}

/// Takes one out of its place: at once, because no order that comes later may find it there.
pub(super) fn take_out(root: &Path, name: &str) -> KeptReport {
    ended(kept::take_out(root, name))
}

/// Lists or removes, in a process of its own; the last report is an end.
pub(super) async fn aside(root: &Path, order: &KeptOrder) -> Vec<KeptReport> {
    let reports = async {
        let mut from = begin(root, order)?;
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).await?;
        serde_json::from_slice::<Vec<KeptReport>>(&bytes).map_err(|_| io::Error::other("it did not come to its end"))
    };
    reports.await.unwrap_or_else(|error| vec![ended(Err(error))])
}

/// What the other process writes, until its end.
fn begin(root: &Path, order: &KeptOrder) -> io::Result<pipe::Receiver> {
    let (from, to) = io::pipe()?;
    match child::fork()? {
        Fork::Child => {
            let work = || {
                // Other runs' pipes would stay open for as long, and this may be long.
                child::place_fd(std::os::fd::AsRawFd::as_raw_fd(&to), 0)?;
                child::close_from(1)?;
                std::mem::forget(to);
                let mut to = std::fs::File::from(child::adopt_fd(0));
                child::die_with_parent()?;
                to.write_all(&serde_json::to_vec(&carry_out(root, order))?)
            };
            let done: Result<io::Result<()>, _> = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            child::exit_now(i32::from(!matches!(done, Ok(Ok(())))))
        }
        Fork::Parent { pidfd, .. } => {
            drop(to);
            tokio::task::spawn_local(async move {
                os::process::ended(&pidfd).await;
                let _ = os::process::wait_pidfd(&pidfd);
            });
            pipe::Receiver::from_owned_fd(OwnedFd::from(from))
        }
    }
}

fn carry_out(root: &Path, order: &KeptOrder) -> Vec<KeptReport> {
    match order {
        KeptOrder::TakeOut(name) => vec![take_out(root, name)],
        KeptOrder::Sweep => vec![ended(kept::sweep(root))],
        KeptOrder::List => match kept::list(root) {
            Err(error) => vec![ended(Err(error))],
            Ok(found) => {
                let record = |kept: &kept::Kept| (kept.name.clone(), kept.used, kept.idle.as_secs());
                let lists = found.chunks(A_REPORT).map(|part| KeptReport::Listed(part.iter().map(record).collect()));
                lists.chain([KeptReport::Done]).collect()
            }
        },
    }
}

/// How it ended, as a report.
pub(super) fn ended(result: io::Result<()>) -> KeptReport {
    match result {
        Ok(()) => KeptReport::Done,
        Err(e) if e.kind() == io::ErrorKind::NotFound => KeptReport::Missing,
        Err(e) => KeptReport::Failed(e.to_string()),
    }
}
