//! `sandbox build-image`: the default image of containers, from the packages of this host's own distribution.

use super::args::{BuildImageArgs, CheckImageArgs, PlaceArgs};
use super::render::{self, Fault};
use super::sandbox::fault;
use crate::config;
use crate::os;
use crate::sandbox::{Contents, Found, look_into, make_image};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What developers expect in a sandbox, beside the essential packages.
const PACKAGES: &str =
    "bash,ca-certificates,curl,file,gcc,git,jq,less,libc6-dev,make,patch,procps,python3,ripgrep,unzip,xz-utils";

/// Done in the tree before it is packed: places that a sandbox needs; nothing that honours a set-id bit, and nothing of
/// the package manager's that only costs space.
const HOOKS: &[&str] = &[
    "mkdir -p \"$1\"/workspace \"$1\"/home/agent",
    "printf 'agent:x:1000:1000::/home/agent:/bin/sh\\n' >> \"$1\"/etc/passwd",
    "printf 'agent:x:1000:\\n' >> \"$1\"/etc/group",
    "find \"$1\" -xdev -perm /6000 ! -type l -exec chmod a-s {} +",
    "rm -rf \"$1\"/var/lib/apt/lists \"$1\"/var/cache/apt \"$1\"/usr/share/doc \"$1\"/usr/share/man \"$1\"/usr/share/locale",
];

/// Builds it. What the package manager says goes to standard error as it comes: it takes a minute.
pub(super) fn build(place: &PlaceArgs, args: &BuildImageArgs) -> Result<ExitCode, Fault> {
    let (settings, _) = place.settings().map_err(|f| f.code(125))?;
    let suite = match &args.suite {
        Some(suite) => suite.clone(),
        None => own_suite().ok_or_else(|| {
            Fault::new("this host's distribution has no name that packages go by").hint("name one: --suite bookworm")
        })?,
    };
    let folder = Scratch::make()?;
    let archive = folder.0.join("rootfs.tar");
    put_together(&suite, args.include.as_deref().unwrap_or(PACKAGES), &archive)?;
    let mut rootfs = File::open(&archive).map_err(|e| Scratch::fault(&archive, &e))?;
    let (id, size) = make_image(&settings.docker.host, &args.name, &mut rootfs).map_err(|e| fault(&e))?;
    let contents = look_into(&settings.docker.host, &id).map_err(|e| fault(&e))?;
    if args.json {
        let found = found(&contents);
        render::json(&json!({"name": args.name, "id": id, "bytes": size, "suite": suite, "found": found}));
    } else {
        render::line(&format!("{} {id}, {:.0} MB, from {suite}", args.name, size as f64 / 1e6));
        tell(&contents);
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks through an image that somebody else has made.
pub(super) fn check(place: &PlaceArgs, args: &CheckImageArgs) -> Result<ExitCode, Fault> {
    let (settings, _) = place.settings().map_err(|f| f.code(125))?;
    let image = args.image.as_deref().unwrap_or(&settings.profiles.defaults.image);
    if !config::is_image(image) {
        return Err(Fault::new(format!("{image:?} is no name of an image"))
            .hint("write for example vambrace-sandbox:latest or sha256:…")
            .code(2));
    }
    let contents = look_into(&settings.docker.host, image).map_err(|e| fault(&e))?;
    if args.output.json {
        render::json(&json!({"image": image, "id": contents.id, "bytes": contents.bytes, "found": found(&contents)}));
    } else {
        render::line(&format!("{image} {}, {:.0} MB", contents.id, contents.bytes as f64 / 1e6));
        tell(&contents);
    }
    Ok(if contents.found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn found(contents: &Contents) -> Vec<Value> {
    let one = |found: &Found| json!({"kind": found.kind.as_str(), "place": found.place, "what": found.what});
    contents.found.iter().map(one).collect()
}

fn tell(contents: &Contents) {
    let row =
        |found: &Found| vec![found.kind.as_str().to_owned(), render::one_line(&found.place), found.what.to_owned()];
    match contents.found.is_empty() {
        true => render::line("no set-id program, no capability of a file, nothing that looks like a secret"),
        false => render::line(&render::table(&contents.found.iter().map(row).collect::<Vec<_>>())),
    }
}

fn put_together(suite: &str, packages: &str, archive: &Path) -> Result<(), Fault> {
    #[allow(clippy::disallowed_methods, reason = "the operator's own tool, asked for by name")]
    let mut tool = Command::new("mmdebstrap");
    tool.args(["--variant=minbase", &format!("--include={packages}")]);
    tool.args(HOOKS.iter().map(|hook| format!("--customize-hook={hook}")));
    // Behind the sources' names: where this host has its packages from, so that no other place is asked.
    tool.arg(suite).arg(archive).args(own_sources()).stdin(Stdio::null()).stdout(Stdio::null());
    match tool.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Fault::new(format!("mmdebstrap failed: {status}"))
            .hint("what it said above tells why; does `apt-get update` work on this host?")
            .code(125)),
        Err(error) => Err(Fault::new(format!("mmdebstrap cannot be started: {error}"))
            .hint("apt-get install mmdebstrap; or give the profile another image")
            .code(125)),
    }
}

/// The codename of this host's distribution (os-release(5)).
fn own_suite() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

/// The files that name this host's package archives (sources.list(5)).
fn own_sources() -> Vec<PathBuf> {
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|item| item.path());
    let is_list = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "list" || kind == "sources");
    let has_some = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    [PathBuf::from("/etc/apt/sources.list")].into_iter().chain(folder.filter(is_list)).filter(has_some).collect()
}

/// A folder for one build, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self, Fault> {
        let name = format!("vambrace-image-{}", crate::crypto::hex(&os::host::random::<8>()));
        let folder = std::env::temp_dir().join(name);
        os::fs::private_dir(&folder).map_err(|e| Self::fault(&folder, &e))?;
        Ok(Scratch(folder))
    }

    fn fault(path: &Path, error: &std::io::Error) -> Fault {
        Fault::new(format!("{}: {error}", path.display()))
            .hint("TMPDIR names another place for what is only needed now")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = os::tree::remove(&self.0);
    }
}
