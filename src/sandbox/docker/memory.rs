//! Folders in memory: what a container may write to where no folder of the host is shown.

use super::loaders::normal;
use super::shown;
use crate::model::{ExecMode, RunFault, SandboxProfile};
use crate::sandbox::environment::HOME;
use crate::sandbox::plan::{PROOF, SECRETS, WORKSPACE};
use std::collections::BTreeMap;
use std::path::Path;

/// Places with their options for mount(8): what no folder of the host is shown for, the volumes of the image among it.
pub(super) fn folders(profile: &SandboxProfile, ready: &shown::Ready, volumes: &[String]) -> BTreeMap<String, String> {
    let size = profile.limits.scratch_bytes;
    let (uid, gid) = ready.user;
    let data = "rw,noexec,nosuid,nodev";
    // What a command writes is no code where only listed executables may be executed.
    let lists = profile.exec_mode == ExecMode::Allowlist;
    let code = if lists { data } else { "rw,exec,nosuid,nodev" };
    let own = format!("mode=0700,uid={uid},gid={gid}");
    let mut folders = BTreeMap::from([
        ("/run".to_owned(), format!("{data},size=1m,mode=0755")),
        (PROOF.to_owned(), format!("{data},size=4k,mode=1777")),
        (SECRETS.to_owned(), format!("{data},size=16m,{own}")),
        ("/tmp".to_owned(), format!("{data},size={size},mode=1777")),
        (HOME.to_owned(), format!("{data},size={size},{own}")),
        (WORKSPACE.to_owned(), format!("{code},size={size},{own}")),
    ]);
    for volume in volumes {
        folders.entry(place_of(volume)).or_insert_with(|| format!("{data},size={size},{own}"));
    }
    if lists {
        // The image's own has the loaders, which a mount without code would keep from being mapped.
        folders.remove("/run");
    }
    folders.retain(|place, _| !ready.shown.iter().any(|shown| shown.target == *place));
    folders
}

/// An image may write it in several ways, of which engines take one.
fn place_of(volume: &str) -> String {
    normal(Path::new(volume)).display().to_string()
}

/// Looks whether a volume of the image would lie in a folder of the host: what is written there would not be kept.
///
/// # Errors
/// Names it.
pub(super) fn check(ready: &shown::Ready, volumes: &[String]) -> Result<(), RunFault> {
    let lies_in = |volume: &String| {
        let place = place_of(volume);
        let shown =
            ready.shown.iter().find(|shown| Path::new(&place).starts_with(&shown.target) && shown.target != place)?;
        Some((place, &shown.target))
    };
    let Some((place, target)) = volumes.iter().find_map(lies_in) else { return Ok(()) };
    Err(RunFault::Refused {
        what: format!("the image wants a volume at {place}, in {target}, where it would hide what is on disk"),
        hint: "choose an image without (VOLUME), or do not show that folder".into(),
    })
}
