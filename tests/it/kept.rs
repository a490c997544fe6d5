//! What sandboxes keep between commands: shared by those of one scope and nobody else, removed when asked for or unused,
//! and data for us, whatever commands have made of it.

use crate::world::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A profile for each scope and access.
const PROFILES: &str = "
[profiles.session]
scope = \"session\"
[profiles.agent]
scope = \"agent\"
[profiles.shared]
scope = \"shared\"
[profiles.shared-none]
scope = \"shared\"
workspace_access = \"none\"
[profiles.shared-ro]
scope = \"shared\"
workspace_access = \"ro\"
[profiles.none]
workspace_access = \"none\"
[profiles.brief]
scope = \"shared\"
idle = \"1h\"
";

fn world(user: User) -> World {
    World::new(user).config(PROFILES).start()
}

fn sandboxes(world: &World) -> PathBuf {
    world.dir.join("state-sandboxes")
}

/// A shell line for this agent and session under a profile.
fn sh(world: &World, profile: &str, agent: &str, session: Option<&str>, line: &str) -> Ran {
    let mut arguments = vec!["exec", "--profile", profile, "--agent", agent];
    arguments.extend(session.iter().flat_map(|session| ["--session", session]));
    world.run(&[&arguments[..], &["--", "sh", "-c", line]].concat())
}

fn list(world: &World) -> Vec<Value> {
    world.json(&["sandbox", "list", "--json"])["sandboxes"].as_array().unwrap().clone()
}

fn names(world: &World) -> Vec<String> {
    list(world).iter().map(|kept| kept["name"].as_str().unwrap().to_owned()).collect()
}

/// Lets a kept sandbox look as if nobody had used it for so long.
fn age(world: &World, name: &str, seconds: u64) {
    let used = fs::File::options().write(true).open(sandboxes(world).join(name).join("used")).unwrap();
    used.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

#[test]
fn commands_of_one_scope_share_home_and_tmp_and_no_others_do() {
    for user in USERS {
        let world = world(user);
        let leave = "echo $0 > ~/left; echo $0 > /tmp/left; echo x > /dev/shm/left";
        let look = "cat ~/left /tmp/left 2>/dev/null; ls -A /dev/shm; true";
        let check = |profile: &str, rows: &[(&str, Option<&str>, bool)]| {
            sh(&world, profile, "a", Some("one"), &leave.replace("$0", profile)).exits(0);
            for (agent, session, shares) in rows {
                let seen = sh(&world, profile, agent, *session, look).exits(0);
                let expected = if *shares { format!("{profile}\n{profile}\n") } else { String::new() };
                assert_eq!(seen, expected, "{user:?} {profile} {agent} {session:?}");
            }
        };
        check(
            "session",
            &[("a", Some("one"), true), ("a", Some("two"), false), ("b", Some("one"), false), ("a", None, false)],
        );
        check(
            "agent",
            &[("a", Some("one"), true), ("a", Some("two"), true), ("a", None, true), ("b", Some("one"), false)],
        );
        check("shared", &[("a", None, true), ("b", Some("two"), true), ("c", None, true)]);
        // Each scope has a tree of its own.
        assert_eq!(
            names(&world),
            ["agent.a", "agent.b", "session.a.one", "session.a.two", "session.b.one", "shared"],
            "{user:?}"
        );
        // Without a session nothing is kept, not even within one sandbox.
        sh(&world, "session", "a", None, "echo x > ~/left").exits(0);
        assert_eq!(sh(&world, "session", "a", None, "ls -A ~ /tmp").exits(0).matches("left").count(), 0);
    }
}

#[test]
fn what_is_kept_outlives_the_gateway_however_it_ends() {
    for user in USERS {
        let mut world = world(user);
        sh(&world, "session", "main", Some("s"), "echo one > ~/file").exits(0);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            world.stop(signal);
            world.start_again();
            let seen = sh(&world, "session", "main", Some("s"), "cat ~/file; echo more >> ~/file").exits(0);
            assert!(seen.starts_with("one\n"), "{user:?} {signal}: {seen}");
        }
        assert_eq!(sh(&world, "session", "main", Some("s"), "cat ~/file").exits(0), "one\nmore\nmore\n");
    }
}

#[test]
fn a_workspace_is_shown_as_asked_and_without_one_a_kept_one_stands_there() {
    for user in USERS {
        let world = world(user);
        // The agent's own folder.
        sh(&world, "shared", "a", None, "echo theirs > /workspace/file").exits(0);
        let on_host = world.dir.join("state-workspaces/a/file");
        assert_eq!(fs::read_to_string(&on_host).unwrap(), "theirs\n");
        // Read-only.
        let read = sh(&world, "shared-ro", "a", None, "cat /workspace/file; echo x > /workspace/file || echo refused");
        assert_eq!(read.exits(0), "theirs\nrefused\n");
        // None: another folder, which is kept and shared as the scope says, and where code may be built.
        let line = "test ! -e /workspace/file && echo own > /workspace/own && cp /usr/bin/true code && ./code";
        sh(&world, "shared-none", "a", None, line).exits(0);
        assert_eq!(sh(&world, "shared-none", "b", None, "cat /workspace/own").exits(0), "own\n");
        assert!(!world.dir.join("state-workspaces/a/own").exists());
        assert_eq!(fs::read_to_string(sandboxes(&world).join("shared/workspace/own")).unwrap(), "own\n");
        // None and nothing kept: an empty one, each time.
        let line = "echo x > /workspace/file && ls -A /workspace";
        for _ in 0..2 {
            assert_eq!(sh(&world, "none", "a", None, line).exits(0), "file\n");
        }
        assert_eq!(fs::read_to_string(&on_host).unwrap(), "theirs\n");
    }
}

#[test]
fn nothing_in_a_kept_home_or_tmp_can_be_executed() {
    for user in USERS {
        let world = world(user);
        sh(
            &world,
            "agent",
            "main",
            None,
            "cp /usr/bin/env ~/code; cp /usr/bin/env /tmp/code; chmod 755 ~/code /tmp/code",
        )
        .exits(0);
        for line in ["~/code true", "/tmp/code true", "cp ~/code ~/more && ~/more true"] {
            assert_eq!(sh(&world, "agent", "main", None, line).code, 126, "{user:?} {line}");
        }
        // Nor mapped, nor what the host puts there.
        let map = "python3 -c 'import mmap,os; mmap.mmap(os.open(\"/tmp/code\", 0), 4096, mmap.MAP_PRIVATE, 5)'";
        let mapped = sh(&world, "agent", "main", None, map);
        assert!(mapped.code == 1 && mapped.stderr.contains("PermissionError"), "{mapped:?}");
        sh(&world, "agent", "main", None, "cp /tmp/code /workspace/code && /workspace/code true").exits(0);
    }
}

#[test]
fn what_is_kept_belongs_to_the_gateways_user_alone() {
    for user in USERS {
        let world = world(user);
        sh(&world, "agent", "main", None, "echo mine > ~/file; mkdir -m 777 ~/open; ln -s x ~/link; id -u > /tmp/uid")
            .exits(0);
        let kept = sandboxes(&world).join("agent.main");
        for folder in [sandboxes(&world), kept.clone(), kept.join("home"), kept.join("tmp"), kept.join("workspace")] {
            let meta = fs::symlink_metadata(&folder).unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o7777), (world.uid(), 0o700), "{user:?} {}", folder.display());
        }
        for file in ["home/file", "home/open", "home/link", "tmp/uid", "used"] {
            assert_eq!(fs::symlink_metadata(kept.join(file)).unwrap().uid(), world.uid(), "{user:?} {file}");
        }
        // As its owner sees it, and as nobody else does.
        let read = finish(world.bare_command("cat").arg(kept.join("home/file")));
        assert_eq!(read.exits(0), "mine\n");
        if am_root() {
            use std::os::unix::process::CommandExt;
            let stranger = finish(std::process::Command::new("ls").arg(kept.join("home/open")).uid(61_299).gid(61_299));
            assert_ne!(stranger.code, 0);
        }
        // A root launcher gives each command another uid: the next one owns it as well.
        assert_eq!(
            sh(&world, "agent", "main", None, "test -O ~/file && echo more >> ~/file && stat -c %u ~/file").code,
            0
        );
        let uid = fs::read_to_string(kept.join("tmp/uid")).unwrap().trim().parse::<u32>().unwrap();
        assert_eq!(uid == world.uid(), user == User::Ordinary);
    }
}

#[test]
fn kept_sandboxes_are_listed_and_recreated_by_name() {
    for user in USERS {
        let world = world(user);
        assert_eq!(world.run(&["sandbox", "list"]).exits(0).trim(), "no sandbox keeps anything");
        assert_eq!(list(&world), Vec::<Value>::new());
        sh(&world, "session", "builder", Some("s-1"), "echo x > ~/file").exits(0);
        sh(&world, "brief", "main", None, "echo y > ~/file").exits(0);

        let all = list(&world);
        assert_eq!(
            (&all[0]["name"], &all[0]["scope"], &all[0]["agent"], &all[0]["session"], &all[0]["running"]),
            (&json!("session.builder.s-1"), &json!("session"), &json!("builder"), &json!("s-1"), &json!(0))
        );
        assert_eq!(
            (&all[1]["name"], &all[1]["agent"], &all[1]["session"]),
            (&json!("shared"), &json!(null), &json!(null))
        );
        assert_eq!(all[1]["prunedAfterMs"], 3_600_000);
        assert!(all.iter().all(|kept| kept["idleMs"].as_u64().unwrap() < 3_600_000), "{all:?}");
        let table = world.run(&["sandbox", "list"]).exits(0);
        assert!(
            table.starts_with("SANDBOX") && table.contains("session.builder.s-1") && table.contains("1h"),
            "{table}"
        );

        assert_eq!(world.run(&["sandbox", "recreate", "shared"]).exits(0), "removed shared\n");
        assert_eq!(sh(&world, "shared", "main", None, "ls -A ~").exits(0), "");
        assert_eq!(sh(&world, "session", "builder", Some("s-1"), "cat ~/file").exits(0), "x\n");
        let removed = world.json(&["sandbox", "recreate", "shared", "--json"]);
        assert_eq!(removed, json!({"removed": ["shared"]}));

        let recorded = world.events("sandbox.removed");
        assert_eq!(recorded.len(), 2);
        assert_eq!(recorded[0]["target"], "shared", "{}", recorded[0]);
        // Nothing is left of what was removed.
        let left: Vec<_> = fs::read_dir(sandboxes(&world)).unwrap().map(|item| item.unwrap().file_name()).collect();
        assert_eq!(left, ["session.builder.s-1"]);
    }
}

#[test]
fn a_name_that_is_no_kept_sandbox_is_refused_with_a_hint_and_touches_nothing() {
    for user in USERS {
        let world = world(user);
        sh(&world, "shared", "main", None, "echo x > ~/file").exits(0);
        world.make_dir("state-sandboxes/foreign");
        world.make_dir("state-sandboxes/.going");
        let long = format!("agent.{}", "a".repeat(5000));
        for name in [
            "shared2",
            "foreign",
            ".going",
            "agent.main",
            "agent.",
            "agent.a.b",
            "session.a",
            "session.a.",
            "",
            ".",
            "..",
            "../state",
            "shared/home",
            "shared/../shared",
            "/etc",
            "agent.../x",
            "agent.A\nb",
            "SHARED",
            "*",
            &long,
        ] {
            world.run(&["sandbox", "recreate", name]).fails(1, "no sandbox of this name");
        }
        for bad in ["", "1", "-1s", "9999999999999999999d", "soon"] {
            world.run(&["sandbox", "prune", &format!("--idle={bad}")]).fails(2, "no duration");
        }
        assert_eq!(sh(&world, "shared", "main", None, "cat ~/file").exits(0), "x\n");
        assert!(world.state().join("state.sqlite").exists() && sandboxes(&world).join("foreign").exists());
        let mut ws = world.connect();
        for params in [json!({}), json!({"name": 1}), json!({"name": "shared", "force": true}), json!({"idleMs": -1})] {
            for method in ["sandbox.recreate", "sandbox.prune"] {
                if (method, &params) != ("sandbox.prune", &json!({})) {
                    assert_eq!(
                        ws.call(method, params.clone())["error"]["code"],
                        "INVALID_REQUEST",
                        "{method} {params}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_sandbox_in_which_a_command_runs_is_not_removed() {
    for user in USERS {
        let world = world(user);
        sh(&world, "agent", "other", None, "true").exits(0);
        let mut ws = world.connect();
        let ask = json!({"command": ["sh", "-c", "echo x > ~/file; echo ready; cat; cat ~/file"],
            "profile": "shared", "stdin": true});
        let id = ws.ask("exec.run", ask);
        let run = ws.event("exec.started")["runId"].clone();
        ws.event("exec.output");

        assert_eq!(list(&world)[1]["running"], 1);
        world.run(&["sandbox", "recreate", "shared"]).fails(1, "a command runs in this sandbox");
        assert_eq!(world.run(&["sandbox", "prune", "--all"]).exits(0), "removed agent.other\n");
        assert_eq!(world.run(&["sandbox", "prune", "--all"]).exits(0), "nothing to remove\n");

        ws.call("exec.input", json!({"runId": run, "data": "", "eof": true}));
        let output = ws.event("exec.output");
        assert_eq!(output["data"], "eAo=", "what it wrote is still there");
        assert_eq!(ws.response(&id)["payload"]["exitCode"], 0);
        world.run(&["sandbox", "recreate", "shared"]).exits(0);
        // A refusal is recorded as what it is.
        let refused = world.events("change.refused");
        assert!(refused.iter().any(|e| e["target"] == "shared"), "{refused:?}");
    }
}

#[test]
fn what_lies_unused_is_pruned_by_time_and_nothing_else_is() {
    for user in USERS {
        let mut world = world(user);
        for (profile, agent) in [("brief", "main"), ("agent", "a"), ("agent", "b")] {
            sh(&world, profile, agent, None, "echo x > ~/file").exits(0);
        }
        age(&world, "agent.b", 2 * 86_400);
        // By a time of one's own.
        assert_eq!(world.run(&["sandbox", "prune", "--idle", "3d"]).exits(0), "nothing to remove\n");
        assert_eq!(world.json(&["sandbox", "prune", "--idle", "1d", "--json"]), json!({"removed": ["agent.b"]}));
        // By the profiles' own: an hour for one, days for the other.
        age(&world, "agent.a", 7200);
        age(&world, "shared", 7200);
        assert_eq!(world.run(&["sandbox", "prune"]).exits(0), "removed shared\n");
        assert_eq!(names(&world), ["agent.a"]);

        // By itself, at the gateway's start; a command counts as use.
        sh(&world, "brief", "main", None, "true").exits(0);
        age(&world, "shared", 7200);
        world.stop(Signal::SIGTERM);
        // What was being removed when a gateway was killed goes as well.
        let half = world.make_dir("state-sandboxes/.going-0123456789abcdef/home");
        world.give(half.parent().unwrap());
        world.start_again();
        eventually("it is pruned", || names(&world) == ["agent.a"]);
        eventually("so is what was half removed", || !half.exists());
        eventually("it is recorded", || {
            let removed = world.events("sandbox.removed");
            removed.iter().any(|e| e["target"] == "shared" && e["peer"].is_null())
        });
        assert!(world.run(&["journal", "verify"]).exits(0).contains("the chain holds"));
    }
}

#[test]
fn a_reader_sees_what_is_kept_and_only_an_admin_removes_it() {
    for user in USERS {
        let world = world(user);
        sh(&world, "shared", "main", None, "echo x > ~/file").exits(0);
        for (scopes, may_list) in [(json!(["operator.read"]), true), (json!(["operator.pairing"]), false)] {
            let mut ws = world.socket();
            let hello = ws.hello(&world.token(), json!({"scopes": scopes}));
            assert_eq!(hello["payload"]["auth"]["scopes"], scopes);
            assert_eq!(ws.call("sandbox.list", json!({}))["ok"], may_list, "{scopes}");
            for (method, params) in
                [("sandbox.recreate", json!({"name": "shared"})), ("sandbox.prune", json!({"idleMs": 0}))]
            {
                let refused = ws.call(method, params);
                assert_eq!(refused["error"]["details"]["code"], "MISSING_SCOPE", "{scopes} {method} {refused}");
            }
        }
        let mut ws = world.socket();
        ws.hello(&world.token(), json!({"scopes": ["operator.write"]}));
        assert_eq!(ws.call("sandbox.prune", json!({}))["error"]["details"]["code"], "MISSING_SCOPE");
        assert_eq!(names(&world), ["shared"]);
        assert!(world.events("sandbox.removed").is_empty());
    }
}

/// Makes, inside, everything that a tree should not hold.
const HOSTILE: &str = r#"
import os, socket
for top in ("/home/agent", "/tmp", "/workspace"):
    os.chdir(top)
    for n, target in enumerate(("/etc", "/root", "/", "../../../../etc", "..", ".", "loop", "/proc/self/root", "gone")):
        os.symlink(target, b"link-%d" % n if target != "loop" else b"loop")
    os.mkfifo("fifo")
    s = socket.socket(socket.AF_UNIX); s.bind("socket")
    for name in (b"\n", b"\x1b[2J\x1b]0;x\x07", b"\xff\xfe", b"-rf", b" ", b"a" * 255, b".going-0", b"used", b"home", b"*"):
        os.mkdir(name)
        open(os.path.join(name, b"\xff\n"), "w").close()
    open("going-1", "w").close()
    os.makedirs("going-2/going-1/going-3")
    os.symlink("/etc", "going-4")
    os.mkdir("closed"); open("closed/file", "w").close(); os.mkdir("closed/in"); os.chmod("closed/in", 0); os.chmod("closed", 0)
    open("locked", "w").close(); os.chmod("locked", 0)
    open("holes", "w").truncate(1 << 30)
    os.link("locked", "hard")
os.mkdir("/tmp/many"); os.chdir("/tmp/many")
for n in range(100000):
    os.close(os.open("f%d" % n, os.O_CREAT | os.O_WRONLY))
os.chdir("/home/agent")
for n in range(5000):
    os.mkdir("d"); os.chdir("d")
os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY))
print("made")
"#;

#[test]
fn whatever_a_tree_holds_is_removed_and_nothing_outside_is_touched() {
    for user in USERS {
        let world = world(user);
        let outside = world.make_dir("outside");
        let precious = world.write("outside/file", b"precious");
        let make = |entries: &str| {
            let hostile = HOSTILE.replace("100000", entries);
            let arguments = ["exec", "--profile", "shared-none", "--", "python3", "-"];
            let ran = world.run_with_input(&arguments, hostile.as_bytes());
            assert_eq!(ran.exits(0), "made\n", "{user:?}");
        };

        make(if user == User::Root { "100000" } else { "1000" });
        let home = sandboxes(&world).join("shared/home");
        // What only the host can put there: a second name of a file outside, a link with an absolute path to a folder.
        fs::hard_link(&precious, home.join("hard-outside")).unwrap();
        symlink(&outside, home.join("link-outside")).unwrap();
        let passwd = fs::read("/etc/passwd").unwrap();

        assert_eq!(names(&world), ["shared"]);
        world.run(&["sandbox", "list"]).exits(0);
        assert_eq!(world.run(&["sandbox", "recreate", "shared"]).exits(0), "removed shared\n");

        assert_eq!(fs::read_dir(sandboxes(&world)).unwrap().count(), 0);
        let meta = fs::metadata(&precious).unwrap();
        assert_eq!((fs::read(&precious).unwrap(), meta.nlink()), (b"precious".to_vec(), 1));
        assert_eq!((fs::read("/etc/passwd").unwrap(), fs::read_dir(&outside).unwrap().count()), (passwd, 1));
        assert_eq!(sh(&world, "shared-none", "main", None, "ls -A ~ /tmp /workspace | wc -l").exits(0), "5\n");

        // The same way by time.
        make("1000");
        assert_eq!(world.run(&["sandbox", "prune", "--all"]).exits(0), "removed shared\n");
        assert_eq!(fs::read_dir(sandboxes(&world)).unwrap().count(), 0);
        assert_eq!(world.exec(&["echo", "alive"]).exits(0), "alive\n");
    }
}

#[test]
fn a_command_runs_in_a_hostile_workspace_and_leads_nobody_out() {
    for user in USERS {
        let world = world(user);
        // What is not kept has room for fewer.
        let hostile = HOSTILE.replace("100000", "1000");
        let ran = world.run_with_input(&["exec", "--", "python3", "-"], hostile.as_bytes());
        assert_eq!(ran.exits(0), "made\n");
        // The working folder is looked at inside the walls; nothing of it hangs or ends outside.
        for cwd in ["link-0", "link-2", "link-3", "link-7", "loop", "fifo", "socket", "closed", "going-4", "gone"] {
            let ran = world.run(&["exec", "--cwd", cwd, "--", "true"]);
            assert_eq!(ran.code, 126, "{user:?} {cwd}: {ran:?}");
        }
        world.run(&["exec", "--cwd", "going-2/going-1", "--", "true"]).exits(0);
        assert_eq!(world.exec(&["cat", "link-0/shadow"]).code, 1);
    }
}

#[test]
fn a_note_of_ours_that_was_replaced_is_neither_followed_nor_waited_for() {
    for user in USERS {
        let world = world(user);
        let secret = world.write("secret", b"9999999999\n");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let replace: [&dyn Fn(&Path); 5] = [
            &|path| symlink(&secret, path).unwrap(),
            &|path| make_fifo(path),
            &|path| symlink("/dev/zero", path).unwrap(),
            &|path| fs::write(path, vec![b'9'; 1 << 20]).unwrap(),
            &|path| fs::write(path, "18446744073709551615").unwrap(),
        ];
        for (number, put) in replace.iter().enumerate() {
            sh(&world, "shared", "main", None, "echo x > ~/file").exits(0);
            let used = sandboxes(&world).join("shared/used");
            fs::remove_file(&used).unwrap();
            put(&used);
            // It is old at once, rather than kept for ever, except where the note is a sound one.
            let kept = &list(&world)[0];
            assert!(number == 4 || kept["prunedAfterMs"] == 0, "{number}: {kept}");
            // The next command notes its use in the place of it.
            sh(&world, "shared", "main", None, "cat ~/file").exits(0);
            let meta = fs::symlink_metadata(&used).unwrap();
            assert!(meta.is_file() && meta.uid() == world.uid() && meta.len() < 64, "{number}: {meta:?}");
            assert_eq!(fs::read(&secret).unwrap(), b"9999999999\n");
            fs::remove_file(&used).unwrap();
            put(&used);
            world.run(&["sandbox", "recreate", "shared"]).exits(0);
            assert_eq!(fs::read(&secret).unwrap(), b"9999999999\n");
        }
        assert_eq!(fs::read_dir(sandboxes(&world)).unwrap().count(), 0);
    }
}

#[test]
fn a_kept_folder_that_was_replaced_by_a_link_is_refused_and_its_target_left_alone() {
    for user in USERS {
        for part in ["", "/home", "/tmp", "/workspace"] {
            let world = world(user);
            sh(&world, "shared-none", "main", None, "echo x > ~/file").exits(0);
            let (place, target) = (sandboxes(&world).join(format!("shared{part}")), world.make_dir("target"));
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&place, world.dir.join("aside")).unwrap();
            symlink(&target, sandboxes(&world).join(format!("shared{part}"))).unwrap();

            let ran = sh(&world, "shared-none", "main", None, "echo x > ~/stolen; echo x > /tmp/stolen");
            assert_eq!(ran.code, 126, "{user:?} {part:?}: {ran:?}");
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{user:?} {part:?}");
            assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o755, "{user:?} {part:?}");
            // Listing and removing take the link for what it is.
            list(&world);
            world.run(&["sandbox", "recreate", "shared"]).exits(0);
            assert!(target.is_dir() && fs::symlink_metadata(sandboxes(&world).join("shared")).is_err());
            sh(&world, "shared-none", "main", None, "echo x > ~/file").exits(0);
        }
    }
}

#[test]
fn a_folder_of_kept_sandboxes_that_is_a_link_or_foreign_is_refused() {
    for user in USERS {
        let mut world = World::new(user).config(PROFILES);
        let target = world.make_dir("target");
        let foreign = target.join("agent.main");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("file"), "theirs").unwrap();
        world.give(&foreign);
        world.start_again();
        // After the start, when the configuration has resolved its places.
        symlink(&target, sandboxes(&world)).unwrap();
        let ran = sh(&world, "agent", "main", None, "echo x > ~/stolen");
        assert_eq!(ran.code, 126, "{ran:?}");
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
        for arguments in [&["recreate", "agent.main"][..], &["prune", "--all"], &["list"]] {
            world.run(&[&["sandbox"], arguments].concat()).fails(1, "cannot be read or removed");
        }
        assert_eq!(fs::read(foreign.join("file")).unwrap(), b"theirs");
        // A command that keeps nothing is not concerned.
        world.exec(&["true"]).exits(0);
    }
}

#[test]
fn something_that_is_no_folder_of_ours_among_them_hinders_nobody() {
    for user in USERS {
        let world = world(user);
        sh(&world, "shared", "main", None, "true").exits(0);
        let root = sandboxes(&world);
        let outside = world.make_dir("outside");
        world.write("outside/file", b"precious");
        symlink(&outside, root.join(".going-1")).unwrap();
        symlink(&outside, root.join("agent.linked")).unwrap();
        make_fifo(&root.join(".going-2"));
        make_fifo(&root.join("agent.fifo"));
        fs::write(root.join("agent.file"), "x").unwrap();
        fs::create_dir(root.join("agent.empty")).unwrap();
        world.give(&root.join("agent.empty"));
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"agent.\xff")), "x").unwrap();

        assert_eq!(names(&world), ["agent.empty", "agent.fifo", "agent.file", "agent.linked", "shared"], "{user:?}");
        let removed = world.json(&["sandbox", "prune", "--all", "--json"])["removed"].as_array().unwrap().len();
        assert_eq!((removed, names(&world).len()), (5, 0));
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
        // Only what is not ours by name is left.
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    }
}

#[test]
fn places_of_the_system_and_of_others_are_never_shown_whatever_the_profile_says() {
    for user in USERS {
        let world = World::new(user);
        world.make_dir("fine");
        world.make_dir("home/project");
        world.make_dir("state-sandboxes/agent.other/home");
        let at = |path: &str| world.dir.join(path).display().to_string();
        let refused = [
            "/proc",
            "/proc/1",
            "/proc/self",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/null",
            "/dev/shm",
            "/run",
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/user/0",
            "/boot",
            "/etc",
            "/etc/passwd",
            "/etc/ssl/private",
            "/var/log",
            "/var/lib/docker",
            "/var/lib/containerd",
            "/var/lib/containers",
            "/var/lib/kubelet",
            "/var/lib/lxc",
            "/var/lib/lxd",
            "/var/lib/incus",
            "/var/lib/machines",
            "/var/lib/systemd",
            "/var/lib/libvirt",
            "/var/lib/dpkg",
            "/var/spool",
            "/var/spool/cron",
            "/var/spool/cron/crontabs",
            "/var/backups",
            "/",
            "/usr",
            "/usr/bin",
            "/usr/local/bin",
            "/home",
            "/root",
            "/root/.ssh",
            "/var",
            "/var/lib",
            "/opt",
            "/srv",
            "/tmp",
            "/var/tmp",
            "/home/somebody/.ssh",
            "/home/somebody/.aws/credentials",
        ]
        .map(str::to_owned);
        let ours = [
            "",
            "state",
            "state/state.sqlite",
            "state/run",
            "vambrace.toml",
            "home",
            "home/.ssh",
            "state-sandboxes",
            "state-sandboxes/agent.other",
            "state-sandboxes/agent.other/home",
        ]
        .map(at);
        for path in refused.iter().chain(&ours) {
            for option in ["--ro", "--rw"] {
                let ran = world.run(&["sandbox", "run", option, path, "--", "ls", path]);
                assert_eq!(ran.code, 126, "{user:?} {option} {path}: {ran:?}");
            }
        }
        // Their neighbours are.
        for path in [at("fine"), at("home/project")] {
            world.run(&["sandbox", "run", "--rw", &path, "--", "touch", &format!("{path}/made")]).exits(0);
        }
    }
}

#[test]
fn a_folder_that_is_swapped_while_commands_start_leads_nobody_out() {
    for user in USERS {
        let world = World::new(user)
            .config("[agents.main]\nworkspace = \"@/at/in/ws\"\nsandbox = { rw = [\"@/bound/in/rw\"] }\n");
        for folder in ["at", "at/in", "at/in/ws", "bound", "bound/in", "bound/in/rw"] {
            world.make_dir(folder);
        }
        // What a swapped component leads to: the same names, with something to steal and to spoil.
        for (folder, file) in [("evil/ws", "evil/ws/file"), ("evil/rw", "evil/rw/file")] {
            world.make_dir("evil");
            world.make_dir(folder);
            world.write(file, b"precious");
        }
        let world = world.start();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let ends = std::thread::scope(|scope| {
            for top in ["at", "bound"] {
                let (stop, top, evil) = (&stop, world.dir.join(top), world.dir.join("evil"));
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        fs::rename(top.join("in"), top.join("out")).unwrap();
                        symlink(&evil, top.join("in")).unwrap();
                        std::thread::yield_now();
                        fs::remove_file(top.join("in")).unwrap();
                        fs::rename(top.join("out"), top.join("in")).unwrap();
                        std::thread::yield_now();
                    }
                });
            }
            let mut ws = world.connect();
            let rw = world.dir.join("bound/in/rw");
            let line =
                format!("cat /workspace/file {0}/file; echo x > /workspace/file; echo x > {0}/file", rw.display());
            let mut ends = (0, 0);
            for _ in 0..200 {
                let id = ws.ask("exec.run", json!({"command": ["sh", "-c", line]}));
                loop {
                    let frame = ws.read();
                    // "precious", in base64.
                    assert!(!frame.to_string().contains("cHJlY2lvdXM"), "{user:?}: {frame}");
                    if frame["type"] == "res" && frame["id"] == id.as_str() {
                        if frame["ok"] == true {
                            ends.0 += 1
                        } else {
                            ends.1 += 1
                        }
                        break;
                    }
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            ends
        });
        for file in ["evil/ws/file", "evil/rw/file"] {
            assert_eq!(fs::read(world.dir.join(file)).unwrap(), b"precious", "{user:?} {file}");
        }
        assert_eq!(ends.0 + ends.1, 200);
        assert!(ends.1 > 0, "{user:?}: no run met a swapped folder: {ends:?}");
        assert_eq!(world.exec(&["echo", "alive"]).exits(0), "alive\n");
    }
}
