//! Secrets on their last way: from a gateway, spoken by hand here, through a real runner into a sandbox.

use crate::world::*;
use nix::sys::signal::Signal;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

/// A runner of this user that takes orders from this process.
struct Runner {
    world: World,
    socket: PathBuf,
    process: Spawned,
}

impl Runner {
    fn of(user: User) -> Self {
        Self::with(user, &[])
    }

    /// With these arguments as well.
    fn with(user: User, more: &[&str]) -> Self {
        let world = World::new(user);
        let socket = world.dir.join("run/runner.sock");
        let us = nix::unistd::geteuid().to_string();
        let path = socket.display().to_string();
        let own = ["runner", "--socket", &path, "--gateway-user", &us];
        let more: Vec<String> = more.iter().map(|word| word.replace('@', &world.dir.display().to_string())).collect();
        let mut command = world.command(&own);
        command.args(more);
        let process = Spawned(command.stdin(Stdio::null()).spawn().unwrap());
        eventually("it listens", || UnixStream::connect(&socket).is_ok());
        Runner { world, socket, process }
    }

    fn pid(&self) -> i32 {
        self.process.0.id() as i32
    }

    fn connect(&self) -> Line {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = Line { stream, next: 0 };
        let (kind, run, hello) = line.report().expect("it introduces itself");
        let hello: Value = serde_json::from_slice(&hello).unwrap();
        assert_eq!((kind, run, &hello["version"], &hello["unable"]), (1, 0, &json!(6), &Value::Null));
        line
    }

    /// Runs one command on a connection of its own.
    fn run(&self, command: &[&str], secrets: &[(&str, Option<&str>, &[u8])]) -> Ended {
        let mut line = self.connect();
        let named = secrets.iter().map(|(name, variable, _)| json!({"name": name, "variable": variable})).collect();
        let values: Vec<OwnedFd> = secrets.iter().map(|(_, _, value)| sealed(value)).collect();
        let run = line.start(start(command, named), &values);
        line.end_of(run)
    }

    /// The inits of its sandboxes, and the one that waits for the next command.
    fn children(&self) -> Vec<i32> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children", pid = self.pid())).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }
}

/// Descriptors of a process that lead to a secret.
fn secrets_held_by(pid: i32) -> usize {
    let leads_to = |item: std::io::Result<fs::DirEntry>| fs::read_link(item.unwrap().path()).unwrap_or_default();
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(leads_to);
    all.filter(|target| target.to_string_lossy().starts_with("/memfd:secret")).count()
}

/// One connection of a gateway.
struct Line {
    stream: UnixStream,
    next: u64,
}

/// What is left of a run.
#[derive(Debug)]
struct Ended {
    stdout: String,
    stderr: String,
    finished: Value,
}

impl Ended {
    #[track_caller]
    fn exits(self, code: u8) -> String {
        let outcome = &self.finished["outcome"];
        assert_eq!((&outcome["ending"], &outcome["code"]), (&json!("exited"), &json!(code)), "{self:?}");
        self.stdout
    }

    #[track_caller]
    fn fails(self, kind: &str, words: &str) {
        let fault = &self.finished["fault"];
        assert_eq!(fault["kind"], kind, "{self:?}");
        assert!(format!("{} {}", fault["what"], fault["more"]).contains(words), "{self:?}");
    }
}

impl Line {
    /// Sends one frame with these descriptors beside its first bytes.
    fn send(&mut self, kind: u8, run: u64, payload: &[u8], beside: &[OwnedFd]) {
        let mut bytes = ((9 + payload.len()) as u32).to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(run.to_le_bytes());
        bytes.extend(payload);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        assert!(beside.is_empty() || rights.push(SendAncillaryMessage::ScmRights(&beside)));
        let sent = sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut rights, SendFlags::NOSIGNAL).unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
    }

    fn start(&mut self, start: Value, beside: &[OwnedFd]) -> u64 {
        self.next += 1;
        self.send(1, self.next, start.to_string().as_bytes(), beside);
        self.next
    }

    /// The next frame; `None` at the end.
    fn report(&mut self) -> Option<(u8, u64, Vec<u8>)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        Some((frame[0], u64::from_le_bytes(frame[1..9].try_into().unwrap()), frame[9..].to_vec()))
    }

    fn end_of(&mut self, run: u64) -> Ended {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.report().expect("the connection lives") {
                (2, of, bytes) if of == run => stdout.extend(bytes),
                (3, of, bytes) if of == run => stderr.extend(bytes),
                (5, of, bytes) if of == run => {
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    let finished = serde_json::from_slice(&bytes).unwrap();
                    return Ended { stdout: text(&stdout), stderr: text(&stderr), finished };
                }
                _ => {}
            }
        }
    }
}

/// A command in a workspace of its own.
fn start(command: &[&str], secrets: Vec<Value>) -> Value {
    json!({
        "argv": command, "cwd": "", "env": {}, "stdin": false,
        "image": "", "workspace": null, "workspace_access": "rw", "scope": "session", "kept": null, "idle_seconds": 60, "network": "none", "domains": [],
        "read_only": [], "read_write": [], "exec_mode": "full", "exec_allow": [], "least_tier": "user-namespace",
        "terminal": null, "file": null, "disk_bytes": 1 << 30,
        "milli_cpus": 1000, "memory_bytes": 512 << 20, "pids": 256, "timeout_ms": 60_000, "output_bytes": 8 << 20,
        "scratch_bytes": 64 << 20, "secrets": secrets,
    })
}

const ALL: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

fn memfd(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let made = rustix::fs::memfd_create("secret", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    File::from(made.try_clone().unwrap()).write_all(bytes).unwrap();
    rustix::fs::fcntl_add_seals(&made, seals).unwrap();
    made
}

fn sealed(bytes: &[u8]) -> OwnedFd {
    memfd(bytes, ALL)
}

fn in_both_tiers(check: impl Fn(&Runner)) {
    for user in USERS {
        check(&Runner::of(user));
    }
}

#[test]
fn a_secret_is_a_file_or_a_variable_of_its_own_run_and_of_no_other() {
    in_both_tiers(|runner| {
        let value = b"a value\nof two lines";
        let file = |line: &str| runner.run(&["sh", "-c", line], &[("API_KEY", None, value)]);

        assert_eq!(file("cat /run/secrets/API_KEY").exits(0).as_bytes(), value);
        let seen =
            file("id -u; stat -c '%a %u %s' /run/secrets/API_KEY; stat -c '%a %u' /run/secrets; ls /run/secrets");
        let seen = seen.exits(0);
        let uid = seen.lines().next().unwrap();
        assert_eq!(seen, format!("{uid}\n400 {uid} {}\n500 {uid}\nAPI_KEY\n", value.len()));
        let mount = file("grep ' /run/secrets ' /proc/self/mountinfo").exits(0);
        assert!(mount.contains(" ro,nosuid,nodev,noexec,") && mount.contains(" - ramfs "), "{mount}");
        assert_eq!(file("env | grep -c API_KEY; ls /proc/self/fd").exits(0), "0\n0\n1\n2\n3\n");
        // Also for a program whose parent closes whatever it inherited.
        let python =
            "import subprocess; print(subprocess.check_output(['cat', '/run/secrets/API_KEY'], close_fds=True))";
        let text = runner.run(&["python3", "-c", python], &[("API_KEY", None, value)]).exits(0);
        assert_eq!(text, "b'a value\\nof two lines'\n");

        let variable = |line: &str| runner.run(&["sh", "-c", line], &[("API_KEY", Some("TOKEN"), value)]);
        assert_eq!(variable("printf %s \"$TOKEN\"").exits(0).as_bytes(), value);
        assert_eq!(variable("env | grep -c API_KEY; ls -A /run; ls /proc/self/fd").exits(0), "0\nproof\n0\n1\n2\n3\n");
        let replaced = runner.run(&["printenv", "LANG"], &[("API_KEY", Some("LANG"), b"C")]);
        assert_eq!(replaced.exits(0), "C\n");

        // The one after it, and the one beside it.
        let mut line = runner.connect();
        let name = mark(86420);
        let beside = line.start(
            start(
                &["sh", "-c", &format!("cat /run/secrets/API_KEY; exec sleep {name}")],
                vec![json!({"name": "API_KEY", "variable": null})],
            ),
            &[sealed(value)],
        );
        eventually("it runs", || !processes_with(name).is_empty());
        let nothing = runner.run(&["sh", "-c", "ls -A /run; env | grep -c TOKEN; cat /run/secrets/API_KEY"], &[]);
        assert!(nothing.stderr.contains("No such file"), "{nothing:?}");
        assert_eq!(nothing.exits(1), "proof\n0\n");
        let other = runner.run(&["ls", "/run/secrets"], &[("OTHER", None, b"other")]);
        assert_eq!(other.exits(0), "OTHER\n");
        line.send(4, beside, b"", &[]);
        assert_eq!(line.end_of(beside).stdout.as_bytes(), value);
    });
}

#[test]
fn as_many_and_as_long_secrets_as_there_may_be_arrive() {
    in_both_tiers(|runner| {
        let longest = "x".repeat(64 << 10);
        let names: Vec<String> = (0..32).map(|n| format!("S_{n}")).collect();
        let values: Vec<String> = names.iter().map(|name| format!("{name}{}", &longest[name.len()..])).collect();
        let mut secrets: Vec<(&str, Option<&str>, &[u8])> =
            names.iter().zip(&values).map(|(name, value)| (name.as_str(), None, value.as_bytes())).collect();
        secrets[31].1 = Some("S_31");
        let line = "cd /run/secrets && for n in *; do [ $n = $(head -c ${#n} $n) ] && wc -c < $n; done | sort | uniq -c; \
                    printf %s $S_31 | wc -c; echo ${S_31%%x*}";
        let said = runner.run(&["sh", "-c", line], &secrets).exits(0);
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["31", "65536", "65536", "S_31"]);
    });
}

#[test]
fn nothing_of_run_secrets_can_be_changed() {
    in_both_tiers(|runner| {
        let workspace = runner.world.make_dir("ws");
        fs::copy(attacks(), workspace.join("attacks")).unwrap();
        runner.world.give(&workspace.join("attacks"));
        let attack = |act: &[&str]| {
            let mut line = runner.connect();
            let mut order =
                start(&[&["/workspace/attacks"], act].concat(), vec![json!({"name": "KEY", "variable": null})]);
            order["workspace"] = json!(workspace);
            let run = line.start(order, &[sealed(b"12345678")]);
            line.end_of(run)
        };
        assert_eq!(attack(&["read", "/run/secrets/KEY"]).exits(0), "");
        for (act, refused) in [
            // By the mount: what stands behind it, the modes and Landlock, would say EACCES or nothing.
            (&["write", "/run/secrets/new"][..], "EROFS"),
            (&["chmod", "/run/secrets/KEY"], "EROFS"),
            (&["chmod", "/run/secrets"], "EROFS"),
            (&["unlink", "/run/secrets/KEY"], "EROFS"),
            (&["rename", "/run/secrets/KEY", "/run/secrets/OLD"], "EROFS"),
            (&["mkdir", "/run/secrets/new"], "EROFS"),
            (&["rename", "/run/secrets", "/run/old"], "EROFS"),
            (&["write", "/run/new"], "EROFS"),
            (&["write", "/run/secrets/KEY"], "EACCES"),
            (&["truncate", "/run/secrets/KEY"], "EACCES"),
            (&["rename", "/workspace/attacks", "/run/secrets/KEY"], "EXDEV"),
            (&["link", "/run/secrets/KEY", "/workspace/KEY"], "EXDEV"),
            (&["mount-on", "/run/secrets"], "EPERM"),
            (&["mount-on", "/run/secrets/KEY"], "EPERM"),
            (&["umount-of", "/run/secrets"], "EPERM"),
            (&["remount-of", "/run/secrets"], "EPERM"),
        ] {
            let said = attack(act);
            assert_eq!(said.stdout, format!("{refused}\n"), "{act:?}: {said:?}");
            said.exits(1);
        }
    });
}

#[test]
fn what_is_no_sealed_value_is_refused_and_more_of_them_than_named_end_the_connection() {
    in_both_tiers(|runner| {
        let mut line = runner.connect();
        let secret = |name: &str, variable: Option<&str>| json!({"name": name, "variable": variable});
        let file = || File::open("/etc/hostname").unwrap().into();
        let value = sealed(b"12345678");
        let path = format!("/proc/self/fd/{}", value.as_raw_fd());
        let path_only = || rustix::fs::open(&*path, OFlags::PATH, Mode::empty()).unwrap();
        let rows: Vec<(Vec<Value>, Vec<OwnedFd>, &str)> = vec![
            (vec![secret("A", None)], vec![memfd(b"12345678", SealFlags::empty())], "not sealed"),
            (vec![secret("A", None)], vec![memfd(b"12345678", ALL - SealFlags::WRITE)], "not sealed"),
            (vec![secret("A", None)], vec![memfd(b"12345678", ALL - SealFlags::GROW)], "not sealed"),
            (vec![secret("A", None)], vec![memfd(b"12345678", ALL - SealFlags::SHRINK)], "not sealed"),
            (vec![secret("A", None)], vec![memfd(b"12345678", ALL - SealFlags::SEAL)], "not sealed"),
            (vec![secret("A", None)], vec![sealed(&[b'x'; (64 << 10) + 1])], "more than 65536"),
            (vec![secret("A", None)], vec![file()], "no sealed memfd"),
            (vec![secret("A", None)], vec![path_only()], "no sealed memfd"),
            (vec![secret("A", None)], vec![std::io::pipe().unwrap().0.into()], "no sealed memfd"),
            (vec![secret("A", None)], vec![UnixStream::pair().unwrap().0.into()], "no sealed memfd"),
            (vec![secret("A", None), secret("B", None)], vec![sealed(b"1"), file()], "no sealed memfd"),
            (vec![secret("A", None)], vec![], "only 0 arrived"),
            (vec![secret("A", None), secret("B", None)], vec![sealed(b"12345678")], "only 1 arrived"),
            (vec![secret("A", None), secret("A", None)], vec![sealed(b"1"), sealed(b"2")], "two secrets"),
            (vec![secret("A", Some("V")), secret("B", Some("V"))], vec![sealed(b"1"), sealed(b"2")], "two secrets"),
            (vec![secret("../A", None)], vec![sealed(b"1")], "makes no sense"),
            (vec![secret("A", Some("V=W"))], vec![sealed(b"1")], "makes no sense"),
            (vec![secret("A", Some(""))], vec![sealed(b"1")], "makes no sense"),
        ];
        let resting = || fs::read_dir(format!("/proc/{}/fd", runner.pid())).unwrap().count();
        let run = line.start(start(&["true"], vec![]), &[]);
        line.end_of(run).exits(0);
        // With the one that waits for the next command, as there will be one afterwards.
        eventually("one waits", || runner.children().len() == 1);
        let before = resting();
        for (secrets, beside, words) in rows {
            let run = line.start(start(&["true"], secrets.clone()), &beside);
            let ended = line.end_of(run);
            assert_eq!(ended.finished["outcome"], Value::Null, "{secrets:?}: {ended:?}");
            ended.fails("SANDBOX_REFUSED", words);
        }
        // Seen by the init alone, which executes nothing then.
        let run = line.start(start(&["true"], vec![secret("A", Some("V"))]), &[sealed(b"1234\0 678")]);
        line.end_of(run).fails("WALL_UNAVAILABLE", "NUL");
        let run = line.start(start(&["cat", "/run/secrets/A"], vec![secret("A", None)]), &[sealed(b"as ever")]);
        assert_eq!(line.end_of(run).exits(0), "as ever");
        eventually("nothing is left", || resting() <= before);

        let one = || vec![sealed(b"12345678")];
        let many = || (0..33).map(|_| sealed(b"12345678")).collect::<Vec<_>>();
        let named = (0..32).map(|n| secret(&format!("S{n}"), None)).collect::<Vec<_>>();
        let more = (0..33).map(|n| secret(&format!("S{n}"), None)).collect::<Vec<_>>();
        for (kind, payload, beside) in [
            (1, start(&["true"], vec![]).to_string(), one()),
            (1, start(&["true"], vec![secret("A", None)]).to_string(), vec![sealed(b"1"), sealed(b"2")]),
            (1, start(&["true"], named).to_string(), many()),
            (1, start(&["true"], more).to_string(), many()),
            (2, "input".to_owned(), one()),
            (4, String::new(), one()),
        ] {
            let mut line = runner.connect();
            line.send(kind, 1, payload.as_bytes(), &beside);
            assert_eq!(line.report(), None, "{kind} {payload}");
        }
        // The first connection never noticed.
        let run = line.start(start(&["cat", "/run/secrets/A"], vec![secret("A", None)]), &[sealed(b"unharmed")]);
        assert_eq!(line.end_of(run).exits(0), "unharmed");
        eventually("nothing is left", || resting() <= before);
        assert_eq!(secrets_held_by(runner.pid()), 0);
    });
}

#[test]
fn a_value_is_in_no_memory_but_the_commands() {
    in_both_tiers(|runner| {
        for (number, variable) in [(86421, None), (86422, Some("TOKEN"))] {
            let canary = format!("canary-{number}-{}-{:?}", std::process::id(), runner.world.user);
            let name = mark(number);
            let mut line = runner.connect();
            let order = || start(&["sleep", name], vec![json!({"name": "API_KEY", "variable": variable})]);
            // Two: while the init of one is forked, the runner holds the value of the other.
            let runs = [(); 2].map(|()| line.start(order(), &[sealed(canary.as_bytes())]));
            let commands = || {
                let is_sleep =
                    |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n");
                processes_with(name).into_iter().filter(is_sleep).collect::<Vec<_>>()
            };
            eventually("both run", || commands().len() == 2);

            // The twin shows that the search finds what is there.
            for command in commands() {
                assert_eq!(memory_holds(command, canary.as_bytes()), variable.is_some());
                assert_eq!(secrets_held_by(command), 0);
            }
            assert!(!memory_holds(runner.pid(), canary.as_bytes()), "the runner read it");
            assert_eq!(secrets_held_by(runner.pid()), 0);
            for init in runner.children() {
                // It lets go of them once its command is begun, which is what was waited for.
                eventually("no init keeps it", || !memory_holds(init, canary.as_bytes()) && secrets_held_by(init) == 0);
            }
            for run in runs {
                line.send(4, run, b"", &[]);
                line.end_of(run);
            }
        }
    });
}

#[test]
fn a_runner_that_is_stopped_amid_a_delivery_leaves_nothing() {
    for user in USERS {
        let mut runner = Runner::of(user);
        let name = mark(86423);
        let mut line = runner.connect();
        for _ in 0..20 {
            line.start(start(&["sleep", name], vec![json!({"name": "A", "variable": null})]), &[sealed(b"12345678")]);
        }
        eventually("some run", || !processes_with(name).is_empty());
        runner.process.stop(Signal::SIGKILL);
        eventually("no process of it is left", || processes_with(name).is_empty());
    }
}

/// Whether these bytes stand anywhere in what a process could have written to.
fn memory_holds(pid: i32, bytes: &[u8]) -> bool {
    memory(pid).iter().any(|region| memchr::memmem::find(region, bytes).is_some())
}

/// Everything that a process could have written to.
pub fn memory(pid: i32) -> Vec<Vec<u8>> {
    assert!(am_root(), "this test needs root: run `make test` as root");
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let regions = maps.lines().filter(|line| line.contains(" rw")).filter_map(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut region = vec![0; (to - from) as usize];
        // A region may be gone by now.
        memory.read_exact_at(&mut region, from).ok().map(|()| region)
    });
    let regions: Vec<_> = regions.collect();
    let looked_at: usize = regions.iter().map(Vec::len).sum();
    assert!(looked_at > 32 << 10, "only {looked_at} bytes of {pid} were looked at");
    regions
}

#[test]
fn a_secret_that_is_not_granted_is_denied_to_everybody_by_name_and_recorded() {
    let world = World::running(User::Ordinary);
    for arguments in [["--secret", "API_KEY"], ["--secret-env", "API_KEY"], ["--secret-env", "API_KEY=TOKEN"]] {
        let ran = world.run(&[&["exec"], &arguments[..], &["--", "true"]].concat());
        assert!(ran.stderr.contains("`vambrace secrets set API_KEY --agent main` grants it"), "{ran:?}");
        ran.fails(126, "not granted to the agent \"main\" (rule secrets.API_KEY)");
    }
    let denied = world.events("exec.denied");
    let named: Vec<&Value> = denied.iter().map(|entry| &entry["secrets"]).collect();
    assert_eq!(named, [&json!(["API_KEY"]), &json!(["API_KEY as API_KEY"]), &json!(["API_KEY as TOKEN"])]);
    assert_eq!(denied[0]["rule"], "secrets.API_KEY");
    for name in ["api_key", "../API_KEY", ""] {
        world.run(&["exec", &format!("--secret={name}"), "--", "true"]).fails(126, "at secrets: ");
    }
}

#[test]
fn a_runner_speaks_to_no_engine_and_makes_no_folder_that_it_was_not_told_of() {
    let docker = Runner::with(
        User::Root,
        &[
            "--backend",
            "docker",
            "--scratch",
            "@/scratch",
            "--kept",
            "@/kept",
            "--engine",
            "/nowhere/engine.sock",
            "--elsewhere",
            r#"{"host": "ssh://known.invalid"}"#,
        ],
    );
    let mut line = docker.connect();
    let mut fault = |over: Value| {
        let mut order = start(&["true"], Vec::new());
        over.as_object().unwrap().iter().for_each(|(name, value)| order[name] = value.clone());
        let run = line.start(order, &[]);
        line.end_of(run).finished["fault"]["what"].as_str().unwrap_or_default().to_owned()
    };
    // Its ssh configuration could name any program.
    let config = docker.world.write("ssh_config", b"Host *\n  ProxyCommand touch @/executed\n");
    for engine in [
        json!(["ssh://other.invalid", null, null]),
        json!(["ssh://known.invalid", null, config]),
        json!(["unix:///run/other.sock", null, null]),
    ] {
        let what = fault(json!({"engine": engine.clone()}));
        assert!(what.contains("was not told of the engine"), "{engine}: {what}");
    }
    assert!(fault(json!({})).contains("no container engine at /nowhere"), "its own is asked for");
    let elsewhere = docker.world.dir.join("elsewhere");
    let what = fault(json!({"kept": elsewhere.join("agent.main")}));
    assert!(what.contains("no place of a sandbox") && !elsewhere.exists(), "{what}");
}
