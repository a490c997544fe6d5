//! The tier without namespaces: Landlock and a system-call filter alone, as inside a container that is locked down. For
//! each wall, what is allowed works and its forbidden neighbour fails.

use crate::world::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A gateway that can make no namespace, whose profile accepts that, with more settings of the sandbox. Its scratch folders
/// are made below `scratch`.
fn world(sandbox: &str) -> World {
    let world = World::new(User::Ordinary).locked_down();
    let scratch = world.make_dir("scratch");
    world
        .config(&format!("[defaults.sandbox]\nleast_tier = \"landlock\"\n{sandbox}"))
        .variable("TMPDIR", &scratch)
        .start()
}

/// What is left of scratch folders.
fn scratch(world: &World) -> Vec<PathBuf> {
    fs::read_dir(world.dir.join("scratch")).unwrap().map(|item| item.unwrap().path()).collect()
}

/// A process of the same user, outside of every sandbox.
fn bystander(world: &World) -> Spawned {
    Spawned(world.bare_command("sleep").arg("86500").stdin(Stdio::null()).spawn().unwrap())
}

/// The fields of /proc/PID/stat from the state on: 0 state, 16 nice.
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit(") ").next().unwrap().split(' ').map(str::to_owned).collect()
}

#[track_caller]
fn refused(world: &World, act: &[&str], errno: &str) {
    let ran = world.attack(act);
    assert_eq!((ran.code, ran.stdout.trim()), (1, errno), "{act:?}: {ran:?}");
}

#[track_caller]
fn done(world: &World, act: &[&str]) {
    world.attack(act).exits(0);
}

#[test]
fn a_host_without_namespaces_runs_nothing_unless_the_profile_names_this_tier() {
    for settings in ["", "least_tier = \"user-namespace\"\n"] {
        let world = World::new(User::Ordinary).locked_down();
        let world = world.config(&format!("[defaults.sandbox]\n{settings}")).start();
        let folder = world.make_dir("folder").display().to_string();

        let ran = world.exec(&["touch", "made"]);

        assert!(ran.stderr.contains("gives the tier \"landlock\""), "{ran:?}");
        ran.fails(125, "least_tier");
        assert!(!world.workspace().join("made").exists());
        assert!(world.events("exec.failed")[0]["error"].as_str().unwrap().contains("WALL_UNAVAILABLE"));
        assert!(world.events("exec.finished").is_empty());
        let run = ["sandbox", "run", "--workspace", &folder, "--", "touch", "made"];
        world.run(&run).fails(125, "gives the tier \"landlock\"");
        assert!(!Path::new(&folder).join("made").exists());
    }
    let world = world("");
    world.exec(&["touch", "made"]).exits(0);
    assert!(world.workspace().join("made").exists());
}

#[test]
fn root_runs_nothing_where_no_namespace_can_be_made() {
    let world = World::new(User::Root).locked_down().config("[defaults.sandbox]\nleast_tier = \"landlock\"\n");
    let ran = world.run(&["sandbox", "run", "--", "touch", "/tmp/vambrace-as-root"]);
    ran.fails(125, "run it as an ordinary user");
    assert!(!Path::new("/tmp/vambrace-as-root").exists());
}

#[test]
fn the_tier_and_what_was_proved_stand_in_every_record() {
    let world = world("");

    let said = world.json(&["exec", "--json", "--", "true"]);

    let walls = &said["enforcement"];
    assert_eq!((&walls["tier"], &walls["namespaces"]), (&json!("landlock"), &json!([])), "{said}");
    assert_eq!((&walls["noNewPrivs"], &walls["noCapabilities"]), (&json!(true), &json!(true)));
    assert_eq!(walls["seccompFilters"], 1);
    let recorded = world.events("exec.finished")[0]["enforcement"].as_str().unwrap().to_owned();
    assert!(recorded.contains("landlock") && !recorded.contains("+pid"), "{recorded}");
    let probe = world.run(&["sandbox", "probe"]).exits(0);
    for act in ["see-state", "see-connections", "signal-keeper", "datagrams", "mode", "file-flags", "priority", "lease"]
    {
        assert!(probe.contains(act), "{act}: {probe}");
    }
    // A bind that is not there, and a link in its place, are no walls to build.
    let (missing, link) = (world.dir.join("missing"), world.dir.join("link"));
    std::os::unix::fs::symlink(world.make_dir("real"), &link).unwrap();
    for path in [missing, link] {
        let ran = world.run(&["sandbox", "run", "--ro", path.to_str().unwrap(), "--", "true"]);
        assert_ne!(ran.code, 0, "{ran:?}");
    }
}

#[test]
fn a_workspace_is_writable_read_only_or_private_and_further_folders_are_as_asked() {
    for access in ["rw", "ro", "none"] {
        let world = World::new(User::Ordinary).locked_down();
        let folder = world.make_dir("scratch");
        for folder in ["ws", "more-ro", "more-rw", "not-shown"] {
            world.make_dir(folder);
            world.write(&format!("{folder}/file"), b"here");
        }
        let world = world
            .config(&format!(
                "[defaults.sandbox]\nleast_tier = \"landlock\"\n[agents.main]\nworkspace = \"@/ws\"\n\
                 sandbox = {{ workspace_access = \"{access}\", ro = [\"@/more-ro\"], rw = [\"@/more-rw\"] }}\n"
            ))
            .variable("TMPDIR", &folder)
            .start();
        let at = |folder: &str| world.dir.join(folder).display().to_string();
        let rows = [
            ("ws", access != "none", access == "rw"),
            ("more-ro", true, false),
            ("more-rw", true, true),
            ("not-shown", false, false),
        ];
        for (folder, readable, writable) in rows {
            let folder = at(folder);
            assert_eq!(world.exec(&["cat", &format!("{folder}/file")]).code == 0, readable, "{access} {folder}");
            for act in [
                "echo x > $F/new",
                "mkdir $F/d",
                "echo x >> $F/file",
                "rm $F/file; ! test -e $F/file",
                "mkfifo $F/p",
                "ln -s x $F/l",
            ] {
                let ran = world.sh(&act.replace("$F", &folder));
                assert_eq!(ran.code == 0, writable, "{access} {folder} {act}: {ran:?}");
            }
        }
        // Where the command begins, and what is its own.
        let line = "pwd; echo x > here && echo x > $HOME/x && echo x > $TMPDIR/x && test \"$PWD\" = \"$(pwd)\"";
        let ran = world.sh(line);
        match access {
            "ro" => assert_ne!(ran.code, 0),
            "rw" => assert_eq!(ran.exits(0).trim(), at("ws")),
            _ => assert!(ran.exits(0).contains("/scratch/vambrace-run-")),
        }
        world.sh("touch \"$HOME/x\" \"$TMPDIR/x\" && ls -A $HOME $TMPDIR | grep -c x").exits(0);
        assert_eq!(scratch(&world), Vec::<PathBuf>::new());
    }
}

#[test]
fn sessions_keep_their_home_and_their_scratch() {
    let world = world("scope = \"session\"\n");
    let run = |session: &str, line: &str| world.run(&["exec", "--session", session, "--", "sh", "-c", line]);
    run("one", "echo kept > ~/file; echo kept > $TMPDIR/file").exits(0);
    assert_eq!(run("one", "cat ~/file $TMPDIR/file").exits(0), "kept\nkept\n");
    assert_ne!(run("two", "cat ~/file").code, 0);
    // Another session's is not to be read by its path either.
    let home = run("one", "echo $HOME").exits(0);
    assert_ne!(run("two", &format!("cat {}/file", home.trim())).code, 0);
    assert_eq!(run("one", &format!("cat {}/file", home.trim())).exits(0), "kept\n");
}

#[test]
fn nothing_of_the_host_can_be_read_and_the_system_can() {
    let world = world("");
    let token = world.token();
    world.write("home/.secret", b"x");
    let outside = world.write("outside", b"precious").display().to_string();
    for path in [
        "/etc/shadow",
        "/etc/passwd",
        "/proc",
        "/proc/1/status",
        "/proc/net/tcp",
        "/proc/self/net/unix",
        "/proc/self/task",
        "/proc/kallsyms",
        "/proc/cmdline",
        "/sys/kernel",
        "/run",
        "/tmp",
        "/dev",
        "/dev/pts",
        "/dev/ptmx",
        "/dev/shm",
        "/home",
        "/",
        &outside,
        &world.dir.join("home/.secret").display().to_string(),
        &world.state().join("state.sqlite").display().to_string(),
        &world.state().display().to_string(),
        &format!("/proc/{}/environ", world.gateway_pid()),
        &format!("/proc/{}/status", world.runner_pid()),
    ] {
        refused(&world, &["read", path], "EACCES");
    }
    for path in ["/usr/bin", "/etc/ld.so.cache", "/proc/cpuinfo", "/proc/self/status", "/proc/self/fd", "/dev/null"] {
        done(&world, &["read", path]);
    }
    assert!(!world.exec(&["env"]).exits(0).contains(&token));
    // By a link, by a handle, by an attribute: still not.
    world.sh(&format!("ln -s {outside} link")).exits(0);
    refused(&world, &["read", &world.workspace().join("link").display().to_string()], "EACCES");
    refused(&world, &["write-handle", &outside], "EACCES");
    refused(&world, &["read-attribute", &outside, "user.x"], "EOPNOTSUPP");
    world.sh("ls -la . && ls -la /usr/bin").exits(0);
}

#[test]
fn nothing_outside_can_be_changed_by_any_call_and_the_workspace_can() {
    let world = World::new(User::Ordinary).locked_down();
    let scratch = world.make_dir("scratch");
    let shown = world.make_dir("shown").join("file").display().to_string();
    let world = world
        .config("[defaults.sandbox]\nleast_tier = \"landlock\"\n[agents.main]\nsandbox = { ro = [\"@/shown\"] }\n")
        .variable("TMPDIR", &scratch)
        .start();
    world.write("shown/file", b"shown");
    let outside = world.write("outside", b"precious").display().to_string();
    let facts = |path: &str| {
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec(), meta.nlink(), fs::read(path).unwrap())
    };
    let before = [facts(&shown), facts(&outside)];
    let inside = world.workspace().join("file");
    let mine = inside.display().to_string();
    let new = |name: &str| world.workspace().join(name).display().to_string();
    done(&world, &["write", &mine]);

    // Every call in turn: outside, shown read-only, inside.
    let everywhere = [
        ("write", "EACCES", "EACCES"),
        ("truncate", "EACCES", "EACCES"),
        ("unlink", "EACCES", "EACCES"),
        ("chmod", "EPERM", "EPERM"),
        ("touch", "EPERM", "EPERM"),
        ("utime", "EPERM", "EPERM"),
        ("chmod-handle", "EPERM", "EPERM"),
        ("chmod-empty", "EPERM", "EPERM"),
        ("chmod-open", "EACCES", "EPERM"),
        ("touch-open", "EACCES", "EPERM"),
    ];
    for (act, of_outside, of_shown) in everywhere {
        refused(&world, &[act, &outside], of_outside);
        refused(&world, &[act, &shown], of_shown);
        done(&world, &[act, &mine]);
        done(&world, &["write", &mine]);
    }
    for (act, errno) in [("chown", "EPERM"), ("set-attribute", "EOPNOTSUPP"), ("watch", "EPERM")] {
        refused(&world, &[act, &outside], errno);
        refused(&world, &[act, &shown], errno);
    }
    for (act, errno) in
        [("chown-open", "EPERM"), ("set-attribute-open", "EOPNOTSUPP"), ("set-flags", "EPERM"), ("lease", "EPERM")]
    {
        refused(&world, &[act, &outside], "EACCES");
        refused(&world, &[act, &shown], errno);
    }
    // A path that leads there in another way.
    for path in ["../../outside", "/proc/self/cwd/../../outside"] {
        assert_eq!(world.attack(&["chmod", path]).code, 1, "{path}");
        assert_eq!(world.attack(&["touch", path]).code, 1, "{path}");
    }
    world.sh(&format!("ln -s {outside} link; ln -s file inside-link; mkdir d; ln -s ../file d/up")).exits(0);
    refused(&world, &["chmod", &new("link")], "EPERM");
    refused(&world, &["chmod-by-proc", &outside], "ELOOP");
    for path in ["inside-link", "d/up", "d/../file", "./file"] {
        done(&world, &["chmod", path]);
    }
    assert_eq!(fs::metadata(&inside).unwrap().mode() & 0o7777, 0o755);
    refused(&world, &["chmod", "missing"], "ENOENT");
    done(&world, &["utime", "file"]);
    assert_eq!((fs::metadata(&inside).unwrap().mtime(), fs::metadata(&inside).unwrap().mtime_nsec()), (3, 4));
    // Neither moved in, nor linked, nor exchanged.
    for source in [&outside, &shown] {
        for act in ["link", "link-handle"] {
            refused(&world, &[act, source, &new("taken")], "EXDEV");
        }
        for act in ["rename", "exchange"] {
            assert_eq!(world.attack(&[act, source, &mine]).code, 1, "{act}");
            assert_eq!(world.attack(&[act, &mine, source]).code, 1, "{act}");
        }
    }
    done(&world, &["link", &mine, &new("second")]);
    done(&world, &["rename", &new("second"), &new("third")]);
    // No set-id bits, and no device.
    for act in
        [["chmod-suid", "file"], ["open-suid", "s"], ["creat-suid", "c"], ["mknod-suid", "m"], ["tmpfile-sgid", "."]]
    {
        refused(&world, &act, "EPERM");
    }
    assert_eq!(world.attack(&["mknod-device", "dev"]).code, 1);
    done(&world, &["mknod-fifo", "fifo"]);
    for path in ["/usr/x", "/tmp/vambrace-x", "/dev/shm/x", "/x", "/var/tmp/vambrace-x", "/proc/self/oom_score_adj"] {
        assert_eq!(world.attack(&["write", path]).code, 1, "{path}");
    }
    assert_eq!([facts(&shown), facts(&outside)], before);
}

#[test]
fn no_process_outside_can_be_signalled_changed_or_traced_and_ones_own_can() {
    let world = world("");
    let other = bystander(&world);
    let id = other.0.id().to_string();
    let before = stat(other.0.id());
    for act in [
        "kill",
        "tgkill",
        "sigqueue",
        "pidfd-signal",
        "join-group",
        "limits-of",
        "affinity-of",
        "idle",
        "nice",
        "ionice",
    ] {
        for pid in [&id, &world.gateway_pid().to_string(), &world.runner_pid().to_string()] {
            refused(&world, &[act, pid], "EPERM");
        }
    }
    for act in ["nice-user", "nice-group", "ionice-user"] {
        refused(&world, &[act, "0"], "EPERM");
    }
    for act in ["affinity-of", "idle", "nice", "ionice", "limits-of"] {
        done(&world, &[act, "0"]);
    }
    // To everybody, and by the kernel in one's name: it reaches nobody outside.
    done(&world, &["signal-by-pipe", &id]);
    world.sh("sleep 100 & kill -KILL -1; wait $!; test $? = 137").exits(0);
    world.sh("kill -TERM -1; kill -STOP $PPID; kill -KILL $PPID; exit 3").exits(3);
    world.sh("sleep 100 & kill $! && ! wait $! && nice -n 5 true && setsid true").exits(0);
    for act in ["ptrace-init", "ptrace-child", "read-init-memory", "open-init-memory"] {
        assert_eq!(world.attack(&[act]).code, 1, "{act}");
    }
    let after = stat(other.0.id());
    assert!(matches!(after[0].as_str(), "S" | "R"), "it is stopped or gone: {after:?}");
    assert_eq!(after[16], before[16], "its priority");
    assert_eq!(world.exec(&["echo", "all there"]).exits(0), "all there\n");
    assert!(world.events("runner.restarted").is_empty());
}

#[test]
fn no_socket_leads_out_and_pairs_of_ones_own_work() {
    let world = world("");
    let datagrams = world.dir.join("datagrams");
    let listening = world.dir.join("listening");
    let (datagram, stream) = (UnixDatagram::bind(&datagrams).unwrap(), UnixListener::bind(&listening).unwrap());
    for path in [&datagrams, &listening] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    datagram.set_nonblocking(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    let (datagrams, listening) = (datagrams.display().to_string(), listening.display().to_string());
    let ways = [
        ["send-to-path", &datagrams],
        ["connect-datagrams", &datagrams],
        ["connect-pair", &listening],
        ["connect-packets", &listening],
        ["bind-pair", "vambrace-squatted"],
        ["socket-unix", ""],
        ["socket-route", ""],
        ["socket-inet", ""],
        ["udp", "127.0.0.1"],
    ];
    for way in ways {
        refused(&world, &way, "EPERM");
    }
    refused(&world, &["connect", "127.0.0.1", &port], "EPERM");
    refused(&world, &["shared-memory"], "EPERM");
    refused(&world, &["message-queue"], "ENOSYS");
    done(&world, &["socketpair"]);

    // With the host's network the internet is there, and unix sockets are not.
    let open = self::world("network = \"host\"\n");
    done(&open, &["connect", "127.0.0.1", &port]);
    done(&open, &["own-loopback"]);
    done(&open, &["socketpair"]);
    for way in
        [["send-to-path", &datagrams], ["connect-datagrams", &datagrams], ["socket-unix", ""], ["socket-audit", ""]]
    {
        refused(&open, &way, "EPERM");
    }
    for way in ["connect-pair", "connect-packets"] {
        assert_eq!(open.attack(&[way, &listening]).code, 1, "{way}");
    }
    assert!(datagram.recv(&mut [0; 8]).is_err() && stream.accept().is_err());
}

#[test]
fn the_kernels_further_doors_are_shut_here_as_well() {
    let world = world("");
    for act in [
        "io_uring",
        "bpf",
        "perf",
        "userfaultfd",
        "keyctl",
        "add_key",
        "name_to_handle",
        "open_by_handle",
        "personality",
        "tiocsti",
        "tioclinux",
        "io_setup",
        "huge-mmap",
        "huge-memfd",
        "mount",
        "umount",
        "fsopen",
        "open_tree",
        "pivot_root",
        "chroot",
        "unshare-user",
        "unshare-mount",
        "clone-user",
        "clone-net",
        "sethostname",
        "reboot",
    ] {
        refused(&world, &[act], "EPERM");
    }
    for act in ["clone3", "unknown-call"] {
        refused(&world, &[act], "ENOSYS");
    }
    for act in ["x32", "int80"] {
        assert_eq!(world.attack(&[act]).code, 128 + 31, "{act}");
    }
    for act in ["memfd", "clone-plain", "setuid-self", "kill-self"] {
        assert_eq!(world.attack(&[act, "0"]).code, 0, "{act}");
    }
    for act in ["setuid-root", "setgid-root", "setgroups"] {
        assert_eq!(world.attack(&[act]).code, 1, "{act}");
    }
    let status = world.sh("exec cat /proc/self/status").exits(0);
    for line in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert!(status.contains(&format!("{line}:\t0000000000000000")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert_eq!(world.sh("exec ls /proc/self/fd").exits(0), "0\n1\n2\n3\n");
}

#[test]
fn what_this_tier_cannot_give_is_refused_by_its_name() {
    let lists = "[agents.main]\nexec = { sandbox_mode = \"allowlist\", allow = [\"/usr/bin/true\"] }\n";
    let domains = "[agents.main]\nsandbox = { network = \"allowlist\", allow_domains = [\"example.com\"] }\n";
    for (settings, words) in [(lists, "a list of executables needs"), (domains, "a network that is an allowlist needs")]
    {
        let world = world(settings);
        world.exec(&["true"]).fails(125, words);
        assert_eq!(world.events("exec.failed").len(), 1);
    }
    let world = world("");
    world.run_with_input(&["secrets", "set", "KEY", "--agent", "main"], b"a-long-enough-value").exits(0);
    world.run(&["exec", "--secret", "KEY", "--", "true"]).fails(125, "secrets that are files need");
    let line = "test \"$KEY\" = a-long-enough-value";
    world.run(&["exec", "--secret-env", "KEY", "--", "sh", "-c", line]).exits(0);
}

#[test]
fn nothing_survives_any_end_of_a_command() {
    let world = world("[defaults.sandbox.limits]\noutput = \"64K\"\n");
    let mark = mark(86501);
    let gone = |what: &str| {
        assert_eq!(processes_with(mark), Vec::<i32>::new(), "{what}");
        assert_eq!(scratch(&world), Vec::<PathBuf>::new(), "{what}");
    };
    let leaves = format!("setsid sleep {mark} & (sleep {mark} &); nohup sleep {mark} >/dev/null 2>&1 & ");
    world.sh(&format!("{leaves} exit 0")).exits(0);
    gone("exit");
    let deaf = format!("{leaves} trap '' TERM INT HUP; while :; do sleep {mark}; done");
    world.run(&["exec", "--timeout", "300ms", "--", "sh", "-c", &deaf]).exits(124);
    gone("timeout");
    world.sh(&format!("{leaves} yes")).fails(137, "wrote more than it may");
    gone("output limit");
    // Stopped, closed to its owner, deeper than a path.
    let rude = format!("sleep {mark} & kill -STOP $!; mkdir -p $TMPDIR/a/b; chmod 0 $TMPDIR/a $HOME; exit 0");
    world.sh(&rude).exits(0);
    gone("stopped");
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sh", "-c", format!("{leaves} sleep {mark}")]}));
    let run = ws.event("exec.started")["runId"].clone();
    eventually("they run", || processes_with(mark).len() >= 4);
    assert_eq!(ws.call("exec.cancel", json!({"runId": run}))["ok"], true);
    assert_eq!(ws.response(&id)["payload"]["ending"], "cancelled");
    gone("cancel");
    let failed = world.exec(&["no-such-command"]);
    failed.fails(127, "command not found");
    gone("not found");
}

#[test]
fn processes_that_fork_faster_than_anybody_looks_end_with_their_command() {
    let world = world("");
    world.exec(&["true"]).exits(0);
    let mark = mark(86502);
    for _ in 0..3 {
        // Each generation is gone when the next one is there, for as long as it is let; in sessions of their own.
        let line = format!("{} flee {mark}; {0} flee {mark}; sleep 0.1", world.workspace().join("attacks").display());
        done(&world, &["kill-self"]);
        world.sh(&line).exits(0);
        assert_eq!(processes_with(mark), Vec::<i32>::new());
        assert_eq!(threads_of_attacks(&world), 0);
        world.run(&["exec", "--timeout", "300ms", "--", "sh", "-c", ":(){ :|:& };: ; sleep 100"]);
    }
    assert_eq!(world.exec(&["echo", "alive"]).exits(0), "alive\n");

    /// Processes of any generation.
    fn threads_of_attacks(world: &World) -> usize {
        processes_with(world.workspace().join("attacks").to_str().unwrap()).len()
    }
}

#[test]
fn the_end_of_runner_gateway_or_keeper_is_the_end_of_the_command() {
    let mut world = world("");
    let mark = mark(86503);
    let line = format!("setsid sleep {mark} & sleep {mark}");
    let other = bystander(&world);
    let begin = |world: &World| {
        let mut ws = world.connect();
        let id = ws.ask("exec.run", json!({"command": ["sh", "-c", line]}));
        eventually("both run", || processes_with(mark).len() >= 3);
        (ws, id)
    };
    let gone = |world: &World| {
        eventually("no process of it is left", || processes_with(mark).is_empty());
        eventually("no scratch folder is left", || scratch(world).is_empty());
    };

    let runner = world.runner_pid();
    let (mut ws, id) = begin(&world);
    kill(Pid::from_raw(runner), Signal::SIGKILL).unwrap();
    assert_eq!(ws.response(&id)["error"]["details"]["code"], "RUNNER_GONE");
    gone(&world);
    eventually("another runner is there", || world.status()["runner"]["connected"] == true);

    let (ws, _) = begin(&world);
    world.stop(Signal::SIGKILL);
    gone(&world);
    drop(ws);
    world.start_again();
    let (ws, _) = begin(&world);
    world.stop(Signal::SIGTERM);
    gone(&world);
    drop(ws);
    world.start_again();

    // The keeper, which only somebody outside can kill: the command itself goes with it, and the run is told to have failed.
    // What the command has started in a session of its own is what may be left; see SECURITY.md.
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sleep", mark]}));
    eventually("it runs", || !processes_with(&format!("sleep\0{mark}")).is_empty());
    let runner = world.runner_pid();
    let keeper = fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
    kill(Pid::from_raw(keeper.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    let response = ws.response(&id);
    assert_eq!(
        (&response["payload"]["ending"], &response["payload"]["exitCode"]),
        (&json!("signaled"), &json!(137)),
        "{response}"
    );
    gone(&world);
    assert_eq!(world.exec(&["echo", "again"]).exits(0), "again\n");
    assert_ne!(stat(other.0.id())[0], "Z");
}

#[test]
fn a_lockdown_stops_and_thaws_and_kills_all_of_a_command() {
    let world = world("");
    let mark = mark(86504);
    let mut ws = world.connect();
    let line = format!("setsid sleep {mark} & sleep {mark} & read line; echo after $line; exit 7");
    let id = ws.ask("exec.run", json!({"command": ["sh", "-c", line], "stdin": true}));
    let run = ws.event("exec.started")["runId"].clone();
    let sleeping = || processes_with(&format!("sleep\0{mark}"));
    eventually("all run", || sleeping().len() == 2);
    let states = || sleeping().iter().map(|pid| stat(*pid as u32)[0].clone()).collect::<Vec<_>>();
    let other = bystander(&world);

    world.run(&["lockdown", "on"]).exits(0);

    eventually("all stand still", || states() == ["T", "T"]);
    assert_ne!(stat(other.0.id())[0], "T");
    world.exec(&["true"]).fails(126, "lockdown");
    world.run(&["lockdown", "off"]).exits(0);
    eventually("all go on", || states().iter().all(|state| state != "T"));
    let said = ws.call("exec.input", json!({"runId": run, "data": "aGVyZQo=", "eof": true}));
    assert_eq!(said["ok"], true, "{said}");
    assert_eq!(ws.response(&id)["payload"]["exitCode"], 7);
    assert_eq!(sleeping(), Vec::<i32>::new());

    ws.ask("exec.run", json!({"command": ["sh", "-c", format!("setsid sleep {mark} & sleep {mark}")]}));
    eventually("both run", || sleeping().len() == 2);
    world.run(&["lockdown", "on", "--kill"]).exits(0);
    eventually("both are gone", || sleeping().is_empty());
    assert_ne!(stat(other.0.id())[0], "Z");
}

#[test]
fn a_terminal_of_its_own_works_and_no_other_is_in_reach() {
    let world = world("");
    let mut ws = world.connect();
    let line = "test \"$(stty size)\" = '31 97' && tty | grep -q ^/dev/pts/ && echo x > /dev/tty && ! ls /dev/pts";
    let terminal = json!({"rows": 31, "columns": 97});
    let id = ws.ask("exec.run", json!({"command": ["sh", "-c", line], "terminal": terminal}));
    let response = ws.response(&id);
    assert_eq!(response["payload"]["exitCode"], 0, "{response}");
    let shown = world.run(&["exec", "--json", "--", "sh", "-c", "tty"]);
    assert!(shown.stdout.contains("not a tty"), "{shown:?}");
    // Without one there is no terminal to be had, by name or anew.
    for path in ["/dev/ptmx", "/dev/pts/ptmx", "/dev/pts/0", "/dev/console"] {
        assert_eq!(world.attack(&["read", path]).code, 1, "{path}");
    }
    refused(&world, &["read", "/dev/tty"], "ENXIO");
}

#[test]
fn processes_memory_files_and_disk_are_bounded() {
    let limits = "[defaults.sandbox.limits]\npids = 100\nmemory = \"64M\"\ndisk = \"8M\"\n";
    let world = world(limits);
    let many = format!("for i in $(seq 300); do sleep {} & done; echo started; kill $(jobs -p); wait", mark(86505));
    let ran = world.run(&["exec", "--timeout", "10s", "--", "sh", "-c", &many]);
    assert!(ran.stderr.to_lowercase().contains("fork"), "{ran:?}");
    world.sh("for i in 1 2 3 4 5; do sleep 0.1 & done; wait").exits(0);
    let hog = world.exec(&["python3", "-c", "x = bytearray(300 << 20); print(len(x))"]);
    assert_ne!(hog.code, 0, "{hog:?}");
    world.exec(&["python3", "-c", "print(len(bytearray(8 << 20)))"]).exits(0);
    // Scratch folders lie on the host's disk here, and count. Other tests free some meanwhile, which hides as much.
    let fill = "for i in $(seq 2000); do head -c 1000000 /dev/zero > $TMPDIR/$i; done; sleep 100";
    world.run(&["exec", "--timeout", "30s", "--", "sh", "-c", fill]).fails(137, "disk");
    world.sh("head -c 1000000 /dev/zero > $TMPDIR/file").exits(0);
    assert_eq!(scratch(&world), Vec::<PathBuf>::new());
}

#[test]
fn the_commonest_tools_work_here_or_fail_for_a_stated_reason() {
    let world = world("");
    for line in [
        "bash -c 'echo ${BASH_VERSION%%.*}'",
        "python3 -c 'import ssl, json, subprocess; print(subprocess.check_output([\"true\"]))'",
        "perl -e 'print qx(echo ok)'",
        "mkdir d && touch d/a && tar -cf t.tar d && rm -r d && tar -xf t.tar && test -e d/a",
        "printf '#include <stdio.h>\\nint main(){puts(\"ok\");}' > c.c && gcc c.c -o c && ./c",
        "printf 'all:\\n\\techo made\\n' > Makefile && make",
        "git init -q r && cd r && echo x > f && git add f && git -c user.name=a -c user.email=b commit -q -m x && git log --oneline",
        "touch a && cp -p a b && mv b e && install -m 755 a x && test -x x && chmod -x x && ! test -x x && cp -a a y",
        "printf '#!/bin/sh\\necho ok' > s && chmod +x s && ./s",
        "echo a b | awk '{print $2}' | sed s/b/c/ | sort | uniq -c",
        "find . -name '*.c' | xargs ls -la && date && nproc && df . >/dev/null && du -s .",
        "mkfifo f && (echo x > f &) && cat f",
        "test -w \"$(mktemp)\" && bash -c 'cat <(echo x)'",
    ] {
        let ran = world.sh(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    }
    // Other processes, other terminals, shared memory by name: the host's own, so not shown.
    for (line, words) in [
        ("ps aux", "/proc"),
        ("script -qc true /dev/null", "pseudo-terminal"),
        ("python3 -c 'import multiprocessing as m; m.Lock()'", "Permission denied"),
    ] {
        let ran = world.sh(line);
        assert!(ran.code != 0 && (ran.stderr + &ran.stdout).contains(words), "{line}");
    }
}

#[test]
fn runs_at_the_same_time_do_not_reach_each_other() {
    let world = world("");
    let mark = mark(86506);
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sh", "-c", format!("echo secret > $TMPDIR/file; sleep {mark}")]}));
    let sleeping = || processes_with(&format!("sleep\0{mark}"));
    eventually("it runs", || sleeping().len() == 1);
    let folder = scratch(&world).remove(0);
    let pid = sleeping()[0].to_string();

    refused(&world, &["kill", &pid], "EPERM");
    refused(&world, &["read", &folder.join("tmp/file").display().to_string()], "EACCES");
    refused(&world, &["chmod", &folder.join("tmp").display().to_string()], "EPERM");
    refused(&world, &["read", &format!("/proc/{pid}/environ")], "EACCES");
    world.sh("kill -KILL -1; exit 0").exits(0);

    assert_eq!(sleeping().len(), 1);
    kill(Pid::from_raw(sleeping()[0]), Signal::SIGTERM).unwrap();
    ws.response(&id);
}
