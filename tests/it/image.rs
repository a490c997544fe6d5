//! The image of the gateway, built from packaging/docker and run as docs/service.md says.

use crate::engine::import;
use crate::neighbours::tool;
use crate::world::{Ran, User, World, eventually, finish, program};
use std::fs;
use std::path::Path;

fn docker(words: &[&str]) -> Ran {
    finish(tool("docker", "docker.io").args(words))
}

/// Gone with the test.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.0]);
    }
}

#[test]
fn the_image_of_the_gateway_runs_commands_and_nothing_in_it_is_roots() {
    // A base with busybox and the libraries that the program was linked with.
    let base = import("gateway-base", &[], |root| {
        let libraries = finish(tool("ldd", "libc-bin").arg(program())).exits(0);
        let paths: Vec<&str> = libraries.split_whitespace().filter(|word| word.starts_with('/')).collect();
        assert!(paths.len() >= 2, "{libraries}");
        for path in paths {
            let target = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(path, target).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    });
    let world = World::new(User::Root);
    let context = world.make_dir("context");
    fs::create_dir_all(context.join("target/release")).unwrap();
    fs::copy(program(), context.join("target/release/vambrace")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/docker");
    fs::create_dir_all(context.join("packaging/docker")).unwrap();
    for file in ["Dockerfile", "vambrace.toml"] {
        fs::copy(shipped.join(file), context.join("packaging/docker").join(file)).unwrap();
    }
    let recipe = context.join("packaging/docker/Dockerfile");
    let (base, image) = (format!("BASE={base}"), base.replace("-base", ""));
    let built = ["build", "--force-rm", "--build-arg", &base, "--tag", &image, "--file"];
    docker(&[&built[..], &[recipe.to_str().unwrap(), context.to_str().unwrap()]].concat()).exits(0);

    let run = [
        "run",
        "--detach",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--read-only",
        "--tmpfs",
        "/tmp",
    ];
    let started = docker(&[&run[..], &[image.as_str()]].concat()).exits(0);
    let container = Container(started.trim().to_owned());
    let inside = |words: &[&str]| docker(&[&["exec", &container.0, "vambrace"], words].concat());
    eventually("the gateway in the container answers", || inside(&["health"]).code == 0);

    assert_eq!(inside(&["exec", "--", "id", "-u"]).exits(0), "10990\n");
    assert_eq!(inside(&["exec", "--", "sh", "-c", "echo kept > file && cat file"]).exits(0), "kept\n");
    let hidden = inside(&["exec", "--", "cat", "/etc/vambrace/vambrace.toml"]);
    assert!(hidden.code == 1 && hidden.stderr.contains("Permission denied"), "{hidden:?}");
    let told: serde_json::Value = serde_json::from_str(&inside(&["doctor", "--json"]).exits(0)).unwrap();
    assert_eq!(told["ok"], true, "{told}");
    let users = docker(&["exec", &container.0, "sh", "-c", "stat -c %u /proc/[0-9]*"]).exits(0);
    assert!(users.lines().count() >= 2 && users.lines().all(|uid| uid == "10990"), "{users}");

    docker(&["stop", "--time", "30", &container.0]).exits(0);
    assert_eq!(docker(&["wait", &container.0]).exits(0), "0\n", "a stop is no failure");
}
