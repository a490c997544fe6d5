//! The other engine behind the same API: a Podman service of its own, with a storage of its own, for each test.

use crate::world::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A Podman that serves until the test ends.
struct Podman {
    world: World,
    service: Child,
}

impl Podman {
    fn start() -> Self {
        let world = World::new(User::Root);
        world.make_dir("podman");
        let root = world.make_dir("image");
        for folder in ["bin", "etc"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox is not installed: apt-get install busybox-static"), root.join("bin/busybox"))
            .unwrap();
        for applet in ["sh", "cat", "id", "sleep", "true", "tail", "hostname"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let archive = world.dir.join("image.tar");
        finish(Command::new("tar").arg("-C").arg(&root).args(["-c", "-f"]).arg(&archive).arg(".")).exits(0);
        finish(podman(&world).args(["import", "-q"]).arg(&archive).arg("vambrace-test-podman")).exits(0);
        let socket = format!("unix://{}", world.dir.join("podman/engine.sock").display());
        let mut serve = podman(&world);
        serve.args(["system", "service", "-t", "0", &socket]);
        let service = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let config = format!(
            "[docker]\nhost = \"{socket}\"\n[defaults.sandbox]\nbackend = \"docker\"\nscope = \"agent\"\n\
             image = \"localhost/vambrace-test-podman:latest\"\n[defaults.sandbox.limits]\nmemory = \"64M\"\n"
        );
        let socket = world.dir.join("podman/engine.sock");
        eventually("Podman serves", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        Podman { world: world.config(&config).start(), service }
    }

    fn containers(&self) -> Vec<String> {
        let listed = finish(podman(&self.world).args(["ps", "-a", "--format", "{{.Names}}"])).exits(0);
        listed.lines().map(ToOwned::to_owned).collect()
    }
}

/// With storage of this world's; runc, which takes every arrangement of control groups.
fn podman(world: &World) -> Command {
    let at = |part: &str| world.dir.join("podman").join(part).display().to_string();
    let mut command = Command::new("podman");
    command.args(["--root", &at("root"), "--runroot", &at("run"), "--tmpdir", &at("tmp")]);
    command.args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
    command
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.world.stop(nix::sys::signal::Signal::SIGTERM);
        let _ = podman(&self.world).args(["rm", "-a", "-f", "-t", "0"]).output();
        let _ = self.service.kill();
        let _ = self.service.wait();
        // What watched its containers would wait some minutes more for somebody who asks.
        let own = self.world.dir.display().to_string();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let is_watcher =
                line.starts_with(b"/usr/bin/conmon") && memchr::memmem::find(&line, own.as_bytes()).is_some();
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.filter(|_| is_watcher) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

#[test]
fn podman_carries_out_the_same_profiles_by_the_same_api() {
    let podman = Podman::start();
    let world = &podman.world;
    let said = world.sh("id -u; hostname; echo x > file; echo y > /tmp/mark; cat file; cat /proc/self/status").exits(0);
    assert!(!said.starts_with("0\n") && said.contains("\nsandbox\nx\n"), "{said}");
    for none in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(said.contains(none), "{none}: {said}");
    }
    assert_eq!(fs::read(world.workspace().join("file")).unwrap(), b"x\n");
    let record = world.events("exec.finished").pop().unwrap();
    let walls = record["enforcement"].as_str().unwrap();
    assert!(walls.starts_with("docker image=sha256:") && walls.contains("memory=cgroup"), "{walls}");

    // What no command may do, and each way to end.
    assert_ne!(world.sh("echo x > /etc/x || echo x > /var/tmp/x || echo x > /bin/x").code, 0);
    let interfaces = world.sh("cat /proc/net/dev").exits(0);
    assert!(interfaces.contains("lo:") && !interfaces.contains("eth"), "{interfaces}");
    world.exec(&["tail", "/dev/zero"]).fails(137, "memory");
    let mark = mark(86631);
    world
        .run(&["exec", "--timeout", "1s", "--", "sh", "-c", &format!("sleep {mark} & sleep {mark}")])
        .fails(124, "time");
    eventually("nothing of it is left", || processes_with(mark).is_empty());

    // One container, which is found again and is as planned; removed with what it kept.
    assert_eq!(world.sh("cat /tmp/mark").exits(0), "y\n");
    let standing = || world.json(&["sandbox", "list", "--json"])["sandboxes"][0]["container"].clone();
    assert_eq!(standing()["asPlanned"], true, "{}", standing());
    assert_eq!(podman.containers().len(), 1, "{:?}", podman.containers());
    world.run(&["sandbox", "recreate", "agent.main"]).exits(0);
    eventually("its container is gone", || podman.containers().is_empty());
}
