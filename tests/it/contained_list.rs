//! The list of executables in containers: the same kernel rules as in native walls, on an image's own loader.

use crate::engine::{Dock, import};
use crate::loader::LOADER;
use crate::world::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What a command says that should not have run.
const RAN: &str = "uid=";

const LIST: &str = r#"["/usr/bin/dash", "/usr/bin/cat", "/usr/bin/true", "/usr/bin/attacks"]"#;

/// An image with this host's C library, whose loader is reached over a link as in a distribution.
fn image() -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| {
        import("listed", &[], |root| {
            let mut files: Vec<PathBuf> = Vec::new();
            for name in ["dash", "cat", "true", "id"] {
                let program = Path::new("/usr/bin").join(name);
                let said = finish(Command::new("ldd").arg(&program)).exits(0);
                let named = said.split_whitespace().filter(|word| word.starts_with('/') && *word != LOADER);
                files.extend(named.map(PathBuf::from));
                files.push(program);
            }
            for file in files {
                let to = root.join(file.strip_prefix("/").unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(&file, &to).unwrap();
            }
            fs::create_dir_all(root.join("usr/lib/loaders")).unwrap();
            fs::copy(attacks(), root.join("usr/bin/attacks")).unwrap();
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/library.c");
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-w", "-shared", "-fPIC", "-o"]).arg(root.join("usr/lib/library.so"));
            finish(cc.arg(source)).exits(0);
            fs::copy(LOADER, root.join("usr/lib/loaders/ld.so")).unwrap();
            let link = root.join(LOADER.strip_prefix('/').unwrap());
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink("../usr/lib/loaders/ld.so", link).unwrap();
        })
    })
}

fn with(user: User, sandbox: &str, exec: &str) -> Dock {
    let dock = Dock::of(user, image(), &format!("{sandbox}[defaults.exec]\n{exec}\n"));
    let world = &dock.world;
    fs::create_dir_all(world.workspace()).unwrap();
    world.give(&world.dir.join("state-workspaces"));
    world.give(&world.workspace());
    fs::copy("/usr/bin/id", world.workspace().join("id")).unwrap();
    world.give(&world.workspace().join("id"));
    dock
}

fn listed(user: User, sandbox: &str) -> Dock {
    with(user, sandbox, &format!("sandbox_mode = \"allowlist\"\nallow = {LIST}"))
}

fn dash(dock: &Dock, line: &str) -> Ran {
    dock.world.exec(&["dash", "-c", line])
}

#[test]
fn a_list_of_executables_holds_in_a_container_by_every_way_there_is() {
    let (dock, full) = (listed(User::Root, ""), with(User::Root, "", "sandbox_mode = \"full\""));
    // What is listed runs, the image's own loader behind it.
    assert_eq!(dash(&dock, "echo x | /usr/bin/cat && true && echo $(echo y)").exits(0), "x\ny\n");
    assert_eq!(dash(&dock, "echo x > file && /usr/bin/cat file").exits(0), "x\n");

    for line in [
        "id",
        "/usr/bin/id",
        "./id",
        "exec id",
        "env id",
        "busybox sh -c id",
        "/bin/busybox id",
        &format!("{LOADER} /usr/bin/id"),
        "/usr/lib/loaders/ld.so /usr/bin/id",
        &format!("/usr/bin/cat /usr/bin/id > true; PATH=/workspace {LOADER} ./true"),
    ] {
        assert!(dash(&full, line).stdout.contains(RAN), "without a list: {line}: {:?}", dash(&full, line));
        let ran = dash(&dock, line);
        assert!(!ran.stdout.contains(RAN) && !ran.stderr.contains(RAN), "{line}: {ran:?}");
        assert_ne!(ran.code, 125, "the shell itself was to run: {line}: {ran:?}");
    }
    // The bundle in the image is not for commands either, and neither is what lies beside the loader.
    let bundle = dash(&dock, "echo /.vambrace-*").exits(0);
    for program in [format!("{}/vambrace", bundle.trim()), "/run/loader/unlisted".to_owned()] {
        assert_eq!(dash(&dock, &format!("{program} --version")).code, 126, "{program}");
    }

    let refused =
        &dock.world.events("exec.finished").into_iter().find(|e| e["refused"].to_string().contains("/usr/bin/id"));
    assert!(refused.is_some(), "the record names what was refused");
    dock.world.exec(&["/usr/bin/id"]).fails(126, "cannot be executed");
}

#[test]
fn what_a_command_writes_or_has_in_memory_is_no_code_in_a_container_with_a_list() {
    let (dock, full) = (listed(User::Root, ""), with(User::Root, "", "sandbox_mode = \"full\""));
    let said = "code was loaded";
    let own = "cat /usr/lib/library.so > own.so; LD_PRELOAD=/workspace/own.so /usr/bin/cat /dev/null";
    assert!(dash(&full, own).stdout.contains(said), "without a list");
    for folder in ["/workspace", "/tmp", "/home/agent", "/dev/shm"] {
        let copy = format!("cat /usr/lib/library.so > {folder}/more.so");
        let line = format!("{copy}; LD_PRELOAD={folder}/more.so /usr/bin/cat /dev/null");
        assert!(!dash(&dock, &line).stdout.contains(said), "{folder}");
        let mapped = format!("{copy}; attacks map-as-code {folder}/more.so");
        assert_eq!(dash(&dock, &mapped).stdout, "EPERM\n", "{folder}");
    }
    for (flags, made) in [("0", "EPERM\n"), ("1", "EPERM\n"), ("10", "EPERM\n"), ("8", "")] {
        assert_eq!(dock.world.exec(&["attacks", "memory", flags]).stdout, made, "{flags}");
        assert_ne!(full.world.exec(&["attacks", "memory", flags]).stdout, "EPERM\n", "{flags}");
    }
    let record = dock.world.events("exec.finished").pop().unwrap();
    assert!(record["enforcement"].as_str().unwrap().contains("list"), "{record}");
    // Nor is what somebody else has written, where it is shown read-only.
    let shown = listed(User::Root, "workspace_access = \"ro\"\n");
    fs::copy("/usr/bin/id", shown.world.workspace().join("other.so")).unwrap();
    shown.world.give(&shown.world.workspace().join("other.so"));
    assert_eq!(shown.world.exec(&["attacks", "map-as-code", "/workspace/other.so"]).stdout, "EPERM\n");
    assert_ne!(dash(&shown, "echo x > /workspace/file").code, 0);
}

#[test]
fn a_list_asks_for_mounts_without_code_which_only_root_can_make() {
    let dock = listed(User::Ordinary, "");
    dock.world.exec(&["true"]).fails(126, "a mount without code");
    let own = listed(User::Ordinary, "workspace_access = \"none\"\nscope = \"session\"\n");
    assert_eq!(dash(&own, "echo x > file && cat file").exits(0), "x\n");
    assert_eq!(dash(&own, "/usr/bin/id").code, 126);
    assert_eq!(dash(&own, "cat /usr/lib/library.so > own.so; attacks map-as-code own.so").stdout, "EPERM\n");
}

#[test]
fn an_image_whose_loader_the_shim_cannot_cover_runs_nothing_with_a_list() {
    let image = import("other-loader", &[], |root| {
        // A program that names a loader of its own, at a place that nobody knows.
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/library.c");
        let mut cc = Command::new("cc");
        cc.args(["-w", "-nostartfiles", "-Wl,--dynamic-linker=/usr/lib/own-ld.so,-e,la_version", "-o"]);
        finish(cc.arg(root.join("usr/bin/strange")).args(["-x", "c"]).arg(source)).exits(0);
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::copy(LOADER, root.join("usr/lib/own-ld.so")).unwrap();
    });
    let config = "[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"/usr/bin/strange\"]\n";
    let dock = Dock::of(User::Root, &image, config);
    dock.world.exec(&["strange"]).fails(125, "a loader that the shim does not cover");
}
