//! The default image: a root file system that somebody has put together, given to the engine without any registry.

use super::answers::fault;
use super::build::Build;
use super::reach::connect;
use crate::model::{EngineHost, RunFault};
use crate::os;
use futures_util::stream;
use hyper::body::Bytes;
use std::fs::File;
use std::io::{self, Read, Seek};

/// Bytes of the archive in memory at a time.
const CHUNK: usize = 1 << 20;

/// Makes an image of this name of an archive of a root file system; gives its id and its size in bytes.
///
/// # Errors
/// Where the engine is not there or refuses, or the disk is full.
pub(crate) fn make_image(host: &EngineHost, name: &str, rootfs: &mut File) -> Result<(String, u64), RunFault> {
    let unpacked = |e: io::Error| RunFault::Engine {
        what: format!("the image cannot be put together: {e}"),
        hint: "is the disk full?".into(),
    };
    let build = Build::new();
    let archive = context(rootfs, &build).map_err(unpacked)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unpacked)?;
    runtime.block_on(async {
        let docker = connect(host).await?.api;
        build.run(&docker, name, "the image", stream::iter(Chunks(archive))).await?;
        let image = docker.inspect_image(name).await.map_err(|e| fault("look at the image", &e))?;
        Ok((image.id.unwrap_or_default(), u64::try_from(image.size.unwrap_or(0)).unwrap_or(0)))
    })
}

/// What the engine builds from: the archive, which it unpacks, and nothing that is executed.
fn context(rootfs: &mut File, build: &Build) -> io::Result<File> {
    let dockerfile = format!("FROM scratch\n{}ADD rootfs.tar /\nUSER 65534\n", build.line());
    let mut archive = tar::Builder::new(os::fs::nameless(&std::env::temp_dir())?);
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "Dockerfile", dockerfile.as_bytes())?;
    rootfs.rewind()?;
    archive.append_file("rootfs.tar", rootfs)?;
    let mut file = archive.into_inner()?;
    file.rewind()?;
    Ok(file)
}

/// A file, piece by piece.
struct Chunks(File);

impl Iterator for Chunks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = vec![0; CHUNK];
        match self.0.read(&mut bytes) {
            Ok(0) => None,
            Ok(read) => {
                bytes.truncate(read);
                Some(Ok(bytes.into()))
            }
            Err(error) => Some(Err(error)),
        }
    }
}
