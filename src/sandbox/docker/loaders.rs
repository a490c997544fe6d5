//! The loaders of an image, for lists of executables: read out of a container that is never started.
//!
//! Where a loader really is decides what the shim must lie over. What is found here is looked at once more inside
//! (`native/guard.rs`): a loader that was missed, or a link that leads elsewhere there, ends the run.

use super::answers::fault;
use super::look;
use crate::model::RunFault;
use crate::sandbox::listed::LOADERS;
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::StreamExt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// One loader.
pub(super) struct Loader {
    /// Its name in PT_INTERP: what the shim finds it by.
    pub(super) name: String,
    /// Where it lies, no link.
    pub(super) place: String,
    pub(super) bytes: Vec<u8>,
}

/// Larger than any loader; musl's is a whole C library.
const MOST_BYTES: usize = 16 << 20;

/// Links on one path, as the kernel's MAXSYMLINKS.
const MOST_LINKS: usize = 40;

/// Those of the known places.
///
/// # Errors
/// Where the engine does not say.
pub(super) async fn of_image(docker: &Docker, image: &str) -> Result<Vec<Loader>, RunFault> {
    let id = look::into(docker, image).await?;
    let mut found = Ok(Vec::new());
    for known in LOADERS {
        found = match (found, read(docker, &id, known).await) {
            (Ok(mut found), Ok(loader)) => {
                found.extend(loader);
                Ok(found)
            }
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
        };
    }
    look::done(docker, &id).await?;
    found
}

async fn read(docker: &Docker, id: &str, known: &str) -> Result<Option<Loader>, RunFault> {
    let mut place = PathBuf::from(known);
    for _ in 0..MOST_LINKS {
        match entry(docker, id, &place).await? {
            Entry::Missing => return Ok(None),
            Entry::Link(target) => place = normal(&place.parent().unwrap_or(Path::new("/")).join(target)),
            Entry::File(bytes) => {
                let (name, place) = (known.rsplit('/').next().unwrap_or(known).to_owned(), place.display().to_string());
                // In a recipe for an image these would mean something.
                if place.chars().any(|c| matches!(c, '$' | '\\') || c.is_control()) {
                    return Err(strange(&place, "its path has signs that no usual one has"));
                }
                return Ok(Some(Loader { name, place, bytes }));
            }
        }
    }
    Err(strange(known, "it is a link without an end"))
}

enum Entry {
    Missing,
    Link(PathBuf),
    File(Vec<u8>),
}

/// What stands at a path, whose last part alone is not followed.
async fn entry(docker: &Docker, id: &str, place: &Path) -> Result<Entry, RunFault> {
    let path = place.display().to_string();
    let options = DownloadFromContainerOptionsBuilder::new().path(&path).build();
    let mut parts = docker.download_from_container(id, Some(options));
    let mut archive = Vec::new();
    while let Some(part) = parts.next().await {
        match part {
            Ok(part) => archive.extend_from_slice(&part),
            Err(Error::DockerResponseServerError { status_code: 404, message }) if !is_gone(&message) => {
                return Ok(Entry::Missing);
            }
            Err(error) => return Err(fault("read a loader of the image", &error)),
        }
        if archive.len() > MOST_BYTES {
            return Err(strange(&path, "it is larger than any loader"));
        }
    }
    let damaged = |e: std::io::Error| strange(&path, &e.to_string());
    let mut archive = tar::Archive::new(&*archive);
    let mut first = archive.entries().map_err(damaged)?.next().ok_or_else(|| strange(&path, "nothing is told"))?;
    let entry = first.as_mut().map_err(|e| strange(&path, &e.to_string()))?;
    match entry.header().entry_type() {
        tar::EntryType::Symlink => {
            let target = entry.link_name().map_err(damaged)?;
            Ok(Entry::Link(target.ok_or_else(|| strange(&path, "it is a link to nothing"))?.into_owned()))
        }
        tar::EntryType::Regular => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(damaged)?;
            Ok(Entry::File(bytes))
        }
        _ => Ok(Entry::Missing),
    }
}

/// Whether it is the container that the engine does not find, rather than something in it.
fn is_gone(message: &str) -> bool {
    message.to_ascii_lowercase().contains("no such container")
}

/// Without `.` and `..`, as text: the engine follows links in folders itself.
pub(super) fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            part => whole.push(part),
        }
        whole
    })
}

fn strange(path: &str, why: &str) -> RunFault {
    RunFault::Engine {
        what: format!("the image's loader {path} cannot be covered: {why}"),
        hint: "use an image with a usual C library, or sandbox_mode = \"full\"".into(),
    }
}
