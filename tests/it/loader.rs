//! The guarded loader by itself: the shim over the loader's path, in a mount namespace of its own.
//!
//! What the mode makes of it is tested with the other walls. Needs root, gcc and unshare.

use crate::world::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[cfg(target_arch = "x86_64")]
pub(crate) const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(target_arch = "aarch64")]
pub(crate) const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

/// Lays $1, the shim, over $2, the loader's path, and executes the rest.
const SETTING: &str = r#"set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/loader
shim=$1 name=${2##*/} path=$(readlink -f "$2")
touch "/run/loader/$name"
mount --bind "$path" "/run/loader/$name"
mount --bind "$shim" "$path"
shift 2
exec "$@""#;

pub(crate) const BY_ITSELF: &str = "vambrace: the loader runs no programs by itself here\n";

struct Stage {
    world: World,
    shim: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let world = World::new(User::Root);
        let shim = world.dir.join("shim");
        fs::write(&shim, include_bytes!(concat!(env!("OUT_DIR"), "/loader-shim"))).unwrap();
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
        Self { world, shim }
    }

    /// Runs a command where the shim lies over the loader.
    fn run(&self, command: &[&str]) -> Output {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", SETTING, "sh"]).arg(&self.shim).arg(LOADER).args(command);
        unshare.output().expect("cannot start unshare: install util-linux")
    }

    fn build(&self, name: &str, source: &str, flags: &[&str]) -> String {
        let built = self.world.dir.join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
        let done = Command::new("cc").args(["-O1", "-pthread"]).args(flags).arg("-o").arg(&built).arg(&source).status();
        assert!(done.is_ok_and(|s| s.success()), "cannot build {}: install gcc and libc6-dev", source.display());
        built.to_str().unwrap().to_owned()
    }
}

fn check(output: &Output, code: i32, says: &str, command: &[&str]) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {} {said}", output.status);
    assert!(said.contains(says), "{command:?} said: {said}");
}

#[test]
fn only_listed_programs_run_also_through_the_loader() {
    let stage = Stage::new();
    let confined = stage.build("confined", "confined.c", &["-static"]);
    let real = format!("/run/loader/{}", LOADER.rsplit('/').next().unwrap());
    let eacces = nix::libc::EACCES;

    let rows: [(&[&str], i32, &str); 6] = [
        (&["/usr/bin/true"], 0, ""),
        (&["/usr/bin/id"], eacces, "Permission denied"),
        (&[LOADER, "/usr/bin/id"], 126, BY_ITSELF),
        (&[LOADER, "/usr/bin/true"], 126, BY_ITSELF),
        (&[LOADER], 126, BY_ITSELF),
        (&[&real, "/usr/bin/id"], eacces, "Permission denied"),
    ];
    for (command, code, says) in rows {
        let whole = [&[&confined, "/usr/bin/true", LOADER, "--"], command].concat();
        check(&stage.run(&whole), code, says, command);
    }

    // Without the shim, the loader has the same right and runs what is not listed: this is what it is for.
    let plain = Command::new(&confined).args(["/usr/bin/true", LOADER, "--", LOADER, "/usr/bin/id"]).output().unwrap();
    check(&plain, 0, "uid=0", &["without the shim"]);
}

#[test]
fn programs_are_loaded_through_the_shim_as_ever() {
    let stage = Stage::new();
    let pie = stage.build("pie", "loaded.c", &["-pie", "-fPIE"]);
    let fixed = stage.build("fixed", "loaded.c", &["-no-pie", "-fno-pie"]);
    let fixed_without_phdr = without_phdr(&fixed);
    let alone = stage.build("alone", "loaded.c", &["-static", "-DSTATIC"]);

    for program in [&pie, &fixed, &fixed_without_phdr, &alone] {
        // No address space layout randomisation; the legacy layout, which grows upwards; both.
        for around in ["exec", "exec setarch -R", "ulimit -s unlimited; exec", "ulimit -s unlimited; exec setarch -R"] {
            let command = ["sh", "-c", &format!("{around} {program}")];
            check(&stage.run(&command), 0, "loaded", &command);
        }
    }
    let ordinary: [(&[&str], &str); 4] = [
        (&["bash", "-c", "echo a | cat | wc -c"], "2"),
        (&["python3", "-c", "import ssl, ctypes, subprocess; print(subprocess.check_output(['echo', 'b']))"], "b'b"),
        (&["perl", "-MPOSIX", "-e", "print strftime('%Y', gmtime(0))"], "1970"),
        (&["env", "-i", "/usr/bin/git", "--version"], "git version"),
    ];
    for (command, says) in ordinary {
        check(&stage.run(command), 0, says, command);
    }
}

#[test]
fn without_a_loader_to_load_nothing_runs() {
    let stage = Stage::new();
    let alone = stage.build("alone", "loaded.c", &["-static", "-DSTATIC"]);
    let name = LOADER.rsplit('/').next().unwrap();
    let rows = [
        ("unreadable", "ulimit -n 0; exec /usr/bin/true".to_owned(), "is not in /run/loader"),
        ("gone", "mount -t tmpfs tmpfs /run/loader; exec /usr/bin/true".to_owned(), "is not in /run/loader"),
        ("empty", format!("mount --bind /dev/null /run/loader/{name}; exec /usr/bin/true"), "is not a loader"),
        ("a program", format!("mount --bind {alone} /run/loader/{name}; exec /usr/bin/true"), "is not a loader"),
    ];
    for (what, script, says) in rows {
        check(&stage.run(&["sh", "-c", &script]), 126, says, &[what]);
    }
}

/// A copy of a program without PT_PHDR, as some linkers make them.
fn without_phdr(program: &str) -> String {
    let mut bytes = fs::read(program).unwrap();
    let at = bytes[64..].chunks(56).position(|header| header[..4] == [6, 0, 0, 0]).expect("no PT_PHDR");
    bytes[64 + at * 56] = 0;
    let copy = format!("{program}-without-phdr");
    fs::write(&copy, bytes).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}
