//! One command, end to end: what it is given, what comes back, how it ends.

use crate::world::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn a_command_runs_and_its_streams_its_code_and_its_records_come_back() {
    for user in USERS {
        let world = World::running(user);

        let ran = world.run_with_input(&["exec", "--", "sh", "-c", "cat; echo to-stderr >&2; exit 3"], b"from-stdin");

        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "from-stdin", "to-stderr\n"));
        let permitted = world.events("exec.permitted");
        let finished = world.events("exec.finished");
        assert_eq!(permitted[0]["command"], json!(["sh", "-c", "cat; echo to-stderr >&2; exit 3"]));
        assert_eq!((&permitted[0]["verdict"], &permitted[0]["rule"]), (&json!("permit"), &json!("defaults.sandbox")));
        assert_eq!(finished[0]["exit"], 3);
        assert_eq!(finished[0]["run"], permitted[0]["run"]);
        assert!(finished[0]["enforcement"].as_str().unwrap().contains("seccomp=1 nnp=1 caps=none"));
    }
}

#[test]
fn arguments_reach_the_command_as_they_are_without_a_shell_in_between() {
    let world = World::running(User::Ordinary);
    let odd = ["$(id)", "`id`", ";", "a b", "*", "", "\"'\\", "ünï\u{202e}", "-n", "x\ny"];
    let ran = world.exec(&[&["printf", "[%s]"], &odd[..]].concat()).exits(0);
    assert_eq!(ran, odd.map(|a| format!("[{a}]")).concat());
}

#[test]
fn binary_output_and_a_megabyte_of_input_pass_unchanged() {
    let world = World::running(User::Ordinary);
    let mut bytes = Vec::new();
    for n in 0..1_000_000u32 {
        bytes.push((n.wrapping_mul(2_654_435_761) >> 24) as u8);
    }
    let ran = world.run_with_input(&["exec", "--", "sha256sum"], &bytes);
    let expected = finish(world.bare_command("sha256sum").stdin({
        let path = world.write("bytes", &bytes);
        fs::File::open(path).unwrap()
    }));
    assert_eq!(ran.exits(0), expected.stdout);
    world.write("state-workspaces/main/bytes", &bytes);
    let copied = world.command(&["exec", "--", "cat", "bytes"]).output().unwrap();
    assert!(copied.stdout == bytes);
}

#[test]
fn every_way_to_end_has_its_exit_code() {
    let world = World::running(User::Ordinary);
    world.exec(&["true"]).exits(0);
    world.exec(&["sh", "-c", "exit 42"]).exits(42);
    world.exec(&["sh", "-c", "kill -TERM $$"]).exits(128 + 15);
    world.run(&["exec", "--timeout", "200ms", "--", "sleep", "1000"]).fails(124, "ran out of time");
    world.exec(&["no-such-command"]).fails(127, "command not found");
    world.exec(&["/etc/os-release"]).fails(126, "cannot be executed");
    let finished = world.events("exec.finished");
    assert_eq!(finished[3]["ending"], "timed-out");
    assert_eq!(world.events("exec.failed").len(), 2);
}

#[test]
fn without_a_gateway_exec_says_so_with_125() {
    World::new(User::Ordinary).exec(&["true"]).fails(125, "cannot reach the gateway");
}

#[test]
fn a_variable_that_changes_which_code_runs_is_refused_and_recorded() {
    let world = World::running(User::Ordinary)
        .config("[agents.main]\nsandbox = { env = [\"MY_*\", \"LD_PRELOAD\", \"TAR_OPTIONS\", \"RSYNC_*\"] }\n");
    let mut world = world;
    world.stop(nix::sys::signal::Signal::SIGTERM);
    world.start_again();

    for name in [
        "LD_PRELOAD",
        "LD_AUDIT",
        "BASH_ENV",
        "NODE_OPTIONS",
        "PYTHONPATH",
        "GIT_SSH_COMMAND",
        "PATH",
        "TAR_OPTIONS",
        "RSYNC_RSH",
        "UNLISTED",
    ] {
        let ran = world.run(&["exec", "--env", &format!("{name}=/x"), "--", "true"]);
        ran.fails(126, name);
    }
    let ran = world.run(&["exec", "--env", "MY_FLAG=1", "--env", "LANG=C", "--", "sh", "-c", "echo $MY_FLAG $LANG"]);
    assert_eq!(ran.exits(0), "1 C\n");
    let denied = world.events("exec.denied");
    assert_eq!(denied.len(), 10);
    assert_eq!((&denied[0]["verdict"], &denied[0]["rule"]), (&json!("deny"), &json!("sandbox.env")));
}

#[test]
fn the_environment_is_made_from_nothing() {
    let world = World::running(User::Ordinary);
    let text =
        finish(world.command(&["exec", "--", "env"]).env("SECRET_OF_THE_CALLER", "x").env("LD_LIBRARY_PATH", "/x"))
            .exits(0);
    let mut names: Vec<&str> = text.lines().filter_map(|l| l.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER", "VAMBRACE"]);
}

#[test]
fn the_working_folder_is_inside_the_workspace_and_nowhere_else() {
    for user in USERS {
        let world = World::running(user);
        world.sh("mkdir -p deep/er; ln -s / out; ln -s deep in").exits(0);
        let pwd = |cwd: &str| world.run(&["exec", "--cwd", cwd, "--", "pwd", "-P"]);
        assert_eq!(pwd("deep/er").exits(0), "/workspace/deep/er\n");
        assert_eq!(pwd("/workspace/deep").exits(0), "/workspace/deep\n");
        assert_eq!(pwd("in").exits(0), "/workspace/deep\n");
        for outside in ["/", "/tmp", "..", "deep/../..", "/home/agent", "/workspaces"] {
            pwd(outside).fails(126, "not inside the workspace");
        }
        pwd("out").fails(126, "enter the working folder");
        pwd("missing").fails(126, "enter the working folder");
    }
}

#[test]
fn what_a_command_writes_belongs_to_the_owner_of_the_workspace() {
    for user in USERS {
        let world = World::running(user);
        world.sh("echo x > made; mkdir dir").exits(0);
        for name in ["made", "dir"] {
            let meta = fs::metadata(world.workspace().join(name)).unwrap();
            assert_eq!(
                (meta.uid(), meta.gid()),
                (world.uid(), if am_root() { world.uid() } else { meta.gid() }),
                "{name}"
            );
        }
        assert_eq!(world.exec(&["cat", "made"]).exits(0), "x\n");
    }
}

#[test]
fn a_workspace_of_another_owner_works_for_a_root_runner() {
    let world = World::new(User::Root).config("[agents.main]\nworkspace = \"@/theirs\"\n");
    let theirs = world.make_dir("theirs");
    std::os::unix::fs::chown(&theirs, Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
    fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let world = world.start();

    world.sh("echo x > made").exits(0);

    assert_eq!(fs::metadata(theirs.join("made")).unwrap().uid(), ORDINARY_UID);
}

#[test]
fn runs_at_once_have_uids_of_their_own_where_the_runner_is_roots() {
    for user in USERS {
        let world = World::running(user);
        let mut begun: Vec<_> = (0..3)
            .map(|_| {
                let mut ws = world.connect();
                let id = ws.ask("exec.run", json!({"command": ["sh", "-c", "id -u; cat"], "stdin": true}));
                let run = ws.event("exec.started")["runId"].clone();
                let uid = ws.event("exec.output")["data"].clone();
                (ws, id, run, uid)
            })
            .collect();
        let uids: std::collections::BTreeSet<_> = begun.iter().map(|(.., uid)| uid.to_string()).collect();
        assert_eq!(uids.len(), if user == User::Root { 3 } else { 1 }, "{user:?}: {uids:?}");
        for (ws, id, run, _) in &mut begun {
            ws.ask("exec.input", json!({"runId": run, "data": "", "eof": true}));
            assert_eq!(ws.response(id)["payload"]["exitCode"], 0);
        }
    }
}

#[test]
fn session_and_agent_stand_in_the_record_and_a_bad_name_is_refused() {
    let world = World::running(User::Ordinary);
    world.run(&["exec", "--agent", "builder", "--session", "s-1", "--", "true"]).exits(0);
    let permitted = world.events("exec.permitted");
    assert_eq!((&permitted[0]["agent"], &permitted[0]["session"]), (&json!("builder"), &json!("s-1")));
    assert!(world.dir.join("state-workspaces/builder").is_dir());
    for bad in ["../x", "a/b", "", "A", "-x=", "a\nb"] {
        let ran = world.run(&["exec", &format!("--agent={bad}"), "--", "true"]);
        assert_eq!(ran.code, 126, "{bad:?}: {ran:?}");
    }
}

#[test]
fn a_named_profile_changes_the_walls_and_an_unknown_one_is_refused() {
    let world = World::new(User::Ordinary).config("[profiles.blind]\nworkspace_access = \"none\"\n").start();
    world.sh("echo x > kept").exits(0);
    let ran = world.run(&["exec", "--profile", "blind", "--", "sh", "-c", "ls; echo y > scratch && cat scratch"]);
    assert_eq!(ran.exits(0), "y\n");
    assert!(!world.workspace().join("scratch").exists());
    world.run(&["exec", "--profile", "none-such", "--", "true"]).fails(126, "there is no profile");
    assert_eq!(world.events("exec.permitted")[1]["rule"], "profiles.blind");
}

#[test]
fn json_tells_everything_in_one_object() {
    let world = World::running(User::Ordinary);
    let ran = world.json(&["exec", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((&ran["stdout"], &ran["stderr"], &ran["exitCode"]), (&json!("out\n"), &json!("err\n"), &json!(7)));
    assert_eq!(ran["ending"], "exited");
    let walls = &ran["enforcement"];
    assert_eq!((&walls["noNewPrivs"], &walls["noCapabilities"]), (&json!(true), &json!(true)));
    assert!(walls["landlockAbi"].as_u64().unwrap() >= 1);
    let namespaces = walls["namespaces"].as_array().unwrap();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert!(namespaces.contains(&json!(kind)), "{kind}");
    }
    assert_eq!(namespaces.contains(&json!("user")), walls["tier"] == "user-namespace");
}

#[test]
fn a_run_is_cancelled_by_its_word_and_by_its_client_going_away() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sleep", mark(86401)]}));
    let run = ws.event("exec.started")["runId"].clone();
    eventually("the command runs", || !processes_with(mark(86401)).is_empty());
    assert_eq!(ws.call("exec.cancel", json!({"runId": run}))["ok"], true);
    let response = ws.response(&id);
    assert_eq!(response["payload"]["ending"], "cancelled", "{response}");

    ws.ask("exec.run", json!({"command": ["sleep", mark(86402)]}));
    ws.event("exec.started");
    eventually("the command runs", || !processes_with(mark(86402)).is_empty());
    drop(ws);
    eventually("the command is gone", || processes_with(mark(86402)).is_empty());
    eventually("both ends are recorded", || world.events("exec.finished").len() == 2);
    assert!(world.events("exec.finished").iter().all(|e| e["ending"] == "cancelled"));
}

#[test]
fn a_run_takes_input_and_cancel_from_its_own_connection_alone() {
    let world = World::running(User::Ordinary);
    let (mut one, mut two) = (world.connect(), world.connect());
    let id = one.ask("exec.run", json!({"command": ["cat"], "stdin": true}));
    let run = one.event("exec.started")["runId"].clone();

    let foreign = two.call("exec.cancel", json!({"runId": run}));
    assert_eq!(foreign["error"]["details"]["code"], "UNKNOWN_RUN", "{foreign}");
    // "hi" in base64.
    one.call("exec.input", json!({"runId": run, "data": "aGk=", "eof": true}));

    let output = one.event("exec.output");
    assert_eq!((&output["stream"], &output["data"]), (&json!("stdout"), &json!("aGk=")));
    assert_eq!(one.response(&id)["payload"]["exitCode"], 0);
}

#[test]
fn two_hundred_runs_at_once_each_get_their_own_output() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    let ids: Vec<(String, usize)> =
        (0..200).map(|n| (ws.ask("exec.run", json!({"command": ["echo", n.to_string()]})), n)).collect();
    let mut runs = std::collections::HashMap::new();
    let mut outputs = std::collections::HashMap::new();
    let mut answers = 0;
    while answers < ids.len() {
        let frame = ws.read();
        let payload = &frame["payload"];
        if frame["event"] == "exec.started" {
            runs.insert(payload["runId"].to_string(), payload["requestId"].as_str().unwrap().to_owned());
        } else if frame["event"] == "exec.output" {
            outputs.insert(runs[&payload["runId"].to_string()].clone(), payload["data"].as_str().unwrap().to_owned());
        } else if frame["type"] == "res" {
            assert_eq!(frame["ok"], true, "{frame}");
            answers += 1;
        }
    }
    for (id, n) in ids {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(&outputs[&id]).unwrap();
        assert_eq!(bytes, format!("{n}\n").into_bytes());
    }
}
