//! Lockdown: everything stands still at once, nothing begins, and only an admin lets it go on.

use crate::world::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// States of all threads of the processes whose command line holds this word (proc_pid_stat(5)).
fn states(word: &str) -> Vec<char> {
    let state = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("stat")).ok()?;
        text.rsplit(") ").next()?.chars().next()
    };
    let threads = |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    processes_with(word).into_iter().flat_map(threads).filter_map(state).collect()
}

/// Whether each of them stands still: stopped, dead and not reaped, or in a vfork(2) whose child is stopped, where the
/// kernel lets its parent do nothing, not even stop.
fn stand_still(word: &str) -> bool {
    let states = states(word);
    states.contains(&'T') && states.iter().all(|state| matches!(state, 'T' | 'Z' | 'X' | 'D'))
}

/// Starts a command on a connection of its own and waits until it runs.
fn begin(world: &World, mut ask: Value) -> (Ws, String, Value) {
    let mut ws = world.connect();
    ask["stdin"] = json!(true);
    let id = ws.ask("exec.run", ask);
    let run = ws.event("exec.started")["runId"].clone();
    (ws, id, run)
}

/// A shell loop that counts in a file for as long as it runs, and carries this mark in its command line.
fn counting(mark: &str, file: &str) -> Value {
    json!({"command": ["sh", "-c", format!("i=0; while :; do i=$((i+1)); echo $i > {file}; done # {mark}")]})
}

fn count(file: &Path) -> u64 {
    // Between truncation and writing it is empty.
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Work of other kinds, so that time passes: connections, frames, records.
fn other_work(world: &World) {
    for _ in 0..5 {
        let mut ws = world.connect();
        assert_eq!(ws.call("status", json!({}))["ok"], true);
        world.events("lockdown.on");
    }
}

/// Asserts that nothing is counted while other work is done.
fn assert_frozen(world: &World, file: &Path) {
    let before = fs::read(file).unwrap();
    other_work(world);
    assert_eq!(fs::read(file).unwrap(), before);
}

#[test]
fn what_runs_stands_still_at_once_and_goes_on_where_it_was() {
    for (user, mark) in [(User::Root, mark(86501)), (User::Ordinary, mark(86502))] {
        let world = World::running(user);
        let file = world.workspace().join("count");
        let (mut ws, id, run) = begin(&world, counting(mark, "count"));
        eventually("it counts", || count(&file) > 10);
        assert_eq!(world.run(&["lockdown", "status"]).exits(0), "off; 1 commands run\n");

        let said = world.run(&["lockdown", "on"]).exits(0);

        assert!(said.contains("stopped where it was"), "{said}");
        eventually("it is stopped", || stand_still(mark));
        let at = count(&file);
        assert_frozen(&world, &file);
        assert_eq!(world.run(&["lockdown", "status"]).exits(0), "on; 1 commands stand still\n");
        assert_eq!(world.json(&["lockdown", "status", "--json"]), json!({"on": true, "runs": 1}));

        world.run(&["lockdown", "off"]).exits(0);
        eventually("it goes on", || count(&file) > at + 10);
        assert_eq!(ws.call("exec.cancel", json!({"runId": run}))["ok"], true);
        assert_eq!(ws.response(&id)["payload"]["ending"], "cancelled");
        let named = |event: &str| world.events(event).len();
        assert_eq!((named("lockdown.on"), named("lockdown.off")), (1, 1));
        assert!(world.run(&["journal", "verify"]).exits(0).contains("the chain holds"));
    }
}

#[test]
fn what_forks_all_the_time_ignores_signals_or_has_threads_stands_still_as_well() {
    for (number, user) in USERS.into_iter().enumerate() {
        let world = World::new(user).config("[defaults.sandbox.limits]\npids = 60\n").start();
        let forks = "import os, sys
while True:
    for n in range(8):
        try:
            if os.fork() == 0:
                open('count', 'a').write('.')
                os._exit(0)
        except OSError: pass
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except OSError: pass";
        let ignores = "import signal, os
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
def again(*_): open('count', 'a').write('c')
signal.signal(signal.SIGCONT, again)
if os.fork() == 0: os.setsid()
if os.fork() == 0: os.setpgid(0, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)))
while True: open('count', 'a').write('.')";
        let threads = "import threading
def go():
    while True: open('count', 'a').write('.')
for n in range(20): threading.Thread(target=go).start()";
        // It answers each stop of its child with SIGCONT, as a shell could do for its jobs.
        let wakes = "import os, signal
child = os.fork()
if child == 0:
    while True: open('count', 'a').write('.')
while True:
    os.kill(child, signal.SIGCONT)
    os.kill(-1, signal.SIGCONT)";
        for (at, program) in [forks, ignores, threads, wakes].into_iter().enumerate() {
            let mark = mark(86_510 + 10 * number as u32 + at as u32);
            let file = world.workspace().join("count");
            let _ = fs::remove_file(&file);
            let (ws, _, _) = begin(&world, json!({"command": ["python3", "-c", format!("{program}\n# {mark}")]}));
            eventually("it works", || fs::metadata(&file).is_ok_and(|meta| meta.len() > 20));

            world.run(&["lockdown", "on"]).exits(0);
            eventually("all of it is stopped", || stand_still(mark));
            let before = (fs::metadata(&file).unwrap().len(), processes_with(mark).len());
            other_work(&world);
            assert!(stand_still(mark), "{user:?} {at}: {:?}", states(mark));
            assert_eq!((fs::metadata(&file).unwrap().len(), processes_with(mark).len()), before, "{user:?} {at}");

            world.run(&["lockdown", "off"]).exits(0);
            eventually("it goes on", || fs::metadata(&file).unwrap().len() > before.0 + 20);
            // Stopped again and its client gone, it ends like any other.
            world.run(&["lockdown", "on"]).exits(0);
            drop(ws);
            eventually("it is gone", || processes_with(mark).is_empty());
            world.run(&["lockdown", "off"]).exits(0);
        }
    }
}

#[test]
fn no_command_begins_and_the_refusal_is_recorded() {
    for user in USERS {
        let world = World::running(user);
        world.exec(&["true"]).exits(0);
        world.run(&["lockdown", "on"]).exits(0);
        let ran = world.exec(&["touch", "/workspace/ran"]);
        assert!(ran.stderr.contains("rule lockdown"), "{ran:?}");
        ran.fails(126, "lock");
        let mut ws = world.connect();
        let refused = ws.call("exec.run", json!({"command": ["touch", "/workspace/ran"]}));
        assert_eq!(
            (&refused["ok"], &refused["error"]["details"]["rule"]),
            (&json!(false), &json!("lockdown")),
            "{refused}"
        );
        assert!(!world.workspace().join("ran").exists());
        let denied = world.events("exec.denied");
        assert_eq!((denied.len(), &denied[0]["rule"], &denied[0]["verdict"]), (2, &json!("lockdown"), &json!("deny")));
        // On again is on; off again is off; neither needs the other before it.
        world.run(&["lockdown", "on"]).exits(0);
        world.run(&["lockdown", "off"]).exits(0);
        world.run(&["lockdown", "off"]).exits(0);
        world.exec(&["true"]).exits(0);
    }
}

#[test]
fn it_outlives_every_end_of_the_gateway_and_of_the_runner() {
    for user in USERS {
        let mut world = World::running(user);
        world.run(&["lockdown", "on"]).exits(0);
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL] {
            world.stop(signal);
            world.start_again();
            assert_eq!(world.json(&["lockdown", "status", "--json"])["on"], true, "{user:?} {signal}");
            world.exec(&["true"]).fails(126, "lock");
        }
        let runner = world.runner_pid();
        kill(Pid::from_raw(runner), Signal::SIGKILL).unwrap();
        eventually("another runner is there", || {
            let runner_now = world.status()["runner"].clone();
            runner_now["connected"] == true && runner_now["pid"] != json!(runner)
        });
        world.exec(&["true"]).fails(126, "lock");
        world.run(&["lockdown", "off"]).exits(0);
        world.exec(&["true"]).exits(0);
        world.stop(Signal::SIGKILL);
        world.start_again();
        assert_eq!(world.json(&["lockdown", "status", "--json"])["on"], false);
        world.exec(&["true"]).exits(0);
    }
}

#[test]
fn what_was_permitted_a_moment_before_stands_still_or_is_refused() {
    for user in USERS {
        let world = World::running(user);
        let mut clients: Vec<Ws> = (0..4).map(|_| world.connect()).collect();
        for round in 0..10 {
            let ids: Vec<Vec<String>> = clients
                .iter_mut()
                .map(|ws| {
                    (0..5).map(|_| ws.ask("exec.run", json!({"command": ["sh", "-c", "echo x >> begun"]}))).collect()
                })
                .collect();
            world.run(&["lockdown", "on"]).exits(0);
            // What was permitted just before stands still or was refused; nothing runs from here on.
            let file = world.workspace().join("begun");
            eventually("nothing runs", || {
                let before = fs::metadata(&file).map(|m| m.len()).unwrap_or(0);
                other_work(&world);
                fs::metadata(&file).map(|m| m.len()).unwrap_or(0) == before
            });
            world.run(&["lockdown", "off"]).exits(0);
            for (ws, ids) in clients.iter_mut().zip(ids) {
                let mut left: std::collections::BTreeSet<String> = ids.into_iter().collect();
                while !left.is_empty() {
                    let frame = ws.read();
                    if frame["type"] == "res" && left.remove(frame["id"].as_str().unwrap()) {
                        let code = &frame["error"]["details"]["code"];
                        let is_lockdown = frame.to_string().to_lowercase().contains("lock");
                        assert!(frame["ok"] == true || is_lockdown, "round {round}: {code} {frame}");
                    }
                }
            }
        }
        assert_eq!(world.status()["runs"], 0);
    }
}

#[test]
fn only_an_admin_ends_it_and_whoever_may_run_may_begin_it() {
    for user in USERS {
        let world = World::running(user);
        let with = |scope: &str| {
            let mut ws = world.socket();
            let hello = ws.hello(&world.token(), json!({"scopes": [scope]}));
            assert_eq!(hello["payload"]["auth"]["scopes"], json!([scope]));
            ws
        };
        let missing = |answer: &Value| answer["error"]["details"]["code"] == "MISSING_SCOPE";
        let (mut reader, mut writer, mut clerk) =
            (with("operator.read"), with("operator.write"), with("operator.pairing"));
        let mut admin = world.connect();

        assert!(missing(&reader.call("lockdown.on", json!({}))) && missing(&reader.call("lockdown.off", json!({}))));
        for method in ["lockdown.on", "lockdown.off", "lockdown.status"] {
            assert!(missing(&clerk.call(method, json!({}))), "{method}");
        }
        assert_eq!(reader.call("lockdown.status", json!({}))["payload"], json!({"on": false, "runs": 0}));
        assert_eq!(writer.call("lockdown.on", json!({}))["payload"]["on"], true);
        let changed = reader.event("lockdown.changed");
        assert_eq!(changed, json!({"on": true}));
        assert!(missing(&writer.call("lockdown.off", json!({}))));
        assert_eq!(reader.call("lockdown.status", json!({}))["payload"]["on"], true);
        for (method, params) in [
            ("lockdown.on", json!({"kill": "yes"})),
            ("lockdown.on", json!({"now": true})),
            ("lockdown.off", json!({"force": true})),
            ("lockdown.pause", json!({})),
        ] {
            assert_eq!(admin.call(method, params.clone())["ok"], false, "{method} {params}");
        }
        assert_eq!(admin.call("lockdown.off", json!({}))["payload"]["on"], false);
        assert_eq!(reader.event("lockdown.changed"), json!({"on": false}));
    }
}

#[test]
fn a_device_that_may_write_cannot_end_it() {
    use crate::device::*;
    let world = World::new(User::Root).config("[gateway.auth]\nlocal_trust = \"off\"\n").start();
    let device = Device::new(9);
    let shared = json!({"token": world.token()});
    let (_, refused) = device.connect(&world, &["operator.write"], shared.clone());
    world.run(&["devices", "approve", refused["error"]["details"]["requestId"].as_str().unwrap()]).exits(0);
    let (mut ws, hello) = device.connect(&world, &["operator.write"], shared);
    assert_eq!(code(&hello), "let in");
    assert_eq!(ws.call("lockdown.on", json!({}))["payload"]["on"], true);
    for method in ["lockdown.off", "sandbox.prune"] {
        assert_eq!(ws.call(method, json!({}))["error"]["details"]["code"], "MISSING_SCOPE", "{method}");
    }
    assert_eq!(world.json(&["lockdown", "status", "--json"])["on"], true);
    world.run(&["lockdown", "off"]).exits(0);
}

#[test]
fn kill_ends_what_runs_also_what_stood_still_already() {
    for (user, marks) in [(User::Root, [mark(86541), mark(86542)]), (User::Ordinary, [mark(86543), mark(86544)])] {
        let world = World::running(user);
        for (mark, stopped_before) in marks.into_iter().zip([false, true]) {
            let (mut ws, id, _) = begin(
                &world,
                json!({"command": ["sh", "-c",
                format!("trap '' TERM INT HUP; setsid sleep {mark} & sleep {mark}; sleep {mark}")]}),
            );
            eventually("both run", || processes_with(mark).len() >= 3);
            if stopped_before {
                world.run(&["lockdown", "on"]).exits(0);
                eventually("it is stopped", || stand_still(mark));
            }

            let said = world.run(&["lockdown", "on", "--kill"]).exits(0);

            assert!(said.contains("killed"), "{said}");
            let answer = ws.response(&id);
            assert_eq!(answer["payload"]["ending"], "lockdown", "{answer}");
            eventually("nothing of it is left", || processes_with(mark).is_empty());
            world.exec(&["true"]).fails(126, "lock");
            world.run(&["lockdown", "off"]).exits(0);
        }
        // The command line says why.
        let child =
            world.command(&["exec", "--", "sleep", marks[0]]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        eventually("it runs", || processes_with(marks[0]).len() >= 2);
        world.run(&["lockdown", "on", "--kill"]).exits(0);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("lockdown") && stderr.contains("hint: "), "{stderr}");
        assert_ne!(output.status.code(), Some(0));
        assert!(world.events("exec.finished").iter().all(|e| e["ending"] == "lockdown"));
        world.run(&["lockdown", "off"]).exits(0);
        world.exec(&["true"]).exits(0);
    }
}

#[test]
fn a_file_tool_is_killed_as_a_command_is() {
    for user in USERS {
        let world = World::running(user);
        // Long to list, so that the lockdown meets the tool at work.
        let many = "import os; os.mkdir('all'); [open('all/%d' % n, 'w').close() for n in range(100_000)]";
        world.exec(&["python3", "-c", many]).exits(0);
        let mut ws = world.connect();
        let mut was_killed = false;
        for _ in 0..50 {
            let id = ws.ask("sandbox.file.list", json!({"path": "all"}));
            world.run(&["lockdown", "on", "--kill"]).exits(0);
            let answer = ws.response(&id);
            assert_eq!(world.status()["runs"], 0, "{answer}");
            if answer["ok"] == false {
                was_killed = true;
                assert!(answer.to_string().contains("lockdown"), "{answer}");
            }
            world.run(&["lockdown", "off"]).exits(0);
        }
        assert!(was_killed, "{user:?}: no tool was met at work");
        assert!(world.run(&["sandbox", "read", "nothing"]).code != 0);
    }
}

#[test]
fn the_deadline_stands_still_with_the_command() {
    for (user, mark) in [(User::Root, mark(86551)), (User::Ordinary, mark(86552))] {
        let world = World::running(user);
        let (mut ws, id, _) =
            begin(&world, json!({"command": ["sh", "-c", format!("cat; sleep {mark}")], "timeoutMs": 8000}));
        eventually("it runs", || !processes_with(mark).is_empty());
        world.run(&["lockdown", "on"]).exits(0);
        eventually("it is stopped", || stand_still(mark));
        // Another command's whole deadline passes meanwhile, by the runner's own clock: this one stands still beyond it.
        let elsewhere = World::running(User::Ordinary);
        elsewhere.run(&["exec", "--timeout", "9s", "--", "sleep", "100"]).fails(124, "ran out of time");
        assert!(stand_still(mark), "{user:?}: it ended while it stood still");
        assert_eq!(world.status()["runs"], 1);

        world.run(&["lockdown", "off"]).exits(0);
        let answer = ws.response(&id);
        assert_eq!(answer["payload"]["ending"], "timed-out", "{answer}");
    }
}

#[test]
fn what_stands_still_is_thawed_by_no_command() {
    for (user, mark) in [(User::Root, mark(86561)), (User::Ordinary, mark(86562))] {
        let world = World::running(user);
        let file = world.workspace().join("count");
        // Two runs of one agent, in one kept sandbox of the default; each tries to wake everything it can see.
        let wake = format!(
            "while :; do kill -CONT -1; for p in /proc/[0-9]*; do kill -CONT ${{p#/proc/}}; done; done 2>/dev/null # {mark}"
        );
        let _one = begin(&world, counting(mark, "count"));
        let _two = begin(&world, json!({"command": ["sh", "-c", wake]}));
        eventually("it counts", || count(&file) > 10);
        let pids = processes_with(mark);
        world.run(&["lockdown", "on"]).exits(0);
        eventually("both are stopped", || stand_still(mark));
        assert_frozen(&world, &file);

        // Input, a new size and cancel of another's run reach nobody.
        let mut ws = world.connect();
        let (_, _, run) = &_one;
        assert_eq!(ws.call("exec.cancel", json!({"runId": run}))["error"]["details"]["code"], "UNKNOWN_RUN");
        assert!(stand_still(mark), "{user:?} {pids:?}");
        world.run(&["lockdown", "off"]).exits(0);
        let at = count(&file);
        eventually("it goes on", || count(&file) > at);
    }
}

#[test]
fn what_stands_still_is_thawed_by_no_timer_and_no_input() {
    let without_namespaces = World::new(User::Ordinary).locked_down();
    let without_namespaces = without_namespaces.config("[defaults.sandbox]\nleast_tier = \"landlock\"\n").start();
    for world in [World::running(User::Root), World::running(User::Ordinary), without_namespaces] {
        // Tools do without them.
        assert_eq!(world.attack(&["timer"]).stdout, "ENOSYS\n");
        world.exec(&["timeout", "60", "true"]).exits(0);
        for signal in [Signal::SIGCONT, Signal::SIGKILL] {
            assert_eq!(world.attack(&["signal-of-input", &(signal as i32).to_string()]).stdout, "EPERM\n");
        }
        assert_eq!(world.attack(&["signal-of-input", &(Signal::SIGIO as i32).to_string()]).code, 0);
        for act in ["go-on-by-timer", "go-on-by-input"] {
            let file = world.workspace().join("count");
            let (mut ws, id, run) = begin(&world, json!({"command": ["./attacks", act]}));
            eventually("it counts", || count(&file) > 10);
            world.run(&["lockdown", "on"]).exits(0);
            eventually("it stands still", || stand_still(act));

            let before = fs::read(&file).unwrap();
            for _ in 0..5 {
                ws.ask("exec.input", json!({"runId": run, "data": "aGkK"}));
                other_work(&world);
            }

            assert_eq!(fs::read(&file).unwrap(), before, "{:?} {act}", world.user);
            world.run(&["lockdown", "on", "--kill"]).exits(0);
            assert_eq!(ws.response(&id)["payload"]["ending"], "lockdown");
            world.run(&["lockdown", "off"]).exits(0);
            fs::remove_file(&file).unwrap();
        }
    }
}

#[test]
fn input_and_output_wait_and_are_not_lost() {
    for (user, mark) in [(User::Root, mark(86571)), (User::Ordinary, mark(86572))] {
        let world = World::running(user);
        let (mut ws, id, run) = begin(&world, json!({"command": ["sh", "-c", format!("cat # {mark}")]}));
        eventually("it runs", || !processes_with(mark).is_empty());
        world.run(&["lockdown", "on"]).exits(0);
        eventually("it is stopped", || stand_still(mark));
        // "hi" in base64.
        let input = ws.ask("exec.input", json!({"runId": run, "data": "aGk=", "eof": true}));
        assert_eq!(ws.response(&input)["ok"], true);
        assert!(stand_still(mark));
        world.run(&["lockdown", "off"]).exits(0);
        assert_eq!(ws.event("exec.output")["data"], "aGk=");
        assert_eq!(ws.response(&id)["payload"]["exitCode"], 0);
    }
}

#[test]
fn a_gateway_that_stops_ends_what_stands_still() {
    for (user, mark) in [(User::Root, mark(86581)), (User::Ordinary, mark(86582))] {
        let mut world = World::running(user);
        let _one = begin(&world, json!({"command": ["sh", "-c", format!("sleep {mark}; sleep {mark}")]}));
        eventually("it runs", || processes_with(mark).len() >= 2);
        world.run(&["lockdown", "on"]).exits(0);
        eventually("it is stopped", || stand_still(mark));
        let before = std::time::Instant::now();
        world.stop(Signal::SIGTERM);
        assert!(before.elapsed() < Duration::from_secs(20));
        assert!(processes_with(mark).is_empty());
        world.start_again();
        assert_eq!(world.json(&["lockdown", "status", "--json"]), json!({"on": true, "runs": 0}));
    }
}

#[test]
fn a_lockdown_that_meets_a_command_at_its_start_stops_it_or_refuses_it() {
    for (user, mark) in [(User::Root, mark(86591)), (User::Ordinary, mark(86592))] {
        let world = World::running(user);
        let (mut switch, mut ws) = (world.connect(), world.connect());
        for round in 0..60 {
            // Sooner and later in the life of the command.
            let ask = json!({"command": ["sh", "-c", format!("sleep {mark}; sleep {mark}")]});
            let id = ws.ask("exec.run", ask);
            let run = ws.event("exec.started")["runId"].clone();
            for _ in 0..round % 20 {
                ws.call("health", json!({}));
            }
            assert_eq!(switch.call("lockdown.on", json!({}))["ok"], true);
            let mut refused = false;
            eventually("it stands still or was refused", || {
                refused = switch.call("lockdown.status", json!({}))["payload"]["runs"] == 0;
                refused || stand_still(mark)
            });
            assert_eq!(switch.call("lockdown.off", json!({}))["ok"], true);
            if !refused {
                assert_eq!(ws.call("exec.cancel", json!({"runId": run}))["ok"], true, "{user:?} {round}");
            }
            let answer = ws.response(&id);
            assert_eq!(answer["ok"] == true, !refused, "{user:?} {round}: {answer}");
            eventually("nothing of it is left", || processes_with(mark).is_empty());
        }
    }
}
