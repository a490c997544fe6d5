//! Images of containers: the profile's own with the bundle on top, made once for each.

use super::answers::{fault, missing};
use super::build::Build;
use super::bundle::{Bundle, architecture};
use super::loaders::{self, Loader};
use crate::model::{ExecMode, RunFault};
use crate::sandbox::listed::{FOLDER, SHIM};
use bollard::Docker;
use bollard::models::ImageInspect;
use futures_util::stream;
use std::io;

/// Labels of an image of ours.
const BASE: &str = "io.vambrace.base";
const BUNDLE: &str = "io.vambrace.bundle";
const MODE: &str = "io.vambrace.exec-mode";

/// An image that is ready to make containers of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ready {
    /// Its id, `sha256:…`: what the container is made of.
    pub(super) id: String,
    /// The id of the image that the profile names: what the record tells.
    pub(super) base: String,
    /// Names of variables that the image sets. None of them is a command's, and some would be orders to our own loader.
    pub(super) variables: Vec<String>,
    /// Where the bundle lies in it.
    pub(super) folder: String,
    /// Folders for which the image wants a volume, made by whoever runs it. They get a tmpfs instead.
    pub(super) volumes: Vec<String>,
}

/// An image that a profile names, and what is there to be made of it.
pub(super) struct Wanted {
    /// That with the bundle on top, where it was made already.
    pub(super) ready: Option<Ready>,
    base: String,
    tag: String,
}

/// Finds the image, and that with the bundle on top, which is made where it is not there. Where only listed executables
/// may be executed, it has the shim over its loaders.
///
/// # Errors
/// Where there is no such image, it is for another machine, or cannot be built upon.
pub(super) async fn prepare(
    docker: &Docker,
    name: &str,
    gateway: &str,
    bundle: &Bundle,
    mode: ExecMode,
) -> Result<Ready, RunFault> {
    let Wanted { ready, base, tag } = find(docker, name, gateway, bundle, mode).await?;
    if let Some(ready) = ready {
        return Ok(ready);
    }
    let loaders = match mode {
        ExecMode::Full => Vec::new(),
        ExecMode::Allowlist => loaders::of_image(docker, &base).await?,
    };
    let build = Build::new();
    let archive = context(&base, bundle, mode, &loaders, &build).map_err(|e| RunFault::Engine {
        what: format!("the image with this program cannot be put together: {e}"),
        hint: "is the disk or the memory full?".into(),
    })?;
    let archive = stream::iter([Ok(archive.into())]);
    build.run(docker, &tag, "the image with this program", archive).await?;
    let made = find(docker, name, gateway, bundle, mode).await?.ready;
    made.ok_or_else(|| RunFault::Engine {
        what: format!("the image {tag} is not the one that was built"),
        hint: "somebody else may have given another one its name; remove that and try again".into(),
    })
}

/// Looks for both and makes nothing.
///
/// # Errors
/// As above.
pub(super) async fn find(
    docker: &Docker,
    name: &str,
    gateway: &str,
    bundle: &Bundle,
    mode: ExecMode,
) -> Result<Wanted, RunFault> {
    let base = match docker.inspect_image(name).await {
        Ok(base) => base,
        Err(error) if missing(&error) => {
            return Err(RunFault::Engine {
                what: format!("the engine has no image {name:?}"),
                hint: "build one with `vambrace sandbox build-image`, or load it: `docker load`, `docker pull`".into(),
            });
        }
        Err(error) => return Err(fault("look for the image", &error)),
    };
    let id = id_of(&base, name)?;
    // Building on it would execute them.
    if base.config.as_ref().and_then(|config| config.on_build.as_ref()).is_some_and(|steps| !steps.is_empty()) {
        return Err(RunFault::Engine {
            what: format!("the image {name:?} wants commands executed by whoever builds upon it (ONBUILD)"),
            hint: "choose an image without".into(),
        });
    }
    let of = base.architecture.as_deref().filter(|text| !text.is_empty());
    if let Some(other) = of.filter(|of| *of != architecture()) {
        return Err(RunFault::Engine {
            what: format!("the image {name:?} is for {other}, and this program for {}", architecture()),
            hint: "choose an image for this machine".into(),
        });
    }
    let set = base.config.as_ref().and_then(|config| config.env.clone()).unwrap_or_default();
    let mut variables: Vec<String> = set.iter().map(|text| text.split('=').next().unwrap_or(text).to_owned()).collect();
    // Building on an image gives it one.
    if !variables.iter().any(|name| name == "PATH") {
        variables.push("PATH".into());
    }
    let volumes = base.config.as_ref().and_then(|config| config.volumes.clone()).unwrap_or_default();
    // Each gateway has a name of its own: what another builds at the same time would be another image of one name.
    let of = id.trim_start_matches("sha256:");
    let suffix = if mode == ExecMode::Allowlist { "-listed" } else { "" };
    let tag = format!("vambrace-inside:{gateway:.8}-{of:.16}-{:.16}{suffix}", bundle.digest);
    let ready = |image: &ImageInspect| {
        let labels = image.config.as_ref()?.labels.as_ref()?;
        let is_ours = labels.get(BASE) == Some(&id)
            && labels.get(BUNDLE) == Some(&bundle.digest)
            && labels.get(MODE).map(String::as_str) == Some(mode.as_str())
            && is_on_top(&layers_of(image), &layers_of(&base));
        let made = image.id.clone().filter(|_| is_ours)?;
        Some(Ready {
            id: made,
            base: id.clone(),
            variables: variables.clone(),
            folder: bundle.folder(&id),
            volumes: volumes.clone(),
        })
    };
    let ready = docker.inspect_image(&tag).await.ok().as_ref().and_then(ready);
    Ok(Wanted { ready, base: id, tag })
}

/// Whether an image is another with something on top: labels are whatever somebody writes, layers go by their contents.
fn is_on_top(layers: &[String], base: &[String]) -> bool {
    layers.len() > base.len() && layers.starts_with(base)
}

fn layers_of(image: &ImageInspect) -> Vec<String> {
    image.root_fs.as_ref().and_then(|root| root.layers.clone()).unwrap_or_default()
}

fn id_of(image: &ImageInspect, name: &str) -> Result<String, RunFault> {
    image.id.clone().filter(|id| id.starts_with("sha256:")).ok_or_else(|| RunFault::Engine {
        what: format!("the engine does not say which image {name:?} is"),
        hint: "an engine of another kind? `vambrace sandbox probe --backend docker` says what it is".into(),
    })
}

/// What the engine builds from: nothing is executed, files are added.
fn context(base: &str, bundle: &Bundle, mode: ExecMode, loaders: &[Loader], build: &Build) -> io::Result<Vec<u8>> {
    let mut dockerfile = format!("FROM {base}\n{}COPY files {}\n", build.line(), bundle.folder(base));
    for (number, loader) in loaders.iter().enumerate() {
        // As JSON, in which no path means anything else.
        let cover = serde_json::to_string(&["loaders/shim", &loader.place])?;
        let shown = serde_json::to_string(&[format!("loaders/{number}"), format!("{FOLDER}/{}", loader.name)])?;
        dockerfile.push_str(&format!("COPY {cover}\nCOPY {shown}\n"));
    }
    if mode == ExecMode::Allowlist {
        dockerfile.push_str(&format!("COPY loaders/unlisted {FOLDER}/unlisted\n"));
    }
    dockerfile.push_str(&format!(
        "LABEL {BASE}={base} {BUNDLE}={} {MODE}={}\nENTRYPOINT []\nCMD []\nUSER 65534\n",
        bundle.digest,
        mode.as_str()
    ));
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8], mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, name, bytes)
    };
    add("Dockerfile", dockerfile.as_bytes(), 0o644)?;
    for (name, bytes) in &bundle.files {
        add(&format!("files/{name}"), bytes, 0o755)?;
    }
    if mode == ExecMode::Allowlist {
        add("loaders/shim", SHIM, 0o755)?;
        // Executable but for the list: the battery tries it.
        add("loaders/unlisted", b"", 0o755)?;
    }
    for (number, loader) in loaders.iter().enumerate() {
        add(&format!("loaders/{number}"), &loader.bytes, 0o755)?;
    }
    archive.into_inner()
}
