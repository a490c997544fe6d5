//! What an engine can enforce, by its own word.

use super::answers::{fault, missing};
use super::host;
use super::reach::connect;
use crate::model::{EngineHost, RunFault};
use crate::sandbox::probe::Probe;
use bollard::Docker;

/// Asks it for every wall in turn, and for the image.
///
/// # Errors
/// Where it is not there.
pub(crate) fn probe_engine(host: &EngineHost, image: &str) -> Result<Vec<Probe>, RunFault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| RunFault::Engine {
        what: format!("the engine cannot be asked: {e}"),
        hint: "is this process allowed as many descriptors as it needs?".into(),
    })?;
    runtime.block_on(ask(host, image))
}

/// Whether ids inside are others outside, of an engine that can bound what a profile bounds.
///
/// # Errors
/// Where it says that it cannot: it would make containers all the same, and leave the limits out.
pub(super) async fn is_remapped(docker: &Docker) -> Result<bool, RunFault> {
    let info = docker.info().await.map_err(|e| fault("say what it can", &e))?;
    let limits = [("memory", info.memory_limit), ("CPU", info.cpu_cfs_quota), ("processes", info.pids_limit)];
    let missing: Vec<&str> = limits.iter().filter(|(_, here)| *here == Some(false)).map(|(what, _)| *what).collect();
    if !missing.is_empty() {
        return Err(RunFault::Engine {
            what: format!("the container engine has no control groups that bound {}", missing.join(", ")),
            hint: "a rootless engine needs control groups v2, with cpu, memory and pids delegated to its user by systemd; \
                   `vambrace sandbox probe --backend docker` tells what there is"
                .into(),
        });
    }
    Ok(maps_ids(&info.security_options.unwrap_or_default()))
}

fn maps_ids(options: &[String]) -> bool {
    options.iter().any(|option| {
        let name = option.split(',').find_map(|part| part.strip_prefix("name=")).unwrap_or(option);
        name == "rootless" || name == "userns"
    })
}

async fn ask(host: &EngineHost, image: &str) -> Result<Vec<Probe>, RunFault> {
    let docker = connect(host).await?.api;
    let version = docker.version().await.map_err(|e| fault("say what it is", &e))?;
    let info = docker.info().await.map_err(|e| fault("say what it can", &e))?;
    let name = version.platform.map(|platform| platform.name).filter(|name| !name.is_empty());
    let row = |wall, here, required, detail: String| Probe { wall, here, required, detail };
    let options = info.security_options.unwrap_or_default();
    let has = |what: &str| options.iter().any(|option| option.contains(&format!("name={what}")) || option == what);
    let limit = |wall, here: Option<bool>| {
        let detail =
            if here == Some(true) { "control group" } else { "the engine would leave it out, so nothing runs" };
        row(wall, here == Some(true), true, detail.into())
    };
    let found = match docker.inspect_image(image).await {
        Ok(found) => row("image", true, true, format!("{image} {:.19}", found.id.unwrap_or_default())),
        Err(error) if missing(&error) => row("image", false, true, format!("{image}: `vambrace sandbox build-image`")),
        Err(error) => return Err(fault("look for the image", &error)),
    };
    let word = |text: Option<String>| text.unwrap_or_else(|| "?".into());
    let mut rows = vec![
        row("engine", true, true, format!("{} {}", name.unwrap_or_else(|| "unnamed".into()), word(version.version))),
        row("API", true, true, docker.client_version().to_string()),
        row("kernel", true, false, word(info.kernel_version)),
        row("seccomp", has("seccomp"), true, "the engine's own filter, and ours in it".into()),
        row("apparmor", has("apparmor"), false, "the engine's own profile".into()),
        row("selinux", has("selinux"), false, "the engine's own labels".into()),
        row("user namespace", maps_ids(&options), false, "whether root inside is nobody outside".into()),
        limit("memory limit", info.memory_limit),
        limit("cpu limit", info.cpu_cfs_quota),
        limit("pids limit", info.pids_limit),
        found,
    ];
    rows.extend(host::probe());
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_maps_ids_is_known_by_its_word() {
        for (options, maps) in [
            (&["name=seccomp,profile=default", "name=rootless"][..], true),
            (&["name=userns"], true),
            (&["rootless"], true),
            (&["name=seccomp,profile=rootless", "name=cgroupns"], false),
            (&[], false),
        ] {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(maps_ids(&options), maps, "{options:?}");
        }
    }
}
