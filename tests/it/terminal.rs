//! A command with a terminal: what it is inside, what becomes of ours outside.

use crate::world::*;
use base64::Engine;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A terminal that a person would sit at, with the command line running in it.
struct Seat {
    master: File,
    /// Kept open, so that the terminal outlives whoever uses it.
    terminal: File,
    shown: Receiver<Vec<u8>>,
    /// Everything that was shown, and how much of it was asked about.
    text: Vec<u8>,
    seen: usize,
    child: Child,
}

impl Seat {
    /// Begins `vambrace exec --tty` with these arguments, in a terminal of 33 rows and 101 columns.
    fn begin(world: &World, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let terminal = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        let master = File::from(master);
        resize(&master, 33, 101);
        let inner = world.command(&[&["exec", "--tty"], arguments].concat());
        // In a session of its own, whose terminal it is: as a login has it.
        let mut outer = world.bare_command("setsid");
        outer.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let child = outer.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (send, shown) = channel();
        let mut reader = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = reader.read(&mut bytes) {
                if n == 0 || send.send(bytes[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Seat { master, terminal, shown, text: Vec::new(), seen: 0, child }
    }

    fn sh(world: &World, line: &str) -> Self {
        Seat::begin(world, &["--", "sh", "-c", line])
    }

    /// Waits until these words are shown, after what was waited for before; gives what came up to their end.
    #[track_caller]
    fn shows(&mut self, words: &str) -> String {
        loop {
            let rest = &self.text[self.seen..];
            if let Some(at) = rest.windows(words.len()).position(|part| part == words.as_bytes()) {
                let until = self.seen + at + words.len();
                let text = String::from_utf8_lossy(&self.text[self.seen..until]).into_owned();
                self.seen = until;
                return text;
            }
            match self.shown.recv_timeout(PATIENCE) {
                Ok(bytes) => self.text.extend(bytes),
                Err(_) => panic!("{words:?} was never shown: {:?}", String::from_utf8_lossy(rest)),
            }
        }
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end; gives the exit code and all that was shown.
    fn ends(&mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().unwrap();
        // Written at the end, after all that was written before.
        self.terminal.write_all(b"<end>").unwrap();
        self.shows("<end>");
        let text = String::from_utf8_lossy(&self.text).replace("<end>", "");
        (status.code().unwrap_or_else(|| -status.signal().unwrap()), text)
    }

    /// Whether every key is passed on as it is.
    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: &File, rows: u16, columns: u16) {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn without_a_terminal_there_is_none_to_lend() {
    for user in USERS {
        let world = World::running(user);
        world.run(&["exec", "--tty", "--", "touch", "/workspace/ran"]).fails(125, "--tty needs a terminal");
        world.run_with_input(&["exec", "--tty", "--", "true"], b"x").fails(125, "--tty needs a terminal");
        assert!(!world.workspace().join("ran").exists());
        assert!(world.events("exec.permitted").is_empty());
        // And a command without --tty has none, also where ours is one.
        assert_eq!(world.sh("test -t 0 || test -t 1 || test -t 2 || echo none; tty").stdout, "none\nnot a tty\n");
    }
}

#[test]
fn a_command_has_a_terminal_of_its_own_of_our_size_and_sees_no_other() {
    for user in USERS {
        let world = World::running(user);
        let mut seat = Seat::sh(
            &world,
            "test -t 0 && test -t 1 && test -t 2 && tty; stty size; ls /dev/pts; ls -l /proc/self/fd/0; \
             echo to-tty > /dev/tty; echo err >&2; ls /dev | grep -c -e console -e tty[0-9]; exit 5",
        );
        let (code, text) = seat.ends();
        assert_eq!(code, 5, "{user:?}: {text}");
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[..3], ["/dev/pts/0", "33 101", "0  ptmx"].map(|l| l), "{user:?}: {text}");
        assert!(lines[3].ends_with("-> /dev/pts/0"), "{text}");
        assert_eq!(lines[4..], ["to-tty", "err", "0", ""], "{text}");
        let finished = world.events("exec.finished");
        assert_eq!((&finished[0]["exit"], &finished[0]["ending"]), (&json!(5), &json!("exited")));
    }
}

#[test]
fn a_change_of_our_size_reaches_the_command() {
    for user in USERS {
        let world = World::running(user);
        let mut seat = Seat::sh(&world, "trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done");
        seat.shows("ready");
        for (rows, columns) in [(50, 132), (1, 1), (4000, 4000)] {
            resize(&seat.master, rows, columns);
            seat.shows(&format!("{rows} {columns}\r\n"));
        }
        // A terminal that does not know its size has one of one row.
        resize(&seat.master, 0, 0);
        seat.shows("1 1\r\n");
    }
}

#[test]
fn keys_are_signals_inside_and_not_here() {
    for user in USERS {
        let world = World::running(user);
        let mut seat = Seat::sh(&world, "trap 'echo got-int; exit 7' INT; echo ready; while :; do sleep 0.01; done");
        seat.shows("ready");
        assert!(seat.is_raw());
        seat.types("\x03");
        seat.shows("got-int");
        assert_eq!(seat.ends().0, 7, "{user:?}");
        assert!(!seat.is_raw());

        // Without a trap each ends the command by its signal.
        for (key, signal) in [("\x03", 2), ("\x1c", 3)] {
            let mut seat = Seat::sh(&world, "echo ready; exec sleep 1000");
            seat.shows("ready");
            seat.types(key);
            assert_eq!(seat.ends().0, 128 + signal, "{user:?}");
        }
        // The end of input is one key as well, and lines are edited by the terminal inside.
        let mut seat = Seat::sh(&world, "cat; echo after; read x; echo [$x]");
        seat.types("hi\r");
        seat.shows("hi\r\nhi\r\n");
        seat.types("\x04");
        seat.shows("after");
        seat.types("wrong\x15righ\x7fht\r");
        seat.shows("[right]\r\n");
        assert_eq!(seat.ends().0, 0);
    }
}

#[test]
fn our_terminal_is_as_it_was_however_it_ends() {
    for user in USERS {
        let mut world = World::new(user).config("[defaults.sandbox.limits]\noutput = \"1M\"\n").start();
        let before = |seat: &Seat| assert!(!seat.is_raw());
        for (arguments, code, words) in [
            (&["--", "true"][..], 0, ""),
            (&["--", "no-such-command"], 127, "command not found"),
            (&["--timeout", "300ms", "--", "sleep", "1000"], 124, "ran out of time"),
            (&["--profile", "none-such", "--", "true"], 126, "there is no profile"),
            (&["--", "yes"], 137, "wrote more than it may"),
            (&["--", "sh", "-c", "kill -9 $$"], 137, ""),
        ] {
            let mut seat = Seat::begin(&world, arguments);
            let (ended, text) = seat.ends();
            let last = &text[text.len().saturating_sub(400)..];
            assert!(ended == code && last.contains(words), "{user:?} {arguments:?} {ended}: {last}");
            // An error begins at the left of a line, as the terminal is its own again when it is said.
            assert!(words.is_empty() || last.contains("error: ") && last.contains("hint: "), "{last}");
            before(&seat);
        }
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let mut seat = Seat::sh(&world, "echo ready; sleep 1000");
            seat.shows("ready");
            assert!(seat.is_raw());
            world.stop(signal);
            let (code, text) = seat.ends();
            assert!(code != 0 && text.contains("error: "), "{user:?} {signal}: {code} {text}");
            before(&seat);
            world.start_again();
        }
    }
}

#[test]
fn nothing_can_be_typed_into_a_terminal_from_inside() {
    for user in USERS {
        let world = World::running(user);
        world.attack(&["tiocsti"]);
        for act in ["tiocsti", "tioclinux"] {
            let mut seat = Seat::begin(&world, &["--", "/workspace/attacks", act]);
            let (code, text) = seat.ends();
            assert_eq!((code, text.as_str()), (1, "EPERM\r\n"), "{user:?} {act}");
        }
        // Through another descriptor, and with other bits set above those that the kernel reads.
        let program = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for fd in (0, os.open('/dev/tty', os.O_RDWR), os.open('/dev/pts/0', os.O_RDWR)):
    for call in (0x5412, 0xffffffff00005412, 0x100005412, 0x541C, 0xffffffff0000541C):
        r = libc.ioctl(fd, ctypes.c_ulong(call), b'i')
        print(r, ctypes.get_errno())
";
        world.write("state-workspaces/main/type.py", program.as_bytes());
        let mut seat = Seat::begin(&world, &["--", "python3", "type.py"]);
        let (_, text) = seat.ends();
        assert_eq!(text, "-1 1\r\n".repeat(15), "{user:?}");
        // What its output asks of our terminal is for that to answer; nothing is answered in between.
        let mut seat = Seat::sh(&world, "printf '\\033[6n\\033]0;x\\007'; echo done");
        let (_, text) = seat.ends();
        assert_eq!(text, "\u{1b}[6n\u{1b}]0;x\u{7}done\r\n");
    }
}

#[test]
fn a_shell_has_job_control() {
    for user in USERS {
        let world = World::running(user);
        let mut seat = Seat::begin(&world, &["--", "bash", "--norc", "-i"]);
        seat.types("PS1='at> '\r");
        seat.shows("\nat> ");
        seat.types("sleep 1000 & echo beg''un\r");
        seat.shows("begun");
        seat.types("jobs\r");
        seat.shows("Running");
        seat.types("fg\r");
        seat.shows("sleep 1000\r\n");
        // Stopped by a key once it is in front, which the terminal knows.
        eventually("it is in front", || {
            seat.master.write_all(b"\x1a").unwrap();
            while let Ok(bytes) = seat.shown.recv_timeout(std::time::Duration::from_millis(50)) {
                seat.text.extend(bytes);
            }
            String::from_utf8_lossy(&seat.text[seat.seen..]).contains("Stopped")
        });
        // To bash it is stopped until it was seen to die: it would wait for nothing, and not leave.
        seat.types("\rkill %1; while [ -n \"$(jobs -s)\" ]; do :; done; wait; echo ki''lled\r");
        seat.shows("killed");
        seat.types("exit 9\r");
        let (code, text) = seat.ends();
        assert_eq!(code, 9, "{user:?}: {text}");
        assert!(!text.contains("no job control") && !text.contains("cannot set terminal"), "{text}");
    }
}

#[test]
fn all_output_arrives_before_the_end() {
    for user in USERS {
        let world = World::running(user);
        for _ in 0..5 {
            let mut seat = Seat::sh(&world, "seq 1 20000; sleep 1000 & exit 0");
            let (code, text) = seat.ends();
            assert_eq!(code, 0);
            assert_eq!(text.lines().count(), 20_000, "{user:?}: {:?}", &text[text.len().saturating_sub(50)..]);
        }
    }
}

/// The runner that looks only when the command has come and gone finds its terminal, its end and that of its pipes at once.
#[test]
fn all_output_arrives_though_the_runner_looks_when_all_is_over() {
    let world = World::running(User::Ordinary);
    let runner = world.runner_pid();
    let state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
    };
    let send = |pid: i32, signal| kill(Pid::from_raw(pid), signal).unwrap();
    for round in 0..20 {
        // The init that waits for the next command, with its walls around it.
        world.exec(&["true"]).exits(0);
        world.rest();
        let children = std::fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
        let init = children.split_whitespace().next().unwrap().parse::<i32>().unwrap();
        let mut ws = world.connect();
        send(init, Signal::SIGSTOP);
        eventually("it stands", || state(init) == 'T');
        let id = ws.ask("exec.run", json!({"command": ["echo", "early"], "terminal": {"rows": 24, "columns": 80}}));
        ws.event("exec.started");
        eventually("the runner waits", || state(runner) == 'S');
        send(runner, Signal::SIGSTOP);
        eventually("it stands", || state(runner) == 'T');
        send(init, Signal::SIGCONT);
        // Another was taken for this run, or it ends here.
        let mut looks = 0;
        while !matches!(state(init), 'Z' | '-') && looks < 500 {
            looks += 1;
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        send(runner, Signal::SIGCONT);

        let (text, answer) = follow(&mut ws, &id);
        assert_eq!(answer["payload"]["exitCode"], 0, "{answer}");
        assert_eq!(text, "early\r\n", "round {round}, the init after {looks} looks: {}", state(init));
    }
}

#[test]
fn a_command_whose_client_is_gone_goes_as_well() {
    for (user, mark) in [(User::Root, mark(86601)), (User::Ordinary, mark(86602))] {
        let world = World::running(user);
        let mut seat = Seat::sh(&world, &format!("trap '' HUP INT; echo ready; sleep {mark}; sleep {mark}"));
        seat.shows("ready");
        let clients: Vec<i32> =
            processes_with("--tty").into_iter().filter(|pid| processes_with(mark).contains(pid)).collect();
        assert!(!clients.is_empty());
        for pid in clients {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        eventually("it is gone", || processes_with(mark).is_empty());
        assert_eq!(world.events("exec.finished")[0]["ending"], "cancelled");
    }
}

#[test]
fn secrets_are_covered_in_what_a_terminal_shows() {
    for user in USERS {
        let world = World::running(user);
        let one = "canary-of-one-line-4711-abcdef";
        let two = "canary-first-line-0815\ncanary-second-line-0816\ncanary-third-line-0817";
        for (name, value) in [("ONE", one), ("TWO", two)] {
            world.run_with_input(&["secrets", "set", name, "--agent", "main"], value.as_bytes()).exits(0);
        }
        for printer in [
            "printf '%s\\n' \"$ONE\"",
            "printf '%s' \"$ONE\" | xxd -p || printf '%s' \"$ONE\" | od -An -tx1",
            "printf '%s' \"$ONE\" | base64 -w 20",
            "printf '%s\\n' \"$TWO\"",
            "stty raw; printf '%s' \"$TWO\"; stty -raw",
        ] {
            let line = format!("echo before; {printer}; echo; echo after");
            let mut seat =
                Seat::begin(&world, &["--secret-env", "ONE", "--secret-env", "TWO", "--", "sh", "-c", &line]);
            let (code, text) = seat.ends();
            assert!(code == 0 && text.contains("before") && text.contains("after"), "{user:?} {printer}: {text}");
            let shown = text.replace(['\r', '\n'], "");
            for part in
                ["canary-of-one", "4711-abcdef", "canary-second", "third-line", "Y2FuYXJ5LW9m", "63616e6172792d6f66"]
            {
                assert!(!shown.contains(part), "{user:?} {printer} shows {part}: {text:?}");
            }
        }
    }
}

/// What was output on one stream, in order, until the response to this request.
fn follow(ws: &mut Ws, id: &str) -> (String, Value) {
    let mut text = Vec::new();
    loop {
        let frame = ws.read();
        if frame["event"] == "exec.output" {
            assert_eq!(frame["payload"]["stream"], "stdout", "a terminal has one stream");
            let data = frame["payload"]["data"].as_str().unwrap();
            text.extend(base64::engine::general_purpose::STANDARD.decode(data).unwrap());
        } else if frame["type"] == "res" && frame["id"] == id {
            return (String::from_utf8_lossy(&text).into_owned(), frame);
        }
    }
}

#[test]
fn over_the_wire_a_terminal_has_a_size_that_makes_sense_and_one_owner() {
    for user in USERS {
        let world = World::running(user);
        let (mut one, mut two) = (world.connect(), world.connect());
        let bad = [
            json!({}),
            json!({"rows": 24}),
            json!({"rows": 0, "columns": 80}),
            json!({"rows": 24, "columns": 0}),
            json!({"rows": 4097, "columns": 80}),
            json!({"rows": 24, "columns": 65_535}),
            json!({"rows": -1, "columns": 80}),
            json!({"rows": 70_000, "columns": 80}),
            json!({"rows": "24", "columns": 80}),
            json!({"rows": 24.5, "columns": 80}),
            json!({"rows": 24, "columns": 80, "pixels": 1}),
            json!([24, 80, 1]),
            json!("24x80"),
            json!(true),
        ];
        for size in &bad {
            let refused = one.call("exec.run", json!({"command": ["true"], "terminal": size}));
            assert_eq!(refused["error"]["code"], "INVALID_REQUEST", "{size}: {refused}");
        }
        assert!(world.events("exec.permitted").is_empty());

        let line = "echo out; echo err >&2; stty size; read x; stty size; cat";
        let ask = json!({"command": ["sh", "-c", line], "stdin": true, "terminal": {"rows": 24, "columns": 80}});
        let id = one.ask("exec.run", ask);
        let run = one.event("exec.started")["runId"].clone();
        for size in bad.iter().filter(|size| size.is_object()) {
            let mut params = size.clone();
            params["runId"] = run.clone();
            assert_eq!(two.call("exec.resize", params)["error"]["code"], "INVALID_REQUEST", "{size}");
        }
        let foreign = two.call("exec.resize", json!({"runId": run, "rows": 9, "columns": 9}));
        assert_eq!(foreign["error"]["details"]["code"], "UNKNOWN_RUN", "{foreign}");
        let foreign = two.call("exec.input", json!({"runId": run, "data": "eAo=", "eof": true}));
        assert_eq!(foreign["error"]["details"]["code"], "UNKNOWN_RUN", "{foreign}");
        one.ask("exec.resize", json!({"runId": run, "rows": 4096, "columns": 4096}));
        // A line, and the end of input as a terminal knows it.
        one.ask("exec.input", json!({"runId": run, "data": "Z28K", "eof": false}));
        one.ask("exec.input", json!({"runId": run, "data": "", "eof": true}));
        let (text, answer) = follow(&mut one, &id);
        assert_eq!(answer["payload"]["exitCode"], 0, "{text}");
        // The size is changed before or after the first look at it; the echo of the line comes where it is typed.
        assert!(text.contains("out\r\n") && text.contains("err\r\n") && text.ends_with("4096 4096\r\n"), "{text:?}");

        // A size means nothing to a command without a terminal.
        let id = one.ask("exec.run", json!({"command": ["sh", "-c", "cat; tty"], "stdin": true}));
        let run = one.event("exec.started")["runId"].clone();
        assert_eq!(one.call("exec.resize", json!({"runId": run, "rows": 24, "columns": 80}))["ok"], true);
        one.ask("exec.input", json!({"runId": run, "data": "", "eof": true}));
        assert_eq!(follow(&mut one, &id).0, "not a tty\n");
        let gone = one.call("exec.resize", json!({"runId": run, "rows": 24, "columns": 80}));
        assert_eq!(gone["error"]["details"]["code"], "UNKNOWN_RUN");
    }
}

#[test]
fn an_end_of_input_that_comes_before_the_terminal_is_not_lost() {
    for user in USERS {
        let world = World::running(user);
        let mut ws = world.connect();
        for _ in 0..20 {
            let ask = json!({"command": ["cat"], "stdin": true, "terminal": {"rows": 24, "columns": 80}});
            let id = ws.ask("exec.run", ask);
            let run = ws.event("exec.started")["runId"].clone();
            ws.ask("exec.input", json!({"runId": run, "data": "aGkK", "eof": true}));
            let (text, answer) = follow(&mut ws, &id);
            assert_eq!((&answer["payload"]["exitCode"], text.matches("hi\r\n").count()), (&json!(0), 2), "{text:?}");
        }
    }
}

#[test]
fn a_command_that_holds_all_terminals_it_gets_leaves_others_theirs() {
    for user in USERS {
        let world = World::running(user);
        let program = "
import os, sys
held = 0
try:
    while True: os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); held += 1
except OSError: print(held, flush=True); sys.stdin.read()";
        let mut ws = world.connect();
        let id = ws.ask("exec.run", json!({"command": ["python3", "-c", program], "stdin": true}));
        let run = ws.event("exec.started")["runId"].clone();
        let said = base64::engine::general_purpose::STANDARD.decode(ws.event("exec.output")["data"].as_str().unwrap());

        let mut seat = Seat::sh(&world, "tty; exit 3");
        let (code, text) = seat.ends();

        assert_eq!((code, text.as_str()), (3, "/dev/pts/0\r\n"), "{user:?}");
        // Enough for whoever splits a screen.
        assert_eq!(said.unwrap(), b"64\n", "{user:?}");
        ws.ask("exec.input", json!({"runId": run, "data": "", "eof": true}));
        assert_eq!(ws.response(&id)["payload"]["exitCode"], 0);
    }
}
