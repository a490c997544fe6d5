//! What is shipped beside the program, as far as it can be checked without installing it.

use crate::neighbours::tool;
use crate::world::finish;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// The parser of AppArmor 3 reads all of the profile but the two lines that came with version 4.
#[test]
fn the_apparmor_profile_is_one_and_gives_user_namespaces_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/apparmor/vambrace");
    let text = fs::read_to_string(path).unwrap();
    let is_newer = |line: &&str| line.starts_with("abi <abi/4.0>") || line.trim() == "userns,";
    assert_eq!(text.lines().filter(is_newer).count(), 2);
    let older: String = text.lines().filter(|line| !is_newer(line)).map(|line| format!("{line}\n")).collect();
    let file = std::env::temp_dir().join(format!("vambrace-test-apparmor-{}", std::process::id()));
    fs::write(&file, older).unwrap();

    let mut parser = tool("apparmor_parser", "apparmor");
    let parsed = parser.args(["-Q", "-K"]).arg(&file).stderr(Stdio::piped()).output().unwrap();

    fs::remove_file(&file).unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
}

fn shipped(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// plutil and plistutil take what launchd does not: so a parser, and the keys that launchd.plist(5) knows, with their types.
#[test]
fn the_property_lists_of_launchd_are_such_and_keep_the_gateway_alive() {
    const CHECK: &str = r#"
import plistlib, sys
kinds = {"Label": str, "ProgramArguments": list, "UserName": str, "GroupName": str, "EnvironmentVariables": dict,
    "RunAtLoad": bool, "KeepAlive": dict, "ThrottleInterval": int, "ExitTimeOut": int, "Sockets": dict, "Umask": int,
    "ProcessType": str, "StandardErrorPath": str}
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        job = plistlib.load(file, fmt=plistlib.FMT_XML)
    assert path.endswith("/" + job["Label"] + ".plist"), "launchd wants a file named after its label"
    for key, value in job.items():
        assert type(value) is kinds[key], (path, key, value)
    assert job["ProgramArguments"][0].startswith("/") and job["ProgramArguments"][1:] == ["gateway"], job
    assert job["KeepAlive"] == {"SuccessfulExit": False} and job["RunAtLoad"], job
    assert job["Umask"] == 0o077, job
    for socket in job["Sockets"].values():
        assert set(socket) == {"SockNodeName", "SockServiceName", "SockFamily"}, socket
        assert socket["SockNodeName"] == "127.0.0.1" and socket["SockServiceName"] == "18789", socket
    assert ("daemon" if "UserName" in job else "agent") == ("agent" if "agent" in path else "daemon"), path
    assert job.get("UserName") != "root", "the gateway is never root"
"#;
    let files = [shipped("launchd/io.vambrace.gateway.plist"), shipped("launchd/io.vambrace.agent.plist")];
    let ran = finish(tool("python3", "python3").args(["-c", CHECK]).args(files));
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// As far as it can be told without OpenRC and Docker: a script that a shell reads, an image that is not root's.
#[test]
fn the_openrc_script_is_one_and_the_image_of_the_gateway_is_not_roots() {
    let ran = finish(tool("dash", "dash").arg("-n").arg(shipped("packaging/openrc/vambrace")));
    assert_eq!(ran.code, 0, "{ran:?}");
    let recipe = fs::read_to_string(shipped("packaging/docker/Dockerfile")).unwrap();
    let user = recipe.lines().rfind(|line| line.starts_with("USER ")).unwrap();
    assert_eq!(user, "USER 10990:10990");
    for line in recipe.lines().filter(|line| line.starts_with("COPY ")) {
        let source = line.split_whitespace().nth(1).unwrap();
        assert!(source == "target/release/vambrace" || shipped(source).exists(), "{line}");
    }
    let configured = fs::read_to_string(shipped("packaging/docker/vambrace.toml")).unwrap();
    let world = crate::world::World::new(crate::world::User::Ordinary).config(&configured);
    world.run(&["config", "check"]).exits(0);
}

#[test]
fn the_configuration_that_packages_bring_is_whole_also_without_its_comment_signs() {
    use crate::world::{User, World};
    let text = fs::read_to_string(shipped("packaging/vambrace.toml")).unwrap();
    World::new(User::Ordinary).config(&text).run(&["config", "check"]).exits(0);
    let is_setting = |line: &str| line.contains(" = ") || line.starts_with('[');
    let bare = |line: &str| {
        let inside = line.strip_prefix("# ").unwrap_or(line);
        if is_setting(inside) { format!("{inside}\n") } else { String::new() }
    };
    let all: String = text.lines().map(bare).collect();
    assert!(all.contains("[agents.builder]") && all.contains("port = 18789"), "{all}");
    World::new(User::Ordinary).config(&all).run(&["config", "check"]).exits(0);
}
