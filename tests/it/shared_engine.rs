//! One engine that others use too: a run without a gateway, another gateway, people with containers of their own.

use crate::engine::{Dock, ask, before_the_engine, image};
use crate::world::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[test]
fn a_run_without_a_gateway_and_those_of_the_gateway_leave_each_other_alone() {
    let mut dock = Dock::running(User::Root);
    let (own, other) = (mark(86671), mark(86672));
    let mut ws = dock.world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sh", "-c", format!("read x; exit 5 # {own}")], "stdin": true}));
    let run = ws.event("exec.started")["runId"].clone();
    eventually("the gateway's runs", || !processes_with(own).is_empty());

    // Without a gateway: its runner looks for what is left, and finds this.
    dock.world.run(&["sandbox", "run", "--", "true"]).exits(0);

    ws.ask("exec.input", json!({"runId": run, "data": "", "eof": true}));
    assert_eq!(ws.response(&id)["payload"]["exitCode"], 5);
    drop(ws);

    eventually("the gateway's are gone", || dock.containers().is_empty());

    // And the other way round: what a runner that was killed has left goes, and nothing else.
    let line = format!("read x; exit 6 # {other}");
    let mut command = dock.world.command(&["sandbox", "run", "--", "sh", "-c", &line]);
    let mut alone = Spawned(command.stdin(Stdio::piped()).spawn().unwrap());
    eventually("it runs without a gateway", || processes_with(other).len() > 1 && dock.containers().len() == 1);
    let its = dock.containers();
    let mut ws = dock.world.connect();
    ws.ask("exec.run", json!({"command": ["sleep", own]}));
    eventually("the gateway's runs", || !processes_with(own).is_empty());
    let runner = |dock: &Dock| dock.world.status()["dockerRunner"]["pid"].as_i64();
    let first = runner(&dock).unwrap();
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
    eventually("another runner is there", || runner(&dock).is_some_and(|pid| pid != first));
    eventually("what it has left is gone", || dock.containers().len() == 1);
    dock.world.stop(Signal::SIGTERM);
    dock.world.start_again();
    dock.world.exec(&["true"]).exits(0);
    eventually("the gateway's are gone", || dock.containers().len() == 1);
    assert_eq!(dock.containers(), its);
    drop(alone.0.stdin.take());
    assert_eq!(alone.0.wait().unwrap().code(), Some(6));
    eventually("nothing is left", || dock.containers().is_empty());
}

/// The engine behind a socket where requests that hold a word wait until they are let go on.
struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    is_open: bool,
    waits: bool,
}

impl Gate {
    fn at(socket: &Path, word: &'static [u8]) -> Self {
        let gate = Gate(Arc::default());
        let shared = Arc::clone(&gate.0);
        before_the_engine(socket, move |mut client, mut engine| {
            let (mut back, mut to) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let mut bytes = [0; 16 << 10];
                while let Ok(read @ 1..) = client.read(&mut bytes) {
                    // The first line alone: an image that is sent holds every word of this program.
                    let line = bytes[..read].split(|byte| *byte == b'\r').next().unwrap_or_default();
                    if memchr::memmem::find(line, word).is_some() {
                        let mut state = shared.0.lock().unwrap();
                        state.waits = true;
                        drop(shared.1.wait_while(state, |state| !state.is_open).unwrap());
                    }
                    if engine.write_all(&bytes[..read]).is_err() {
                        return;
                    }
                }
                let _ = engine.shutdown(std::net::Shutdown::Write);
            });
        });
        gate
    }

    fn waits(&self) -> bool {
        self.0.0.lock().unwrap().waits
    }

    fn open(&self) {
        self.0.0.lock().unwrap().is_open = true;
        self.0.1.notify_all();
    }
}

#[test]
fn what_stands_for_a_container_of_one_runner_is_left_alone_by_another() {
    let world = World::new(User::Root);
    let socket = world.make_dir("engine").join("engine.sock");
    let gate = Gate::at(&socket, b"/containers/create");
    let config = format!(
        "[docker]\nhost = \"unix://{}\"\n[defaults.sandbox]\nbackend = \"docker\"\nimage = \"{}\"\n",
        socket.display(),
        image()
    );
    let dock = Dock { world: world.config(&config).start(), way: None };

    std::thread::scope(|scope| {
        let ran = scope.spawn(|| dock.world.sh("echo x > file"));
        eventually("the engine is about to make its container", || gate.waits());
        // Another runner of the same places begins, and ends.
        let run = ["sandbox", "run", "--image", "no-such-image:1", "--", "true"];
        dock.world.run(&run).fails(125, "has no image");
        gate.open();
        ran.join().unwrap().exits(0);
    });

    assert_eq!(fs::read(dock.world.workspace().join("file")).unwrap(), b"x\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dock.world.dir.to_str().unwrap()), "{mounts}");
}

#[test]
fn a_container_that_somebody_has_made_of_one_of_ours_is_his() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\n");
    dock.world.exec(&["true"]).exits(0);
    let ours = dock.inspect("agent.main")["Id"].as_str().unwrap().to_owned();
    let (repo, tag) = ("vambrace-test-committed", std::process::id());
    assert_eq!(ask("POST", &format!("/commit?container={ours}&repo={repo}&tag={tag}"), None).0, 201);
    let body = json!({"Image": format!("{repo}:{tag}"), "Entrypoint": ["/bin/sleep"], "Cmd": ["1000"]});
    let (status, made) = ask("POST", "/containers/create", Some(&body));
    assert_eq!(status, 201, "{made}");
    let his = made["Id"].as_str().unwrap();
    assert_eq!(ask("POST", &format!("/containers/{his}/start"), None).0, 204);
    let is_there = |id: &str| ask("GET", &format!("/containers/{id}/json"), None).0 == 200;
    let (_, live) = ask("GET", &format!("/containers/{his}/json"), None);
    assert_eq!(live["Config"]["Labels"]["io.vambrace.sandbox"], "agent.main", "it has our labels");

    // The newest is looked at first.
    dock.world.run(&["sandbox", "recreate", "agent.main"]).exits(0);
    eventually("ours is gone", || !is_there(&ours));
    assert!(is_there(his));

    // One of ours stays ours, whatever it is called.
    dock.world.exec(&["true"]).exits(0);
    let ours = dock.inspect_all("agent.main").into_iter().find(|live| live["Id"] != his).unwrap();
    let ours = ours["Id"].as_str().unwrap();
    assert_eq!(ask("POST", &format!("/containers/{ours}/rename?name=vambrace-test-renamed-{tag}"), None).0, 204);
    dock.world.exec(&["true"]).exits(0);
    dock.world.run(&["sandbox", "recreate", "agent.main"]).exits(0);
    eventually("ours is gone", || !is_there(ours));
    assert!(is_there(his));
    assert_eq!(ask("DELETE", &format!("/containers/{his}?force=1"), None).0, 204);
    ask("DELETE", &format!("/images/{repo}:{tag}?force=1"), None);
}

#[test]
fn gateways_whose_places_have_the_same_names_know_nothing_of_each_other() {
    // As on two hosts that share an engine, and have no id or the same.
    let mut dock = Dock::with(User::Root, "scope = \"agent\"\n");
    let places = ["state", "state-sandboxes", "state-workspaces"].map(|name| dock.world.dir.join(name));
    let put = |from: &str, to: &str| {
        for place in &places {
            fs::rename(place.with_extension(from), place.with_extension(to)).unwrap();
        }
    };
    dock.world.sh("echo first > /tmp/mark").exits(0);
    let (label, first) = (dock.label(), dock.inspect("agent.main")["Id"].clone());
    dock.world.stop(Signal::SIGTERM);
    put("", "first");
    dock.world.start_again();

    assert_ne!(dock.label(), label);
    assert_ne!(dock.world.sh("cat /tmp/mark").code, 0);
    dock.world.run(&["sandbox", "prune", "--all"]).exits(0);
    eventually("its own is gone", || dock.containers().is_empty());

    dock.world.stop(Signal::SIGTERM);
    put("", "second");
    put("first", "");
    dock.world.start_again();
    assert_eq!(dock.label(), label);
    assert_eq!(dock.world.sh("cat /tmp/mark").exits(0), "first\n");
    assert_eq!(dock.inspect("agent.main")["Id"], first);
}

#[test]
fn what_is_old_or_was_not_used_for_long_is_removed_and_nothing_else() {
    let profiles = "[profiles.old]\nage = \"1s\"\n[profiles.unused]\nidle = \"1s\"\n";
    let mut dock = Dock::with(User::Root, profiles);
    let run =
        |dock: &Dock, more: &[&str], line: &str| dock.world.run(&[&["exec"], more, &["--", "sh", "-c", line]].concat());
    let old = ["--profile", "old", "--session", "old"];
    run(&dock, &old, "echo kept > /tmp/mark").exits(0);
    run(&dock, &["--profile", "unused", "--session", "unused"], "echo x > /tmp/mark").exits(0);
    run(&dock, &["--session", "other"], "true").exits(0);
    let containers = ["session.main.old", "session.main.other", "session.main.unused"];
    assert_eq!(dock.containers(), containers);
    // A runner looks when it begins and then once a minute; ages are in whole seconds.
    let used = Instant::now();
    eventually("a second has gone by", || used.elapsed() > Duration::from_millis(2100));
    let before = ["old", "other"].map(|name| dock.inspect(&format!("session.main.{name}"))["Id"].clone());

    dock.world.stop(Signal::SIGTERM);
    dock.world.start_again();

    eventually("both are gone", || dock.containers() == ["session.main.other"]);
    let listed = dock.world.json(&["sandbox", "list", "--json"]);
    let names: Vec<&str> =
        listed["sandboxes"].as_array().unwrap().iter().map(|kept| kept["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["session.main.old", "session.main.other"], "what an old one keeps is not old");
    assert_eq!(run(&dock, &old, "cat /tmp/mark").exits(0), "kept\n");
    assert_ne!(dock.inspect("session.main.old")["Id"], before[0]);
    assert_eq!(dock.inspect("session.main.other")["Id"], before[1]);
    let native = World::new(User::Root).config("[defaults.sandbox]\nage = \"30d\"\n");
    assert!(native.run(&["config", "check"]).stderr.contains("backend = \"docker\" alone"));
}

#[test]
fn what_differs_where_sandboxes_are_listed_is_made_anew_by_the_next_command() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\n");
    dock.world.exec(&["true"]).exits(0);
    let first = dock.inspect("agent.main")["Id"].clone();
    let mark = mark(86673);
    let mut ws = dock.world.connect();
    ws.ask("exec.run", json!({"command": ["sleep", mark]}));
    eventually("it runs", || !processes_with(mark).is_empty());
    let more = json!({"Memory": 1 << 30, "MemorySwap": 1 << 30});
    assert_eq!(ask("POST", &format!("/containers/{}/update", first.as_str().unwrap()), Some(&more)).0, 200);

    // Not under what runs in it.
    dock.world.run(&["sandbox", "list"]).exits(0);
    dock.world.exec(&["true"]).exits(0);
    assert_eq!(dock.inspect("agent.main")["Id"], first);
    drop(ws);
    eventually("nothing runs in it", || dock.world.status()["runs"] == 0);
    assert!(dock.world.run(&["sandbox", "list"]).exits(0).contains("differs in HostConfig.Memory, "));

    dock.world.exec(&["true"]).exits(0);
    let second = dock.inspect("agent.main");
    assert_eq!(second["HostConfig"]["Memory"], 512 << 20);
    assert_ne!(second["Id"], first);
    assert_eq!(dock.containers(), ["agent.main"]);
}

#[test]
fn an_engine_that_this_user_may_not_speak_to_is_told_as_such() {
    let world = World::new(User::Ordinary);
    let socket = world.make_dir("engine").join("engine.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!(
        "[docker]\nhost = \"unix://{}\"\n[defaults.sandbox]\nbackend = \"docker\"\nimage = \"x:1\"\n",
        socket.display()
    );
    let world = world.config(&config).start();

    let ran = world.exec(&["true"]);

    assert!(ran.stderr.contains("give the runner's user access to its socket"), "{ran:?}");
    ran.fails(125, "Permission denied");
}
