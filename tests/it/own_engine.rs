//! Engines of a test's own: one whose disk is as large as the test wants it, and one that an ordinary user runs.

use crate::neighbours::tool;
use crate::world::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The engine, with everything that it has in one folder.
struct Own {
    folder: PathBuf,
    daemon: Spawned,
}

impl Own {
    /// What serves this command line, with the options that keep it away from every other engine.
    fn start(folder: &Path, mut daemon: Command) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        fs::write(at("daemon.json"), "{}").unwrap();
        daemon.args(["--config-file", &at("daemon.json"), "--data-root", &at("data/root")]);
        daemon.args(["--exec-root", &at("exec"), "--pidfile", &at("pid"), "--bridge", "none", "--iptables=false"]);
        let namespace = format!("vambrace-test-{}", std::process::id());
        daemon.args([
            "--containerd-namespace",
            &namespace,
            "--containerd-plugins-namespace",
            &format!("{namespace}-p"),
        ]);
        daemon.args(["--host", &format!("unix://{}", at("engine.sock"))]);
        let log = File::create(at("log")).unwrap();
        daemon.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut own = Own { folder: folder.to_owned(), daemon: Spawned(daemon.spawn().unwrap()) };
        eventually("the engine serves", || {
            let ended = own.daemon.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(at("log")).unwrap());
            UnixStream::connect(at("engine.sock")).is_ok()
        });
        own
    }

    fn config(&self) -> String {
        format!("[docker]\nhost = \"unix://{}\"\n", self.folder.join("engine.sock").display())
    }

    fn docker(&self, words: &[&str]) -> String {
        let socket = format!("unix://{}", self.folder.join("engine.sock").display());
        finish(tool("docker", "docker.io").args(["--host", &socket]).args(words)).exits(0)
    }

    /// Everything that it has: containers and images, those that others are made of among them.
    fn has(&self) -> BTreeSet<String> {
        let all = self.docker(&["ps", "--all", "--quiet"]) + &self.docker(&["images", "--all", "--quiet"]);
        all.lines().map(ToOwned::to_owned).collect()
    }
}

impl Own {
    /// The same engine again, after it was ended by this signal.
    fn again(mut self, signal: Signal, daemon: Command) -> Self {
        self.daemon.stop(signal);
        let folder = self.folder.clone();
        // Killed, it takes what it has started with it, and looks for it by this.
        let _ = fs::remove_file(folder.join("exec/containerd/containerd.pid"));
        std::mem::forget(self);
        Own::start(&folder, daemon)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.daemon.stop(Signal::SIGTERM);
        // What one that was killed has mounted is nobody's.
        let _ = umount2(&self.folder.join("data/root"), MntFlags::MNT_DETACH);
    }
}

/// A program in a network of its own: an engine without a bridge removes that of another one on its host.
fn apart(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", program]);
    command
}

/// A folder on a disk of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Path) -> Self {
        fs::create_dir_all(place).unwrap();
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("size=48m")).unwrap();
        Disk(place.to_owned())
    }

    /// So much is free from here on.
    fn leave(&self, free: u64) {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
        let size = format!("size={}", used + free);
        mount(Some("tmpfs"), &self.0, Some("tmpfs"), MsFlags::MS_REMOUNT, Some(size.as_str())).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Busybox as a root file system.
fn root(folder: &Path) -> PathBuf {
    let root = folder.join("image");
    fs::create_dir_all(root.join("bin")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox is not installed: apt-get install busybox-static"), root.join("bin/busybox"))
        .unwrap();
    for applet in ["sh", "cat", "echo", "true"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    root
}

const BASE: &str = "vambrace-test-own:1";
const PLENTY: u64 = 2 << 30;

#[test]
fn an_engine_whose_disk_is_full_says_so_and_leaves_nothing_and_goes_on_when_there_is_space() {
    let world = World::new(User::Root);
    let folder = world.make_dir("own");
    let disk = Disk::mount(&folder.join("data"));
    let own = Own::start(&folder, apart("dockerd"));
    let sandbox = format!("[defaults.sandbox]\nbackend = \"docker\"\nscope = \"agent\"\nimage = \"{BASE}\"\n");
    let world = world.config(&format!("{}{sandbox}", own.config())).start();
    // What puts packages together, with an image of 80 MB.
    let root = root(&folder);
    let mut large = File::create(root.join("large")).unwrap();
    let piece: Vec<u8> = (0..1_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    (0..80).for_each(|_| large.write_all(&piece).unwrap());
    world.make_dir("bin");
    let script = world.write(
        "bin/mmdebstrap",
        format!("#!/bin/sh\nfor a; do case $a in */rootfs.tar) tar -C {} -cf $a .;; esac; done\n", root.display())
            .as_bytes(),
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", script.parent().unwrap().display());
    let build = || finish(world.command(&["sandbox", "build-image", "--suite", "x", BASE]).env("PATH", &path));
    let fails = |code: i32, ran: Ran| {
        assert!(ran.code == code && ran.stderr.contains("no space left on device"), "{ran:?}");
        assert!(ran.stderr.contains("hint: "), "{ran:?}");
    };

    // An image does not fit.
    fails(1, build());
    assert_eq!(own.has(), BTreeSet::new());
    // Or does when it is sent, and not when it is unpacked.
    disk.leave(130 << 20);
    fails(1, build());
    assert_eq!(own.has(), BTreeSet::new());
    disk.leave(PLENTY);
    let built = build();
    assert_eq!(built.code, 0, "{built:?}");

    // That with this program does not.
    let before = own.has();
    let program = fs::metadata(program()).unwrap().len();
    for free in [program / 2, program + program / 2] {
        disk.leave(free);
        fails(125, world.exec(&["true"]));
        assert_eq!(own.has(), before, "{free}");
    }
    disk.leave(PLENTY);
    assert_eq!(world.exec(&["echo", "there"]).exits(0), "there\n");

    // A container does not; what runs already goes on.
    disk.leave(0);
    assert_eq!(world.exec(&["echo", "still there"]).exits(0), "still there\n");
    let ran = world.run(&["exec", "--agent", "other", "--", "true"]);
    fails(125, ran);
    assert_eq!(own.docker(&["ps", "--all", "--quiet"]).lines().count(), 1);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left = mounts.lines().filter(|line| line.contains(world.state().to_str().unwrap())).count();
    assert_eq!(left, 0, "{mounts}");
    disk.leave(PLENTY);
    world.run(&["exec", "--agent", "other", "--", "true"]).exits(0);
    world.run(&["sandbox", "prune", "--all"]).exits(0);
    eventually("nothing is left", || own.docker(&["ps", "--all", "--quiet"]).is_empty());
    drop(world);
    drop(own);
}

#[test]
fn an_engine_that_is_stopped_or_killed_in_mid_run_ends_the_run_and_is_found_again() {
    let world = World::new(User::Root);
    let folder = world.make_dir("own");
    // With the second its containers outlive it.
    let daemon = |more: Option<&str>| {
        let mut daemon = apart("dockerd");
        daemon.args(more);
        daemon
    };
    let outlived = Some("--live-restore");
    let mut own = Own::start(&folder, daemon(None));
    with_image(&own);
    let sandbox = format!(
        "[defaults.sandbox]\nbackend = \"docker\"\nscope = \"agent\"\nimage = \"{BASE}\"\nlimits.timeout = \"1h\"\n"
    );
    let world = world.config(&format!("{}{sandbox}", own.config())).start();
    for (signal, now, then, mark) in [
        (Signal::SIGTERM, None, outlived, mark(86681)),
        (Signal::SIGTERM, outlived, outlived, mark(86682)),
        (Signal::SIGKILL, outlived, None, mark(86683)),
    ] {
        let mut ws = world.connect();
        let id = ws.ask("exec.run", json!({"command": ["sh", "-c", format!("while :; do :; done # {mark}")]}));
        eventually("it runs", || !processes_with(mark).is_empty());

        own = own.again(signal, daemon(then));

        let answer = ws.response(&id);
        assert_eq!(answer["error"]["details"]["code"], "ENGINE_UNAVAILABLE", "{signal} {now:?}: {answer}");
        assert_eq!(world.exec(&["echo", "again"]).exits(0), "again\n", "{signal} {now:?}");
        assert!(processes_with(mark).is_empty(), "{signal} {now:?}: nothing of it is left");
        assert_eq!(own.docker(&["ps", "--all", "--quiet"]).lines().count(), 1, "{signal} {now:?}");
    }
    world.run(&["sandbox", "prune", "--all"]).exits(0);
    eventually("nothing is left", || own.docker(&["ps", "--all", "--quiet"]).is_empty());
    drop(world);
}

/// A shell in mounts of its own, in which an ordinary user is known by name, has ids to give away, and may make a tunnel: what
/// an administrator does for one who runs an engine. What it executes is still to be said.
fn with_ids(world: &World) -> (PathBuf, Command) {
    let folder = world.make_dir("own");
    for name in ["home", "run"] {
        world.make_dir(&format!("own/{name}"));
    }
    let at = |name: &str| folder.join(name).display().to_string();
    let uid = ORDINARY_UID;
    for (file, line) in [
        ("passwd", format!("rootless:x:{uid}:{uid}::{}:/bin/sh\n", at("home"))),
        ("group", format!("rootless:x:{uid}:\n")),
        ("subuid", "rootless:1879048192:65536\n".into()),
        ("subgid", "rootless:1879048192:65536\n".into()),
    ] {
        let there =
            if file.starts_with("sub") { String::new() } else { fs::read_to_string(format!("/etc/{file}")).unwrap() };
        fs::write(at(file), there + &line).unwrap();
        assert!(Path::new("/etc").join(file).exists(), "/etc/{file}: install uidmap");
    }
    let prepare = "for file in passwd group subuid subgid; do mount --bind $0/$file /etc/$file; done
        mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
        exec \"$@\"";
    let mut daemon = Command::new("unshare");
    daemon.args(["--net", "--mount", "--propagation", "slave", "bash", "-ec", prepare]).arg(&folder);
    daemon.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", at("home"));
    daemon.env("XDG_RUNTIME_DIR", at("run"));
    (folder, daemon)
}

/// One whose image is busybox.
fn with_image(own: &Own) {
    let archive = own.folder.join("image.tar");
    finish(Command::new("tar").arg("-C").arg(root(&own.folder)).arg("-cf").arg(&archive).arg(".")).exits(0);
    own.docker(&["import", archive.to_str().unwrap(), BASE]);
}

/// A sandbox without a folder of the host, and a profile with one.
fn without_folders(own: &Own) -> String {
    format!(
        "{}[defaults.sandbox]\nbackend = \"docker\"\nimage = \"{BASE}\"\nworkspace_access = \"none\"\n\
         [profiles.shows]\nworkspace_access = \"rw\"\n[profiles.keeps]\nscope = \"agent\"\n",
        own.config()
    )
}

#[test]
fn an_engine_of_an_ordinary_user_bounds_a_command_as_its_profile_says_or_runs_none() {
    for package in ["rootlesskit", "slirp4netns", "newuidmap"] {
        assert!(Path::new("/usr/bin").join(package).exists(), "{package}: install rootlesskit slirp4netns uidmap");
    }
    let world = World::new(User::Ordinary);
    let (folder, mut daemon) = with_ids(&world);
    let uid = ORDINARY_UID;
    daemon.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
    // The script that the engine's package has for this.
    daemon.arg("/usr/share/docker.io/contrib/dockerd-rootless.sh");
    let own = Own::start(&folder, daemon);
    with_image(&own);
    let before = own.has();
    let world = world.config(&without_folders(&own)).start();
    let groups = own.docker(&["info", "--format", "{{.MemoryLimit}} {{.CPUCfsQuota}} {{.PidsLimit}}"]);
    let walls = world.run(&["sandbox", "probe"]).stdout;
    assert!(walls.contains("user namespace"), "{walls}");

    let ran = world.exec(&["echo", "there"]);
    if groups.trim() == "true true true" {
        assert_eq!(ran.exits(0), "there\n");
        world.run(&["exec", "--profile", "shows", "--", "true"]).fails(126, "other ids than this host's");
    } else {
        assert!(ran.stderr.contains("hint: a rootless engine needs control groups v2"), "{ran:?}");
        ran.fails(125, "no control groups that bound");
        assert_eq!(own.has(), before, "nothing was made");
    }
    drop(world);
}

#[test]
fn an_engine_that_maps_ids_shows_no_folder_of_this_host_and_runs_what_needs_none() {
    let world = World::new(User::Ordinary);
    let (folder, mut daemon) = with_ids(&world);
    daemon.args(["dockerd", "--userns-remap", "rootless"]);
    let own = Own::start(&folder, daemon);
    fs::set_permissions(folder.join("engine.sock"), fs::Permissions::from_mode(0o666)).unwrap();
    with_image(&own);
    let world = world.config(&without_folders(&own)).start();

    assert_eq!(world.sh("echo there > file; cat file").exits(0), "there\n");
    let map = world.sh("cat /proc/self/uid_map").exits(0);
    assert!(map.contains("1879048192"), "{map}");
    for profile in ["shows", "keeps"] {
        world.run(&["exec", "--profile", profile, "--", "true"]).fails(126, "other ids than this host's");
    }
    eventually("nothing is left", || own.docker(&["ps", "--all", "--quiet"]).is_empty());
    drop(world);
}
