//! The gateway under a service manager: what it tells, doors it is given, a configuration read again, its own walls.

use crate::device::Device;
use crate::neighbours::Certificate;
use crate::world::{PATIENCE, User, World, am_root, eventually, receive};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

fn hang_up(world: &World) {
    kill(Pid::from_raw(world.gateway_pid()), Signal::SIGHUP).unwrap();
}

/// What it is told until it is ready again.
pub(crate) fn reloaded(world: &World) -> String {
    hang_up(world);
    let begun = world.told();
    assert!(begun.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begun}");
    let ended = world.told();
    assert!(ended.starts_with("READY=1\nSTATUS=listening on "), "{ended}");
    ended.trim_end().to_owned()
}

#[test]
fn the_service_manager_is_told_of_each_reload_and_of_the_stop() {
    let mut world = World::new(User::Ordinary).config("# nothing\n").managed().start();
    let plain = reloaded(&world);
    assert!(!plain.contains(';'), "{plain}");

    world.write("vambrace.toml", b"[gateway]\nprot = 5\n");
    let bad = reloaded(&world);
    let place = format!("{}:2:1: unknown field `prot`", world.dir.join("vambrace.toml").display());
    assert!(bad.contains(&format!("the new configuration was not taken: {place}")), "{bad}");
    assert!(world.log().contains(&place), "{}", world.log());
    world.write("vambrace.toml", b"# a name\n[defaults.sandbox]\nlimits = { timeout = \"soon\" }\n");
    let value = reloaded(&world);
    assert!(value.contains("vambrace.toml:3:12: defaults.sandbox.limits.timeout"), "{value}");
    let refused = world.events("config.refused");
    assert_eq!(refused.len(), 2);
    assert!(refused[0]["error"].as_str().unwrap().contains(&place), "{}", refused[0]);

    kill(Pid::from_raw(world.gateway_pid()), Signal::SIGTERM).unwrap();
    assert_eq!(world.told(), "STOPPING=1\nSTATUS=stopping\n");
    world.stop(Signal::SIGTERM);
}

#[test]
fn a_reload_changes_what_is_allowed_and_keeps_connections() {
    let world = World::new(User::Ordinary).config("[gateway]\nhosts = []\n").managed().start();
    let mut ws = world.connect();
    let quick = json!({"command": ["true"], "profile": "quick"});
    assert_eq!(ws.call("exec.run", quick.clone())["ok"], false);

    world.write("vambrace.toml", b"[profiles.quick]\nlimits = { timeout = \"9s\" }\n");
    assert!(!reloaded(&world).contains(';'));
    assert_eq!(ws.call("exec.run", quick.clone())["payload"]["exitCode"], 0);

    // All or nothing: a profile that is gone beside a key that is wrong is still there.
    world.write("vambrace.toml", b"[defaults.sandbox]\nnetwork = \"everything\"\n");
    assert!(reloaded(&world).contains("not taken"));
    assert_eq!(ws.call("exec.run", quick.clone())["payload"]["exitCode"], 0);
    world.write("vambrace.toml", b"");
    reloaded(&world);
    assert_eq!(ws.call("exec.run", quick)["ok"], false);
    assert_eq!(world.events("config.reloaded").len(), 2);
}

#[test]
fn a_configuration_that_is_written_after_the_start_is_read_too() {
    let world = World::new(User::Ordinary).managed().start();
    assert_ne!(world.run(&["exec", "--profile", "quick", "--", "true"]).code, 0);

    world.write("home/.config/vambrace/vambrace.toml", b"[profiles.quick]\nnetwork = \"none\"\n");
    assert!(!reloaded(&world).contains(';'));

    assert_eq!(world.run(&["exec", "--profile", "quick", "--", "true"]).code, 0);
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_taken() {
    let world = World::new(User::Ordinary).config("[gateway]\nhosts = []\n").managed().start();
    let text = "[gateway]\nbind = \"::1\"\n[journal]\njournald = \"off\"\n[profiles.quick]\nnetwork = \"none\"\n";
    world.write("vambrace.toml", text.as_bytes());
    let said = reloaded(&world);
    assert!(said.ends_with("; needs a restart: gateway.bind, journal.journald"), "{said}");
    assert_eq!(world.run(&["exec", "--profile", "quick", "--", "true"]).code, 0);

    // Half of it would be a configuration that nobody has looked at.
    world.write("vambrace.toml", b"[gateway.auth]\nmode = \"none\"\n");
    let said = reloaded(&world);
    assert!(said.contains("gateway.auth.mode needs a restart; nothing was changed"), "{said}");
    assert_eq!(world.run(&["exec", "--profile", "quick", "--", "true"]).code, 0);
}

#[test]
fn who_is_no_operator_any_more_loses_the_connection_and_its_commands() {
    assert!(am_root(), "another user is needed: run this as root");
    let world = World::new(User::Root).under_systemd().config("# nothing\n").managed().start();
    fs::set_permissions(world.dir.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = world.dir.join("run/vambrace/gateway.sock");
    let run = || {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(env!("CARGO_BIN_EXE_vambrace"));
        command.env_clear().env("RUNTIME_DIRECTORY", socket.parent().unwrap()).env("HOME", "/nonexistent");
        command.args(["exec", "--", "sleep", "3600"]).uid(61298).gid(61298).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // The folder is ours alone until there is somebody to be let in.
    assert_ne!(run().wait_with_output().unwrap().status.code(), Some(0));
    world.write("vambrace.toml", b"[gateway.auth]\noperators = [61298]\n");
    assert!(!reloaded(&world).contains(';'));
    let child = run();
    eventually("it runs", || world.status()["runs"] == 1);

    world.write("vambrace.toml", b"[gateway.auth]\noperators = []\n");
    reloaded(&world);

    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(125), "{ended:?}");
    eventually("its command is gone", || world.status()["runs"] == 0);
    let again = run().wait_with_output().unwrap();
    assert_eq!(again.status.code(), Some(125), "{again:?}");
    assert_eq!(world.exec(&["true"]).code, 0);
}

#[test]
fn the_watchdog_is_fed_while_requests_are_answered_and_no_longer() {
    let world = World::new(User::Ordinary).variable("WATCHDOG_USEC", Path::new("2000000")).managed().start();
    for _ in 0..3 {
        assert_eq!(world.told(), "WATCHDOG=1\n");
    }
    // Nobody comes through this door any more.
    fs::remove_file(world.state().join("run/gateway.sock")).unwrap();
    let silent = || world.log().matches("the watchdog is not fed").count();
    eventually("it says so", || silent() >= 3);
    let mut fed = 0;
    while receive_now(&world).is_some() {
        fed += 1;
    }
    assert!(fed <= 1, "fed {fed} times though the door was gone");
}

/// What the service manager has been told already.
fn receive_now(world: &World) -> Option<String> {
    let manager = world.manager();
    manager.set_nonblocking(true).unwrap();
    let said = receive(manager).ok();
    manager.set_nonblocking(false).unwrap();
    said
}

#[test]
fn requests_that_wait_for_an_operator_still_wait_after_a_restart() {
    let mut world = World::new(User::Root).config("[gateway.auth]\nlocal_trust = \"off\"\n").start();
    let device = Device::new(7);
    let shared = json!({"token": world.token()});
    let (_, refused) = device.connect(&world, &["operator.read"], shared.clone());
    let request = refused["error"]["details"]["requestId"].as_str().unwrap().to_owned();

    // As the watchdog ends it.
    world.stop(Signal::SIGABRT);
    world.start_again();

    world.run(&["devices", "approve", &request]).exits(0);
    let (_, hello) = device.connect(&world, &["operator.read"], shared);
    assert_eq!(hello["ok"], true, "{hello}");
}

/// Gives a program these sockets as a service manager does, and becomes it. A gateway that should have refused them, and
/// serves, ends by the alarm.
const GIVE: &str = r#"
import os, signal, socket, sys
signal.alarm(60)
sockets, names = [], []
for word in sys.argv[1].split(","):
    name, kind, place = word.split("=")
    family = socket.AF_UNIX if kind.startswith("unix") else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if kind.endswith("dgram") else socket.SOCK_STREAM)
    made.bind(place if family == socket.AF_UNIX else ("127.0.0.1", int(place)))
    if kind in ("tcp", "unix"):
        made.listen()
    if family == socket.AF_UNIX:
        os.chmod(place, 0o666)
    sockets.append(made.detach())
    names.append(name)
high = [os.dup2(number, 100 + at) for at, number in enumerate(sockets)]
os.closerange(3, 100)
for at, number in enumerate(high):
    os.dup2(number, 3 + at, inheritable=True)
os.closerange(100, 200)
os.environ.update(LISTEN_FDS=str(len(high)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(names))
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// The gateway of a world with doors that were opened for it.
fn with_doors(world: &World, doors: &str, arguments: &[&str]) -> Command {
    let gateway = world.command(&[&["gateway"], arguments].concat());
    let mut command = world.bare_command("python3");
    command.args(["-c", GIVE, doors]).arg(gateway.get_program()).args(gateway.get_args());
    command.envs(gateway.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn doors_that_were_opened_for_it_are_served_and_left_standing() {
    let world = World::new(User::Ordinary).under_systemd();
    world.make_dir("run/vambrace");
    let (manager, told) = world.listen_as_manager();
    let (socket, port) = (world.dir.join("run/vambrace/gateway.sock"), free_port());
    let doors = format!("vambrace=unix={},vambrace=tcp={port}", socket.display());
    let mut command = with_doors(&world, &doors, &["--port", &port.to_string()]);
    let child = command.env("NOTIFY_SOCKET", &manager).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut gateway = crate::world::Spawned(child);
    let said = receive(&told).unwrap();
    assert!(said.contains(&format!("READY=1\nSTATUS=listening on 127.0.0.1:{port}")), "{said}");

    assert_eq!(world.exec(&["echo", "through it"]).exits(0), "through it\n");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(gateway.stop(Signal::SIGTERM).success());
    // The service manager's own, who goes on listening there.
    assert!(socket.exists());
}

#[test]
fn doors_that_the_configuration_does_not_name_are_refused_and_named() {
    let world = World::new(User::Ordinary).under_systemd();
    world.make_dir("run/vambrace");
    let (port, other) = (free_port(), free_port());
    let [socket, elsewhere] =
        ["run/vambrace/gateway.sock", "run/other.sock"].map(|p| world.dir.join(p).display().to_string());
    for (doors, complaint) in [
        (format!("vambrace=tcp={other}"), format!("127.0.0.1:{other}, but the configuration says 127.0.0.1:{port}")),
        (format!("vambrace=unix={elsewhere}"), format!("a door at {elsewhere}, but ours is {socket}")),
        (format!("vambrace=dgram={port}"), "no stream socket".into()),
        (format!("vambrace=unixdgram={socket}"), "no stream socket".into()),
        (format!("vambrace=silent={port}"), "a socket that does not listen".into()),
        (format!("other=tcp={port}"), "a socket named \"other\", but ours are named \"vambrace\"".into()),
    ] {
        let (manager, told) = world.listen_as_manager();
        let mut command = with_doors(&world, &doors, &["--port", &port.to_string()]);
        let ran = crate::world::finish(command.env("NOTIFY_SOCKET", &manager).stdin(Stdio::null()));
        ran.fails(1, &complaint);
        assert!(receive(&told).unwrap().starts_with("STATUS=failed: the service manager gave us "));
        for path in [&socket, &elsewhere] {
            let _ = fs::remove_file(path);
        }
    }
}

#[test]
fn a_start_that_fails_says_why_in_its_status() {
    let mut world = World::new(User::Ordinary).start();
    let status = |world: &World, arguments: &[&str]| {
        let (manager, told) = world.listen_as_manager();
        let ran = crate::world::finish(world.command(arguments).env("NOTIFY_SOCKET", manager).stdin(Stdio::null()));
        assert_eq!(ran.code, 1, "{ran:?}");
        let said = receive(&told).unwrap();
        assert!(said.starts_with("STATUS=failed: ") && said.matches('\n').count() == 1, "{said}");
        said
    };
    let second = status(&world, &["gateway", "--port", "0"]);
    assert!(second.contains("another gateway"), "{second}");
    world.stop(Signal::SIGTERM);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let occupied = status(&world, &["gateway", "--port", &port]);
    assert!(occupied.contains(&format!("cannot listen on 127.0.0.1:{port}: Address already in use")), "{occupied}");

    let world = World::new(User::Ordinary).config("[gateway]\nport = \"x\"\n");
    let wrong = status(&world, &["gateway"]);
    assert!(wrong.contains("vambrace.toml:2:8"), "{wrong}");

    if am_root() {
        let world = World::new(User::Ordinary);
        fs::create_dir(world.state()).unwrap();
        let foreign = status(&world, &["gateway", "--port", "0"]);
        assert!(foreign.contains("belongs to uid 0"), "{foreign}");
    }
}

#[test]
fn the_gateway_is_confined_by_its_own_hand_in_every_thread_and_still_does_its_work() {
    for user in crate::world::USERS {
        let world = World::running(user);
        for task in fs::read_dir(format!("/proc/{}/task", world.gateway_pid())).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let says = |line: &str| status.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == line);
            assert!(says("NoNewPrivs: 1") && says("Seccomp: 2"), "{status}");
            // CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE and CAP_IPC_LOCK (linux/capability.h).
            let may_be = 1u64 << 2 | 1 << 10 | 1 << 14;
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                let line = status.lines().find(|l| l.starts_with(set)).unwrap();
                let held = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
                assert_eq!(held & !may_be, 0, "{user:?} {line}");
            }
        }
        // It cannot start a runner itself, and gets another all the same.
        let first = world.runner_pid();
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        eventually("another runner is there", || {
            let now = &world.status()["runner"];
            now["connected"] == true && now["pid"] != first
        });
        assert_eq!(world.exec(&["echo", "again"]).exits(0), "again\n");
    }
}

#[test]
fn the_gateway_reads_its_own_places_and_not_its_neighbours() {
    for user in crate::world::USERS {
        let world = World::new(user);
        let first = Certificate::new(&world, "first", None);
        let tls = |certificate: &Path, key: &Path| {
            let (certificate, key) = (certificate.display(), key.display());
            format!("[gateway.tls]\nenabled = true\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
        };
        let world = world.config(&tls(&first.pem, &first.key)).managed().start();

        // The twin: another file where the first one was.
        let second = Certificate::new(&world, "second", None);
        world.write("vambrace.toml", tls(&second.pem, &second.key).as_bytes());
        assert!(!reloaded(&world).contains(';'));

        // A file that this user may read, in a folder that is nothing of the gateway's.
        let neighbour = World::new(user);
        let stray = Certificate::new(&neighbour, "stray", None);
        assert!(world.bare_command("cat").arg(&stray.key).stdout(Stdio::null()).status().unwrap().success());
        world.write("vambrace.toml", tls(&stray.pem, &stray.key).as_bytes());
        let said = reloaded(&world);
        assert!(said.contains("stray.pem: Permission denied"), "{said}");
    }
}

#[test]
fn a_stop_amid_commands_ends_them_and_is_over_soon() {
    let mut world = World::new(User::Ordinary).managed().start();
    let mut ws = world.connect();
    for _ in 0..8 {
        ws.ask("exec.run", json!({"command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]}));
        ws.event("exec.started");
    }
    let begun = std::time::Instant::now();
    world.stop(Signal::SIGTERM);
    assert!(begun.elapsed() < PATIENCE.min(std::time::Duration::from_secs(10)), "{:?}", begun.elapsed());
    assert!(UnixStream::connect(world.state().join("run/gateway.sock")).is_err());
    world.start_again();
    let ends = world.journal().into_iter().filter(|e| e["event"].as_str().unwrap().starts_with("exec.f"));
    let ends: Vec<_> = ends.map(|e| (e["event"].clone(), e["ending"].clone(), e["error"].clone())).collect();
    assert_eq!(ends.len(), 8, "{ends:?}");
}

/// The door is shut, but who came through it before is answered: a restart turns nobody away.
#[test]
fn who_was_let_in_before_a_stop_and_asks_after_it_is_answered() {
    use std::io::{Read, Write};
    let world = World::new(User::Ordinary).start();
    let ask = |mut stream: TcpStream| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_string(&mut answer).map(|_| answer).unwrap_or_default()
    };
    let address = ("127.0.0.1", world.port());
    let silent = TcpStream::connect(address).unwrap();
    // They are accepted in turn: when this one is answered, the silent one is inside.
    assert!(ask(TcpStream::connect(address).unwrap()).starts_with("HTTP/1.1 200"));

    kill(Pid::from_raw(world.gateway_pid()), Signal::SIGTERM).unwrap();
    eventually("the door is shut", || TcpStream::connect(address).is_err());
    assert!(ask(silent).starts_with("HTTP/1.1 200"));
}

/// Deadlines, uptime and evidence do not depend on what the host's clock is set to; the order of records is their number's.
#[test]
fn a_clock_that_is_set_forth_and_back_ends_no_command_and_loses_no_record() {
    let world = World::new(User::Ordinary);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/set_clock.c");
    let (shim, offset) = (world.dir.join("set_clock.so"), world.dir.join("offset"));
    let built = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&shim).arg(source).status();
    assert!(built.is_ok_and(|s| s.success()), "cannot build tests/set_clock.c: install gcc and libc6-dev");
    let world = world.variable("LD_PRELOAD", &shim).variable("SET_CLOCK", &offset);
    let mut world = world.config("[defaults.sandbox]\nscope = \"agent\"\n");
    world.start_again();
    world.exec(&["sh", "-c", "echo kept > ~/file"]).exits(0);
    let token = world.token();
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["cat"], "stdin": true, "timeoutMs": 50_000}));
    let run = ws.event("exec.started")["runId"].clone();

    let days = 86_400;
    for set in [400 * days, -400 * days, 10 * 365 * days, 0] {
        fs::write(&offset, set.to_string()).unwrap();
        // What runs goes on, what is asked is answered, by those who were here and those who come.
        ws.ask("exec.input", json!({"runId": run, "data": "aGVyZQo=", "eof": false}));
        assert_eq!(ws.event("exec.output")["data"], "aGVyZQo=");
        assert_eq!(world.connect().call("health", json!({}))["ok"], true);
        assert_eq!(world.exec(&["sh", "-c", "cat ~/file"]).exits(0), "kept\n");
        assert!(world.status()["uptimeMs"].as_u64().unwrap() < 600_000, "{}", world.status());
        assert!(world.run(&["health"]).code == 0 && world.token() == token);
        // It is the clock that records show: what is set is what a reader sees.
        let recorded = world.journal().last().unwrap()["ts"].as_i64().unwrap();
        assert!((recorded - crate::device::now() - 1000 * set).abs() < 1000 * days, "{recorded} at {set}");
    }
    ws.ask("exec.input", json!({"runId": run, "data": "", "eof": true}));
    assert_eq!(ws.response(&id)["payload"]["exitCode"], 0);
    let numbers: Vec<u64> = world.journal().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    world.run(&["journal", "verify"]).exits(0);

    // A start with a clock that is behind what was written, and after it one that is right again.
    for set in [-400 * days, 0] {
        world.stop(Signal::SIGTERM);
        fs::write(&offset, set.to_string()).unwrap();
        world.start_again();
        assert_eq!(world.exec(&["sh", "-c", "cat ~/file"]).exits(0), "kept\n");
        assert_eq!(world.token(), token);
        world.run(&["journal", "verify"]).exits(0);
    }
}
