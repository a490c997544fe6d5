//! The command line as a person and a script meet it.

use crate::neighbours::tool;
use crate::world::*;
use serde_json::{Value, json};

#[test]
fn help_exists_for_every_command_and_pages_and_completions_are_made() {
    let world = World::new(User::Ordinary);
    for command in [
        "gateway",
        "runner",
        "exec",
        "sandbox",
        "status",
        "health",
        "token",
        "journal",
        "config",
        "service",
        "doctor",
        "completions",
        "man",
    ] {
        assert!(world.run(&[command, "--help"]).exits(0).contains("Usage:"), "{command}");
        assert!(world.run(&["man", command]).exits(0).contains(".TH"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.run(&["completions", shell]).exits(0).contains("vambrace"), "{shell}");
    }
    let pages = world.make_dir("man");
    world.run(&["man", "--dir", pages.to_str().unwrap()]).exits(0);
    for page in [
        "vambrace.toml.5",
        "vambrace.7",
        "vambrace-service-install.1",
        "vambrace.1",
        "vambrace-exec.1",
        "vambrace-sandbox-run.1",
        "vambrace-journal-verify.1",
    ] {
        assert!(pages.join(page).exists(), "{page}");
    }
    assert_eq!(world.run(&["no-such"]).code, 2);
    assert!(world.run(&["--version"]).exits(0).starts_with("vambrace "));
}

#[test]
fn a_mistake_in_the_configuration_is_shown_where_it_is() {
    let world = World::new(User::Ordinary).config("[gateway]\nprot = 1\n");
    let ran = world.run(&["config", "check"]);
    assert!(ran.stderr.contains("vambrace.toml:2:1: unknown field `prot`"), "{ran:?}");
    assert!(ran.stderr.contains("2 | prot = 1\n  | ^^^^"), "{ran:?}");
    ran.fails(1, "did you mean `port`?");
    for command in [&["gateway"][..], &["sandbox", "explain"], &["sandbox", "run", "--", "true"]] {
        assert_ne!(world.run(command).code, 0, "{command:?}");
    }
    World::new(User::Ordinary)
        .config("[defaults.sandbox]\nbackend = \"podman\"\n")
        .run(&["config", "check"])
        .fails(1, "unknown variant `podman`");
}

#[test]
fn a_named_file_that_is_missing_is_an_error_and_no_file_at_all_is_fine() {
    let world = World::new(User::Ordinary);
    world.run(&["--config", "/nonexistent.toml", "config", "check"]).fails(1, "there is no such file");
    assert!(world.run(&["config", "check"]).exits(0).contains("defaults are in force"));
    let shown = world.json(&["config", "show", "--json"]);
    assert_eq!(shown["address"], "127.0.0.1:18789");
    let schema = world.json(&["config", "schema"]);
    assert!(schema.pointer("/properties/gateway").is_some(), "{schema}");
    assert!(world.run(&["config", "path"]).exits(0).ends_with("/vambrace.toml\n"));
}

#[test]
fn explain_says_which_setting_gives_what() {
    let world = World::new(User::Ordinary).config(
        "[defaults.sandbox]\nlimits = { memory = \"1G\" }\n[agents.builder]\nworkspace = \"@/ws\"\nsandbox = { network = \"host\" }\n",
    );
    let rows = world.json(&["sandbox", "explain", "--agent", "builder", "--json"]);
    let from = |setting: &str| {
        let rows = rows["settings"].as_array().unwrap();
        let row = rows.iter().find(|r| r["setting"] == setting).unwrap();
        (row["value"].as_str().unwrap().to_owned(), row["from"].as_str().unwrap().to_owned())
    };
    assert_eq!(from("network"), ("host".into(), "agents.builder.sandbox".into()));
    assert_eq!(from("limits.memory"), ("1G".into(), "defaults.sandbox".into()));
    assert_eq!(from("limits.pids"), ("256".into(), "built in".into()));
    assert_eq!(from("workspace").1, "agents.builder.workspace");
    let seen: Vec<&Value> = rows["view"].as_array().unwrap().iter().map(|r| &r["path"]).collect();
    assert!(seen.contains(&&json!("/workspace")) && seen.contains(&&json!("/usr")));
    assert!(world.run(&["sandbox", "explain"]).exits(0).contains("everything else: not there"));
}

#[test]
fn probe_says_what_this_host_can_build() {
    for user in USERS {
        let world = World::new(user);
        let probe = world.json(&["sandbox", "probe", "--json"]);
        assert_eq!(probe["able"], true, "{probe}");
        let walls = probe["walls"].as_array().unwrap();
        for name in ["mount namespace", "pid namespace", "network namespace", "landlock", "seccomp", "memory limit"] {
            assert!(walls.iter().any(|w| w["wall"] == name && w["here"] == true), "{name}: {probe}");
        }
        assert_eq!(walls.iter().any(|w| w["wall"] == "user namespace"), user == User::Ordinary);
        assert!(world.run(&["sandbox", "probe"]).exits(0).contains("landlock"));
    }
    let world = World::new(User::Ordinary);
    let without = finish(
        world
            .bare_command("unshare")
            .args(["-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_net_namespaces; exec \"$0\" sandbox probe"])
            .arg(program()),
    );
    assert_eq!(without.code, 1, "{without:?}");
    assert!(without.stdout.contains("MISSING"), "{without:?}");
}

#[test]
fn status_and_health_speak_to_people_and_machines() {
    let world = World::running(User::Ordinary);
    assert_eq!(world.run(&["health"]).exits(0), "ok\n");
    let text = world.run(&["status"]).exits(0);
    assert!(text.contains("runner") && text.contains("ready, pid"), "{text}");
    assert_eq!(world.status()["addresses"][0], format!("127.0.0.1:{}", world.port()));
    World::new(User::Ordinary).run(&["status"]).fails(1, "cannot reach the gateway");
    let ran = world.run(&["--url", "ws://192.0.2.1:1", "status"]);
    ran.fails(1, "no address this command line connects to");
}

#[test]
fn the_command_line_finds_a_gateway_by_url_and_token_as_well() {
    let world = World::running(User::Ordinary);
    let url = format!("ws://127.0.0.1:{}", world.port());
    let ran = finish(
        world
            .command(&["exec", "--", "echo", "over tcp"])
            .env("VAMBRACE_GATEWAY_URL", &url)
            .env("VAMBRACE_TOKEN", world.token()),
    );
    assert_eq!(ran.exits(0), "over tcp\n");
    assert_eq!(world.events("exec.permitted")[0]["principal"], "token");
    finish(world.command(&["health"]).env("VAMBRACE_GATEWAY_URL", &url).env("VAMBRACE_TOKEN", "wrong"))
        .fails(1, "token mismatch");
}

#[test]
fn output_into_a_closed_pipe_ends_quietly() {
    let world = World::running(User::Ordinary);
    let line = format!("{} --state-dir {} exec -- yes | head -1", program().display(), world.state().display());
    let ran = finish(world.bare_command("sh").args(["-c", &line]));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("y\n", ""));
    eventually("the command is gone", || world.status()["runs"] == 0);
}

#[test]
fn a_named_operator_reaches_the_socket_of_a_service_and_a_stranger_is_asked_for_a_token() {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    let world = World::new(User::Ordinary).config("[gateway.auth]\noperators = [61236]\n");
    assert!(am_root(), "this test plays three users: run `make test` as root");
    let as_uid = |uid: u32, arguments: &[&str]| {
        let mut command = std::process::Command::new(program());
        command.env_clear().env("HOME", "/nonexistent").current_dir("/");
        command.env("STATE_DIRECTORY", world.state()).env("RUNTIME_DIRECTORY", world.dir.join("service"));
        command.uid(uid).gid(uid).args(arguments);
        command
    };
    world.make_dir("service");
    let config = world.dir.join("vambrace.toml").display().to_string();
    let mut command = as_uid(ORDINARY_UID, &["--config", &config, "gateway", "--port", "0"]);
    let mut gateway = Spawned(command.stderr(std::process::Stdio::piped()).spawn().unwrap());
    eventually("it answers", || finish(&mut as_uid(ORDINARY_UID, &["health"])).code == 0);

    let operator = finish(&mut as_uid(61_236, &["token", "show"]));
    let stranger = finish(&mut as_uid(61_237, &["token", "show"]));

    gateway.stop(nix::sys::signal::Signal::SIGTERM);
    let mut log = String::new();
    gateway.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(operator.exits(0).trim().len(), 43, "{log}");
    stranger.fails(1, "token missing");
}

/// In a mount namespace whose /run is empty, so that it is such a host wherever the test runs.
#[test]
fn a_host_without_systemd_is_told_so_and_what_to_do() {
    let world = World::new(User::Root);
    let service = |words: &[&str]| {
        let hidden = "mount -t tmpfs none /run && exec \"$@\"";
        let mut unshare = tool("unshare", "util-linux");
        unshare.args(["--mount", "sh", "-c", hidden, "sh"]).arg(program()).arg("service").args(words);
        finish(unshare.env("HOME", &world.dir))
    };
    for act in ["uninstall", "start", "stop", "restart", "status", "logs"] {
        service(&[act, "--user"]).fails(1, "this host is not run by systemd");
    }
    service(&["install", "--user"]).fails(1, "hint: `vambrace gateway` runs in the foreground");
    // What it would do can be seen everywhere.
    let shown = service(&["install", "--user", "--dry-run", "--json"]).exits(0);
    let path = serde_json::from_str::<Value>(&shown).unwrap()["steps"][0]["write"].clone();
    assert_eq!(path, json!(world.dir.join(".config/systemd/user/vambrace.service")));
    World::new(User::Ordinary).run(&["service", "install", "--dry-run"]).fails(1, "by root");
}

#[test]
fn doctor_names_what_a_configuration_requires_and_this_host_has_not() {
    let world = World::new(User::Ordinary).config("[docker]\nhost = \"unix:///nonexistent/engine.sock\"\n");
    let told = world.json(&["doctor", "--json"]);
    assert_eq!(told["ok"], true, "{told}");
    let row = |told: &Value, what: &str| {
        let rows = told["findings"].as_array().unwrap();
        rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no {what}: {told}")).clone()
    };
    assert_eq!((&row(&told, "engine")["state"], &row(&told, "landlock")["state"]), (&json!("weaker"), &json!("ok")));
    assert_eq!(row(&told, "gateway")["detail"], "none runs here");

    let wanting = World::new(User::Ordinary)
        .config("[docker]\nhost = \"unix:///nonexistent/engine.sock\"\n[defaults.sandbox]\nbackend = \"docker\"\n");
    let ran = wanting.run(&["doctor"]);
    assert!(ran.stdout.contains("MISSING") && ran.stdout.contains("repair: apt-get install docker.io"), "{ran:?}");
    ran.fails(1, "1 of what is required here is missing");
    let ran = wanting.run(&["doctor", "--json"]);
    assert_eq!(ran.code, 1);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["ok"], false);
}
