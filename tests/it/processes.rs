//! Two processes: what happens to runs when one of them dies, and who may give the runner orders.

use crate::world::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

#[test]
fn killing_the_runner_fails_its_commands_at_once_and_another_takes_its_place() {
    for (user, mark) in [(User::Root, mark(86406)), (User::Ordinary, mark(86407))] {
        let world = World::running(user);
        let first = world.runner_pid();
        let mut ws = world.connect();
        let id = ws.ask("exec.run", json!({"command": ["sh", "-c", format!("sleep {mark} & sleep {mark}")]}));
        eventually("both run", || processes_with(mark).len() >= 3);

        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();

        let error = ws.response(&id)["error"].clone();
        assert_eq!(
            (&error["code"], &error["details"]["code"]),
            (&json!("UNAVAILABLE"), &json!("RUNNER_GONE")),
            "{error}"
        );
        eventually("no process of it is left", || processes_with(mark).is_empty());
        eventually("another runner is there", || world.status()["runner"]["connected"] == true);
        assert_ne!(world.runner_pid(), first);
        assert_eq!(world.exec(&["echo", "again"]).exits(0), "again\n");
        assert_eq!(world.events("runner.restarted").len(), 1);
        assert!(world.events("exec.failed")[0]["error"].as_str().unwrap().starts_with("RUNNER_GONE"));
    }
}

#[test]
fn killing_the_gateway_leaves_no_process_of_a_sandbox_alive() {
    for (user, mark) in [(User::Root, mark(86408)), (User::Ordinary, mark(86409))] {
        let mut world = World::running(user);
        let runner = world.runner_pid();
        let mut ws = world.connect();
        ws.ask("exec.run", json!({"command": ["sh", "-c", format!("setsid sleep {mark} & sleep {mark}")]}));
        eventually("both run", || processes_with(mark).len() >= 3);

        world.stop(Signal::SIGKILL);

        eventually("no process of it is left", || processes_with(mark).is_empty());
        eventually("nor the runner", || !std::path::Path::new(&format!("/proc/{runner}")).exists());
        world.start_again();
        assert_eq!(world.exec(&["true"]).code, 0);
        assert!(world.run(&["journal", "verify"]).exits(0).contains("the chain holds"));
    }
}

#[test]
fn a_stop_ends_running_commands_and_records_it() {
    let mut world = World::running(User::Ordinary);
    let mut ws = world.connect();
    ws.ask("exec.run", json!({"command": ["sleep", mark(86410)]}));
    ws.event("exec.started");
    eventually("it runs", || !processes_with(mark(86410)).is_empty());

    world.stop(Signal::SIGTERM);

    assert!(processes_with(mark(86410)).is_empty());
    let journal = world.state().join("journal").display().to_string();
    let text = world.run(&["journal", "list", "--dir", &journal, "--json"]).exits(0);
    let events: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let named: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(named[named.len() - 2..], ["exec.finished", "gateway.stopped"], "{named:?}");
    assert_eq!(events[events.len() - 2]["ending"], "cancelled");
    assert!(!world.state().join("run/gateway.sock").exists());
}

#[test]
fn a_runner_that_is_its_own_service_takes_orders_from_the_gateways_uid_alone() {
    let mut world = World::new(User::Ordinary).config("[runner]\nsocket = \"@/run/runner.sock\"\n");
    let socket = world.dir.join("run/runner.sock");
    let path = socket.display().to_string();
    let [kept, workspaces] =
        ["state-sandboxes", "state-workspaces"].map(|name| world.dir.join(name).display().to_string());
    let arguments = ["runner", "--socket", &path, "--kept", &kept, "--workspaces", &workspaces];
    let runner = world.command(&arguments).stdin(Stdio::null()).spawn().unwrap();
    let mut runner = Spawned(runner);
    let mode = || std::fs::metadata(&socket).map_or(0, |meta| meta.permissions().mode() & 0o777);
    eventually("it listens, for its user alone", || mode() == 0o600);

    world.start_again();
    assert_eq!(world.exec(&["echo", "through a service"]).exits(0), "through a service\n");
    assert_eq!(world.runner_pid(), runner.0.id() as i32);

    if am_root() {
        // Root can reach the socket, but it is not the gateway.
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert_eq!(said, b"", "the runner introduced itself to a stranger");
    }
    world.stop(Signal::SIGTERM);
    assert!(runner.stop(Signal::SIGTERM).success());
    assert!(!socket.exists());
}

#[test]
fn what_is_no_order_ends_the_connection_and_not_the_runner() {
    let world = World::new(User::Ordinary);
    if !am_root() {
        return check(&world, "run/r.sock");
    }
    // A runner of root, so that this process is its gateway.
    check(&World::new(User::Root), "run/r.sock");

    fn check(world: &World, relative: &str) {
        use std::io::Write;
        let socket = world.dir.join(relative);
        let runner = world.command(&["runner", "--socket", socket.to_str().unwrap()]).stdin(Stdio::null()).spawn();
        let mut runner = Spawned(runner.unwrap());
        eventually("it listens", || UnixStream::connect(&socket).is_ok());
        let garbage: [&[u8]; 5] = [
            b"\xff\xff\xff\xff",
            b"\0\0\0\0",
            b"\x09\0\0\0\x63\0\0\0\0\0\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x0b\0\0\0\x01\x01\0\0\0\0\0\0\0{}",
        ];
        for bytes in garbage {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(bytes).unwrap();
            let mut said = Vec::new();
            // What it did not care to read any more makes it a reset.
            let end = stream.read_to_end(&mut said).map_err(|e| e.kind());
            assert!(matches!(end, Ok(_) | Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
            assert!(said.is_empty() || said[2..5] == [0, 0, 1], "it may greet, and ends: {said:?}");
        }
        assert!(UnixStream::connect(&socket).is_ok());
        assert!(runner.stop(Signal::SIGTERM).success());
    }
}

#[test]
fn the_gateway_is_not_dumpable_and_starts_no_command_itself() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sleep", mark(86411)]}));
    let run = ws.event("exec.started")["runId"].clone();
    eventually("it runs", || !processes_with(mark(86411)).is_empty());
    let gateway = world.gateway_pid();
    let children = |pid: i32| -> Vec<i32> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    // What starts runners was forked off before the gateway gave up starting anything.
    let starters = children(gateway);
    assert_eq!(starters.len(), 1);
    assert_eq!(children(starters[0]), [world.runner_pid()]);
    // An undumpable process's files in /proc belong to root.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(format!("/proc/{gateway}/environ")).unwrap().uid(), 0);
    ws.call("exec.cancel", json!({"runId": run}));
    ws.response(&id);
}

#[test]
fn a_runner_killed_amid_many_launches_leaves_no_sandbox_alive() {
    for (user, mark) in [(User::Root, mark(86413)), (User::Ordinary, mark(86414))] {
        let world = World::running(user);
        for round in 0..5 {
            let mut ws = world.connect();
            for _ in 0..40 {
                ws.ask("exec.run", json!({"command": ["sleep", mark]}));
            }
            // At a different moment of the launching each time.
            eventually("some run", || processes_with(mark).len() > round * 8);
            let runner = world.runner_pid();
            kill(Pid::from_raw(runner), Signal::SIGKILL).unwrap();
            // The gateway, what starts runners, and perhaps the next runner already.
            eventually("no process of it is left", || {
                let left = processes_with(&world.dir.join("state").display().to_string());
                processes_with(mark).is_empty() && left.len() <= 3 && !left.contains(&runner)
            });
            // The gateway may not have seen yet that the old one is gone.
            eventually("another runner is there", || {
                let now = &world.status()["runner"];
                now["connected"] == true && now["pid"] != runner
            });
        }
    }
}

#[test]
fn an_init_in_reserve_that_died_costs_the_next_command_nothing_and_none_waits_for_long() {
    for user in USERS {
        let world = World::running(user);
        let runner = world.runner_pid();
        let reserve = || {
            let children = std::fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
            children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()).collect::<Vec<_>>()
        };
        world.exec(&["true"]).exits(0);
        eventually("one waits", || reserve().len() == 1);
        let waiting = reserve()[0];
        kill(Pid::from_raw(waiting), Signal::SIGKILL).unwrap();
        // Dead, and not yet reaped or reaped already: a signal that was sent is not one that has arrived.
        eventually("it is dead", || {
            let stat = std::fs::read_to_string(format!("/proc/{waiting}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
        });
        assert_eq!(world.exec(&["echo", "unharmed"]).exits(0), "unharmed\n");
        eventually("it is let go of", || reserve().is_empty());
    }
}
