//! Bounds on one run: each is reached, named, and nobody else's.

use crate::world::*;
use base64::Engine;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A command of somebody else's, which must not notice anything.
struct Neighbour {
    ws: Ws,
    id: String,
    run: Value,
}

impl Neighbour {
    fn begin(world: &World) -> Self {
        let mut ws = world.connect();
        let id = ws.ask("exec.run", json!({"command": ["cat"], "agent": "neighbour", "stdin": true}));
        let run = ws.event("exec.started")["runId"].clone();
        Neighbour { ws, id, run }
    }

    /// It still echoes, and ends when it is told to.
    fn ends_well(mut self) {
        self.ws.ask("exec.input", json!({"runId": self.run, "data": "aGk=", "eof": true}));
        assert_eq!(self.ws.event("exec.output")["data"], "aGk=");
        assert_eq!(self.ws.response(&self.id)["payload"]["ending"], "exited");
    }
}

/// A command that takes what it can get and keeps it until this is dropped.
struct Greedy {
    ws: Ws,
    id: String,
    run: Value,
    /// How much it got.
    got: u64,
}

impl Greedy {
    fn begin(world: &World, program: &str) -> Self {
        let mut ws = world.connect();
        let program = format!("import sys\n{program}\nprint(got, flush=True); sys.stdin.read()");
        let command = json!(["python3", "-c", program]);
        let id = ws.ask("exec.run", json!({"command": command, "agent": "greedy", "stdin": true}));
        let run = ws.event("exec.started")["runId"].clone();
        let said = ws.event("exec.output")["data"].as_str().unwrap().to_owned();
        let said = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(said).unwrap()).unwrap();
        let got = said.trim().parse().unwrap_or_else(|e| panic!("{said}: {e}"));
        Greedy { ws, id, run, got }
    }

    fn end(mut self) {
        self.ws.ask("exec.input", json!({"runId": self.run, "data": "", "eof": true}));
        assert_eq!(self.ws.response(&self.id)["payload"]["exitCode"], 0);
    }
}

/// A small disk of its own in the place of a world's folder: what others write or free elsewhere is no matter here.
struct Disk(PathBuf);

impl Disk {
    fn below(world: &World) -> Self {
        Disk::of_files(world, 1_000_000)
    }

    /// With room for so many files.
    fn of_files(world: &World, files: u32) -> Self {
        assert!(am_root(), "this test mounts a small disk: run `make test` as root");
        let options = format!("size=512m,nr_inodes={files},mode=755");
        let mount = ["-t", "tmpfs", "-o", &options, "none"];
        let mounted = finish(std::process::Command::new("mount").args(mount).arg(&world.dir));
        assert_eq!(mounted.code, 0, "{mounted:?}");
        for folder in ["", "home", "run"] {
            world.make_dir(folder);
        }
        Disk(world.dir.clone())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        finish(std::process::Command::new("umount").arg("-l").arg(&self.0));
    }
}

const DISK: &str = "
[defaults.sandbox.limits]
disk = \"16M\"
scratch = \"64M\"
timeout = \"120s\"
[profiles.kept]
scope = \"shared\"
workspace_access = \"none\"
[profiles.more]
rw = [\"@/more\"]
";

/// A command line under a profile, or the defaults.
fn under<'a>(profile: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["exec"];
    if !profile.is_empty() {
        arguments.extend(["--profile", profile]);
    }
    arguments.push("--");
    arguments.extend(command);
    arguments
}

#[test]
fn what_one_run_adds_to_the_disk_is_bounded_wherever_it_writes() {
    for user in USERS {
        let world = World::new(user);
        let _disk = Disk::below(&world);
        let world = world.config(DISK);
        let more = world.make_dir("more").display().to_string();
        let world = world.start();
        let neighbour = Neighbour::begin(&world);
        for (profile, folder) in [
            ("", "/workspace"),
            ("kept", "/home/agent"),
            ("kept", "/tmp"),
            ("kept", "/workspace"),
            ("more", more.as_str()),
        ] {
            // Less than the bound is nobody's affair.
            let line = format!("head -c 8M /dev/zero > {folder}/some && rm {folder}/some");
            world.run(&under(profile, &["sh", "-c", &line])).exits(0);
            let small = "n=0; while :; do n=$((n+1)); echo x > $0/f$n; done";
            let big = "for n in 1 2 3; do head -c 12M /dev/zero > $0/big$n; done; exec sleep 1000";
            for line in [big, small] {
                let ran = world.run(&under(profile, &["sh", "-c", line, folder]));
                ran.fails(137, "added more to the disk");
                let clean = format!("rm -rf {folder}/big* {folder}/f*");
                world.run(&under(profile, &["sh", "-c", &clean])).exits(0);
            }
        }
        let ended: Vec<Value> =
            world.events("exec.finished").into_iter().filter(|e| e["ending"] == "disk-limit").collect();
        assert_eq!(ended.len(), 10, "{user:?}");
        neighbour.ends_well();
        world.exec(&["true"]).exits(0);
    }
}

#[test]
fn files_that_are_removed_and_still_open_end_the_run_before_the_disk_is_full() {
    for user in USERS {
        let world = World::new(user);
        let _disk = Disk::below(&world);
        // What is on this disk is memory of whoever wrote it.
        let world = world.config(&DISK.replace("timeout", "memory = \"1G\"\ntimeout")).start();
        let hold = "
import os, signal
held = []
while True:
    held.append(open('x', 'wb', 0)); os.unlink('x')
    try: [held[-1].write(bytes(1 << 20)) for n in range(8)]
    except OSError: signal.pause()";
        world.run(&["exec", "--", "python3", "-c", hold]).fails(137, "added more to the disk");
        world.exec(&["sh", "-c", "head -c 8M /dev/zero > some"]).exits(0);
    }
}

#[test]
fn files_count_that_have_nothing_in_them() {
    for user in USERS {
        let world = World::new(user);
        let _disk = Disk::below(&world);
        let world = world.config(DISK).start();
        let neighbour = Neighbour::begin(&world);
        let make = "
import os, time
n = 0
try:
    while True: MAKE; n += 1
except OSError: time.sleep(1000)";
        for act in ["os.mknod('f%d' % n)", "os.mkdir('d%d' % n)", "os.symlink('x', 'l%d' % n)", "os.mkfifo('p%d' % n)"]
        {
            let program = make.replace("MAKE", act);
            world.run(&["exec", "--", "python3", "-c", &program]).fails(137, "added more to the disk");
            world.sh("rm -rf f* d* l* p*").exits(0);
        }
        // Fewer are nobody's affair.
        let few = "import os\nfor n in range(2000): os.mknod('f%d' % n)";
        world.exec(&["python3", "-c", few]).exits(0);
        neighbour.ends_well();
    }
}

#[test]
fn files_that_no_walk_finds_end_the_run_before_there_is_room_for_no_more() {
    for user in USERS {
        let world = World::new(user);
        let _disk = Disk::of_files(&world, 20_000);
        let world = world.config(DISK).start();
        let hold = "
import os, time
for child in range(7):
    if os.fork() == 0:
        try:
            while True: os.open('.', os.O_TMPFILE | os.O_RDWR)
        except OSError: time.sleep(1000)
time.sleep(1000)";
        world.run(&["exec", "--", "python3", "-c", hold]).fails(137, "added more to the disk");
        world.exec(&["touch", "some"]).exits(0);
    }
}

/// Whether the runner has a process that walks a disk: a child of bounded address space.
fn walks(runner: i32) -> bool {
    let children = fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
    let is_walk = |pid: &str| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let bound = limits.lines().find(|line| line.starts_with("Max address space"));
        bound.is_some_and(|line| line.contains(&(512 << 20).to_string()))
    };
    children.split_whitespace().any(is_walk)
}

#[test]
fn a_tree_that_is_long_to_walk_holds_up_nobody() {
    for user in USERS {
        let world = World::new(user);
        let _disk = Disk::below(&world);
        let settings = DISK.replace("timeout", "memory = \"2G\"\ntimeout");
        let world = world.config(&format!("{settings}[profiles.roomy.limits]\ndisk = \"1G\"\n")).start();
        let runner = world.runner_pid();
        let tree = "
import os
for n in range(1500): os.mkdir('d'); os.chdir('d')
for n in range(60_000): os.mkdir(str(n))";
        world.run(&under("roomy", &["python3", "-c", tree])).exits(0);
        // A walk goes by whole seconds.
        let seconds = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let made = seconds();
        eventually("what was made is older than the next command", || seconds() > made);
        let deep = "
import os, signal, sys
print('ready', flush=True); sys.stdin.read(1)
held = [open('file%d' % n, 'wb', 0) for n in range(2)]
for f in held: os.unlink(f.name); f.write(bytes(12 << 20))
signal.pause()";
        let mut ws = world.connect();
        let id = ws.ask("exec.run", json!({"command": ["python3", "-c", deep], "stdin": true}));
        let run = ws.event("exec.started")["runId"].clone();
        ws.event("exec.output");
        ws.ask("exec.input", json!({"runId": run, "data": "eA=="}));
        eventually("the disk is walked", || walks(runner));

        // Looking into that tree takes much longer than all these.
        assert_eq!(world.exec(&["echo", "here"]).exits(0), "here\n");
        world.run(&["lockdown", "on"]).exits(0);
        assert_eq!(world.run(&["lockdown", "status"]).exits(0), "on; 1 commands stand still\n");
        world.run(&["lockdown", "off"]).exits(0);
        assert!(walks(runner), "{user:?}: the walk was over before anything else was done");

        // It comes to no end in its time, or finds nothing, since what has grown is removed.
        world.run(&["lockdown", "on", "--kill"]).exits(0);
        let ending = ws.response(&id)["payload"]["ending"].clone();
        assert!(ending == "disk-limit" || ending == "lockdown", "{ending}");
        eventually("nothing walks any more", || !walks(runner));
    }
}

#[test]
fn what_is_hidden_from_a_walk_counts_as_well() {
    for user in USERS {
        let world = World::new(user);
        let _disk = Disk::below(&world);
        let world = world.config(DISK).start();
        let ways = [
            // Its folder cannot be read by its owner.
            "os.mkdir('closed'); os.chdir('closed'); os.chmod('.', 0o300); fill()",
            // Nor entered: everything was open before.
            "os.mkdir('shut'); fs = [open('shut/%d' % n, 'wb') for n in range(4)]; os.chmod('shut', 0); fill(fs)",
            // Its path is longer than the kernel takes.
            "[(os.mkdir('d' * 200), os.chdir('d' * 200)) for n in range(40)]; fill()",
            // It claims to be old.
            "fill(touch=lambda name: os.utime(name, (0, 0)))",
            // Its names are none that a person would give.
            "os.mkdir(b'\\xff\\n'); os.chdir(b'\\xff\\n'); fill()",
            // It is taken by other calls than write(2).
            "f = open('taken', 'wb'); [os.posix_fallocate(f.fileno(), n << 20, 1 << 20) for n in range(24)]; wait()",
            "f = open('mapped', 'w+b'); f.truncate(24 << 20); m = mmap.mmap(f.fileno(), 24 << 20)\n\
             for n in range(0, 24 << 20, 4096): m[n] = 1\nm.flush(); wait()",
        ];
        let program = "
import mmap, os, time
def wait():
    while True: time.sleep(1000)
def fill(files=None, touch=None):
    files = files or [open('f%d' % n, 'wb') for n in range(4)]
    for f in files:
        f.write(bytes(10 << 20)); f.flush()
        if touch: touch(f.name)
    wait()
";
        for (number, way) in ways.into_iter().enumerate() {
            let neighbour = Neighbour::begin(&world);
            let own = format!("os.mkdir('w{number}'); os.chdir('w{number}')\n");
            let ran = world.run(&["exec", "--", "python3", "-c", &format!("{program}{own}{way}")]);
            assert!(ran.code == 137 && ran.stderr.contains("added more to the disk"), "{user:?} {way}: {ran:?}");
            neighbour.ends_well();
        }
        // A file of holes takes nothing.
        world.exec(&["truncate", "-s", "60M", "/workspace/holes"]).exits(0);
    }
}

#[test]
fn a_full_scratch_folder_is_an_error_of_the_write_and_nothing_else() {
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox.limits]\nscratch = \"8M\"\n").start();
        let neighbour = Neighbour::begin(&world);
        for folder in ["/tmp", "/home/agent", "/dev/shm"] {
            let line = format!(
                "head -c 20M /dev/zero > {folder}/big; echo code $?; rm {folder}/big; echo x > {folder}/y && echo ok"
            );
            let ran = world.sh(&line);
            assert!(ran.stderr.contains("No space left"), "{user:?} {folder}: {ran:?}");
            assert_eq!(ran.exits(0), "code 1\nok\n");
        }
        // The three share the bound, and so do their numbers of files.
        let line = "head -c 6M /dev/zero > /tmp/a && head -c 6M /dev/zero > /dev/shm/b; echo code $?";
        assert_eq!(world.sh(line).exits(0), "code 1\n");
        let line = "import os
n = 0
try:
    while True: os.close(os.open('/tmp/%d' % n, os.O_CREAT)); n += 1
except OSError as e: print(e.strerror, n < 70000)";
        assert_eq!(world.exec(&["python3", "-c", line]).exits(0), "No space left on device True\n");
        // Nor does the root of the sandbox fill: nothing there can be written to.
        assert_ne!(world.sh("echo x > /var/x || echo x > /run/x || echo x > /x").code, 0);
        neighbour.ends_well();
        assert_eq!(world.sh("ls -A /tmp /dev/shm | grep -c -e a -e b -e 1; true").exits(0), "0\n");
    }
}

#[test]
fn memory_is_bounded_for_all_processes_of_a_run_together_where_the_tier_says_so() {
    for user in USERS {
        let world = World::new(user)
            .config("[defaults.sandbox.limits]\nmemory = \"96M\"\nscratch = \"512M\"\ntimeout = \"60s\"\n")
            .start();
        let by = world.json(&["exec", "--json", "--", "true"])["enforcement"]["limits"]["memory"].clone();
        let neighbour = Neighbour::begin(&world);
        // One process too large, without a shell in between.
        let one = world.run(&["exec", "--", "python3", "-c", "x = bytearray(300 << 20); print(len(x))"]);
        assert_ne!(one.code, 0, "{one:?}");
        let many = "import os, time
for n in range(8):
    if os.fork() == 0:
        x = bytearray(40 << 20); time.sleep(1000)
try:
    print(os.wait())
except ChildProcessError: pass";
        match by.as_str().unwrap() {
            "cgroup" => {
                assert!(one.stderr.contains("more memory than it may have"), "{one:?}");
                let ran = world.run(&["exec", "--", "python3", "-c", many]);
                assert!(ran.code == 137 || ran.stdout.contains(", 9)"), "{user:?}: {ran:?}");
                // What lies in /tmp lies in memory, and is of the run as well.
                let ran = world.exec(&["dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=400"]);
                assert_eq!(ran.code, 137, "{user:?}: {ran:?}");
                let ended = world.events("exec.finished");
                assert!(ended.iter().filter(|e| e["ending"] == "out-of-memory").count() >= 2, "{ended:?}");
            }
            "rlimit" => assert!(one.stderr.contains("MemoryError"), "{user:?}: {one:?}"),
            other => panic!("{user:?}: memory is bounded by {other}"),
        }
        neighbour.ends_well();
        world.exec(&["true"]).exits(0);
    }
}

#[test]
fn what_lies_in_sockets_is_bounded_as_memory_is_where_the_tier_says_so() {
    for user in USERS {
        let limits = "[defaults.sandbox.limits]\nmemory = \"64M\"\npids = 64\ntimeout = \"60s\"\n";
        let world = World::new(user).config(limits).start();
        let by = world.json(&["exec", "--json", "--", "true"])["enforcement"]["limits"]["memory"].clone();
        // What was queued is counted, until three times the bound.
        let streams = "
import socket
listener = socket.create_server(('127.0.0.1', 0), backlog=4096)
got, kept, block = 0, [], bytes(1 << 20)
for n in range(400):
    s = socket.create_connection(listener.getsockname()); kept += [s, listener.accept()[0]]; s.setblocking(False)
    try:
        while got < 200 << 20: got += s.send(block)
    except BlockingIOError: pass
got >>= 20";
        let datagrams = "
import socket
sender, got, kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0, []
for n in range(1200):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0)); s.setblocking(False); kept.append(s)
    for n in range(4): sender.sendto(bytes(60_000), s.getsockname())
for s in kept:
    try:
        while True: got += len(s.recv(60_000))
    except BlockingIOError: pass
got >>= 20";
        for program in [streams, datagrams] {
            let greedy = Greedy::begin(&world, program);
            match by.as_str().unwrap() {
                "cgroup" => assert!(greedy.got <= 100, "{user:?}: {} MiB", greedy.got),
                "rlimit" => {}
                other => panic!("{user:?}: memory is bounded by {other}"),
            }
            // A connection of its own inside still works for somebody else.
            let twin = "import socket; l = socket.create_server(('127.0.0.1', 0)); s = socket.create_connection(\
                        l.getsockname()); s.sendall(bytes(1 << 10)); print(len(l.accept()[0].recv(1 << 10)))";
            assert_eq!(world.exec(&["python3", "-c", twin]).exits(0), "1024\n");
            greedy.end();
        }
    }
}

#[test]
fn what_a_command_has_under_way_keeps_nobody_from_handing_over() {
    let without_namespaces = World::new(User::Ordinary).locked_down();
    let without_namespaces = without_namespaces.config("[defaults.sandbox]\nleast_tier = \"landlock\"\n").start();
    for world in [World::running(User::Root), World::running(User::Ordinary), without_namespaces] {
        // The kernel counts what is under way for the user, whatever the namespace.
        let greedy = Greedy::begin(
            &world,
            "
import array, socket
def pair():
    kept.append(socket.socketpair()); kept[-1][0].setblocking(False)
    return kept[-1][0]
got, kept, beside = 0, [], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 253))]
end = pair()
while True:
    try: end.sendmsg([b'x'], beside); got += 253
    except BlockingIOError: end = pair()
    except OSError: break",
        );
        assert!(greedy.got > 4000, "{}", greedy.got);

        let mut ws = world.connect();
        let terminal = json!({"rows": 24, "columns": 80});
        let id = ws.ask("exec.run", json!({"command": ["tty"], "terminal": terminal}));
        let response = ws.response(&id);
        assert_eq!(response["payload"]["exitCode"], 0, "{:?}: {response}", world.user);
        assert_eq!(world.exec(&["echo", "here"]).exits(0), "here\n");
        greedy.end();
    }
}

#[test]
fn what_a_command_watches_leaves_others_theirs() {
    for user in USERS {
        let world = World::running(user);
        let program = "
import ctypes
libc, got = ctypes.CDLL(None), 0
while libc.inotify_init1(0) >= 0: got += 1";
        let (one, two) = (Greedy::begin(&world, program), Greedy::begin(&world, program));
        assert!(one.got > 0 && two.got > 0, "{user:?}: {} and {}", one.got, two.got);
        one.end();
        two.end();
    }
}

#[test]
fn threads_count_as_processes_do() {
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox.limits]\npids = 20\n").start();
        let neighbour = Neighbour::begin(&world);
        let program = "import threading
n, stop = 0, threading.Event()
try:
    while n < 1000: threading.Thread(target=stop.wait).start(); n += 1
except RuntimeError: pass
print(n); stop.set()";
        let threads = world.exec(&["python3", "-c", program]).exits(0).trim().parse::<u32>().unwrap();
        assert!((10..=20).contains(&threads), "{user:?}: {threads}");
        neighbour.ends_well();
    }
}

#[test]
fn the_processor_is_shared_out_where_the_tier_says_so() {
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox.limits]\ncpus = 0.2\n").start();
        let program = "import os, time
start = time.monotonic()
while time.monotonic() - start < 1.5: pass
print(int(1000 * sum(os.times()[:2])))";
        let ran = world.json(&["exec", "--json", "--", "python3", "-c", program]);
        let used = ran["stdout"].as_str().unwrap().trim().parse::<u32>().unwrap();
        match ran["enforcement"]["limits"]["cpu"].as_str().unwrap() {
            // A fifth of a second and a half, and what was left over from the period before.
            "cgroup" => assert!(used < 600, "{user:?}: {used} ms"),
            "none" | "unbounded" => assert_eq!(user, User::Ordinary),
            other => panic!("{user:?}: {other}"),
        }
    }
}

#[test]
fn a_flood_on_both_streams_ends_at_the_bound_and_no_byte_is_told_twice() {
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox.limits]\noutput = \"1M\"\n").start();
        let neighbour = Neighbour::begin(&world);
        let ran = world.sh("yes out & yes err >&2 & wait");
        let errors = ran.stderr.find("error: ").unwrap();
        assert_eq!(ran.stdout.len() + errors, 1 << 20, "{user:?}");
        ran.fails(137, "wrote more than it may");
        // One that closes its output may work on; one that ignores a closed pipe is ended with the rest.
        world.sh("exec >&- 2>&-; head -c 4M /dev/zero > /tmp/x; exit 4").exits(4);
        let record = world.events("exec.finished");
        assert_eq!(
            (&record[0]["ending"], &record[0]["output_bytes"]),
            (&json!("output-limit"), &json!(1 << 20)),
            "{record:?}"
        );
        neighbour.ends_well();
    }
}

#[test]
fn a_deadline_reaches_what_stands_still_by_itself_or_has_stopped_its_parent() {
    for (user, mark) in [(User::Root, mark(86701)), (User::Ordinary, mark(86702))] {
        let world = World::running(user);
        for line in [
            format!("kill -STOP $$ # {mark}"),
            format!("(sleep {mark} & kill -STOP $PPID); sleep {mark}"),
            format!(
                "exec >/dev/null 2>&1 </dev/null; setsid sleep {mark} & trap '' TERM HUP; sleep {mark}; sleep {mark}"
            ),
            format!("while :; do (:) & (:); done # {mark}"),
        ] {
            let ran = world.run(&["exec", "--timeout", "700ms", "--", "sh", "-c", &line]);
            assert_eq!(ran.code, 124, "{user:?} {line}: {ran:?}");
            assert_eq!(processes_with(mark), Vec::<i32>::new());
        }
        // A request shortens its time and never lengthens it.
        let short = World::new(user).config("[defaults.sandbox.limits]\ntimeout = \"500ms\"\n").start();
        short.run(&["exec", "--timeout", "1h", "--", "sleep", "1000"]).fails(124, "ran out of time");
    }
}

#[test]
fn a_bound_that_makes_no_sense_is_no_configuration() {
    let world = World::new(User::Ordinary);
    for (key, value) in [
        ("disk", "\"0\""),
        ("disk", "\"-1\""),
        ("disk", "\"lots\""),
        ("scratch", "\"0M\""),
        ("memory", "\"1X\""),
        ("pids", "0"),
        ("cpus", "0"),
        ("cpus", "-1"),
        ("timeout", "\"0s\""),
        ("output", "\"99999999999T\""),
    ] {
        let path = world.write("bad.toml", format!("[defaults.sandbox.limits]\n{key} = {value}\n").as_bytes());
        let ran = finish(world.bare_command(program().to_str().unwrap()).args([
            "--state-dir",
            world.state().to_str().unwrap(),
            "--config",
            path.to_str().unwrap(),
            "sandbox",
            "run",
            "--",
            "true",
        ]));
        assert!(ran.code != 0 && ran.stderr.contains(key), "{key} = {value}: {ran:?}");
    }
    assert!(fs::metadata(world.state()).is_err());
}
