//! The walls: for each, what is allowed works and its forbidden neighbour fails. In both tiers.

use crate::engine::Dock;
use crate::world::*;
use serde_json::json;
use std::fs;
use std::net::TcpListener;

fn in_both_tiers(check: impl Fn(&World)) {
    for user in USERS {
        check(&World::running(user));
    }
}

/// One list of attacks for both backends.
fn in_every_backend(check: impl Fn(&World)) {
    in_both_tiers(&check);
    for user in USERS {
        check(&Dock::with(user, "scope = \"agent\"\n").world);
    }
}

#[test]
fn the_gateways_own_state_cannot_be_seen_and_the_workspace_can() {
    in_both_tiers(|world| {
        let token = world.token();
        let state = world.state();
        world.sh("echo mine > file").exits(0);
        assert_eq!(world.exec(&["cat", "/workspace/file"]).exits(0), "mine\n");
        for path in [state.join("state.sqlite"), state.join("salt"), state.join("journal"), state] {
            let ran = world.exec(&["ls", "-la", path.to_str().unwrap()]);
            assert!(ran.code != 0 && ran.stderr.contains("No such file"), "{ran:?}");
        }
        let found = world.sh(&format!("grep -rsl {token} / --exclude-dir=proc --exclude-dir=usr; true")).exits(0);
        assert_eq!(found, "");
        // The gateway and the runner are not even visible, nor is their environment or memory.
        let seen = world.sh("cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; true").exits(0);
        let dir = world.dir.file_name().unwrap().to_str().unwrap();
        assert!(seen.contains("sandbox-init"), "{seen}");
        assert!(!seen.contains("gateway") && !seen.contains("runner") && !seen.contains(&format!("/{dir}/")), "{seen}");
    });
}

#[test]
fn nothing_of_a_home_folder_or_the_hosts_configuration_is_there() {
    in_both_tiers(|world| {
        world.write("home/.secret", b"x");
        for path in [
            "/etc/shadow",
            "/etc/sudoers",
            "/etc/ssh",
            "/root/.bashrc",
            "/var/log",
            "/boot/grub",
            "/run/user",
            "/sys/kernel",
        ] {
            assert_ne!(world.exec(&["ls", path]).code, 0, "{path}");
        }
        let home = world.dir.join("home");
        assert_ne!(world.exec(&["ls", home.to_str().unwrap()]).code, 0);
        assert_eq!(
            world.sh("ls -A /home /root /var /srv /opt /run /sys /mnt /media").exits(0).matches("secret").count(),
            0
        );
        // The users inside are three, and none is a person of the host.
        assert_eq!(world.sh("wc -l < /etc/passwd").exits(0), "3\n");
        world.sh("cat /etc/os-release /etc/ld.so.cache > /dev/null && test -x /usr/bin/env").exits(0);
    });
}

#[test]
fn the_system_is_read_only_and_cannot_be_emptied_by_truncate() {
    in_both_tiers(|world| {
        for path in [
            "/usr/x",
            "/usr/bin/env",
            "/etc/passwd",
            "/etc/ld.so.cache",
            "/x",
            "/bin/x",
            "/proc/sys/kernel/hostname",
            "/home/x",
        ] {
            let ran = world.attack(&["write", path]);
            assert_eq!(ran.code, 1, "{path}: {ran:?}");
            // A new file is refused by the mount itself; Landlock, behind it, would say EACCES.
            let by_the_mount = ran.stdout == "EROFS\n";
            assert!(by_the_mount || (!path.ends_with("/x") && ran.stdout == "EACCES\n"), "{path}: {ran:?}");
        }
        for path in ["/usr/bin/env", "/etc/ld.so.cache", "/etc/passwd"] {
            assert_eq!(world.attack(&["truncate", path]).code, 1, "{path}");
        }
        for path in ["/workspace/x", "/tmp/x", "/home/agent/x", "/dev/shm/x"] {
            assert_eq!(world.attack(&["write", path]).code, 0, "{path}");
        }
        world.write("state-workspaces/main/full", b"content");
        assert_eq!(world.attack(&["truncate", "/workspace/full"]).code, 0);
        assert_eq!(fs::read(world.workspace().join("full")).unwrap(), b"");
    });
}

#[test]
fn scratch_folders_are_private_and_hold_no_code() {
    in_both_tiers(|world| {
        world.sh("echo x > /tmp/left; echo x > /dev/shm/left; echo x > ~/left").exits(0);
        assert_eq!(world.sh("ls -A /tmp /dev/shm ~ | grep -c left; true").exits(0), "0\n");
        assert!(!std::path::Path::new("/tmp/left").exists());
        for folder in ["/tmp", "/dev/shm", "/home/agent"] {
            let ran = world.sh(&format!("cp /usr/bin/env {folder}/code && {folder}/code true"));
            assert_eq!(ran.code, 126, "{folder}: {ran:?}");
        }
        assert_eq!(world.attack(&["map-exec-tmp"]).stdout, "EPERM\n");
        world.sh("cp /usr/bin/env code && ./code true").exits(0);
    });
}

#[test]
fn no_process_of_the_host_can_be_seen_signalled_or_read() {
    in_both_tiers(|world| {
        let pids = world.sh("ls /proc | grep -c '^[0-9]'").exits(0).trim().parse::<u32>().unwrap();
        assert!(pids <= 6, "{pids} processes are visible");
        for pid in [world.gateway_pid(), world.runner_pid(), std::process::id() as i32] {
            assert_eq!(world.attack(&["kill", &pid.to_string()]).stdout, "ESRCH\n");
        }
        assert_eq!(world.attack(&["kill-self"]).code, 0);
        for act in ["ptrace-init", "ptrace-child", "read-init-memory", "open-init-memory"] {
            assert_eq!(world.attack(&[act]).code, 1, "{act}");
        }
    });
}

#[test]
fn the_network_is_its_own_loopback_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    in_every_backend(|world| {
        assert_eq!(world.attack(&["own-loopback"]).code, 0);
        assert_eq!(world.attack(&["connect", "127.0.0.1", &port]).stdout, "ECONNREFUSED\n");
        assert_eq!(world.attack(&["connect", "127.0.0.1", &world.port().to_string()]).stdout, "ECONNREFUSED\n");
        for address in ["192.0.2.1", "169.254.169.254", "10.0.0.1"] {
            assert_eq!(world.attack(&["connect", address, "80"]).stdout, "ENETUNREACH\n", "{address}");
            assert_eq!(world.attack(&["udp", address]).stdout, "ENETUNREACH\n", "{address}");
        }
        assert_eq!(world.sh("cat /proc/net/dev | grep -c :").exits(0), "1\n");
    });
    // The twin: with the host's network the very same connection is made.
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox]\nnetwork = \"host\"\n").start();
        assert_eq!(world.attack(&["connect", "127.0.0.1", &port]).code, 0);
        let finished = world.events("exec.finished");
        assert!(!finished[0]["enforcement"].as_str().unwrap().contains("+net"), "{finished:?}");
    }
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach_even_on_its_network() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("vambrace-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    for user in USERS {
        for network in ["none", "host"] {
            let world = World::new(user).config(&format!("[defaults.sandbox]\nnetwork = \"{network}\"\n")).start();
            let ran = world.attack(&["abstract", &name]);
            let expected = if network == "none" { "ECONNREFUSED\n" } else { "EPERM\n" };
            assert_eq!(ran.stdout, expected, "{user:?} {network}");
        }
    }
}

#[test]
fn the_walls_cannot_be_changed_from_inside() {
    in_every_backend(|world| {
        for act in [
            "mount",
            "umount",
            "remount",
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
            let ran = world.attack(&[act]);
            assert_eq!((ran.code, ran.stdout.as_str()), (1, "EPERM\n"), "{act}");
        }
        assert_eq!(world.attack(&["setns"]).code, 1);
        assert_eq!(world.attack(&["clone-plain"]).code, 0);
    });
}

#[test]
fn the_kernels_further_doors_are_shut_and_the_ordinary_ones_open() {
    in_every_backend(|world| {
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
            "socket-audit",
            "socket-packet",
            "socket-alg",
            "socket-vsock",
            "tiocsti",
            "tioclinux",
            "io_setup",
            "sctp",
            "dccp",
            "dccp6",
            "internet-packets",
            "line-discipline",
            "huge-mmap",
            "huge-memfd",
        ] {
            let ran = world.attack(&[act]);
            assert_eq!((ran.code, ran.stdout.as_str()), (1, "EPERM\n"), "{act}");
        }
        assert_eq!(world.attack(&["socket-raw"]).code, 1);
        for act in ["clone3", "unknown-call"] {
            assert_eq!(world.attack(&[act]).stdout, "ENOSYS\n", "{act}");
        }
        for act in ["x32", "int80"] {
            assert_eq!(world.attack(&[act]).code, 128 + 31, "{act} is not killed by SIGSYS");
        }
        for act in ["memfd", "socket-inet", "socket-udp", "socket-unix", "unix-packets", "socket-route"] {
            assert_eq!(world.attack(&[act]).code, 0, "{act}");
        }
    });
}

#[test]
fn nobody_who_writes_is_held_up_by_a_command_that_reads() {
    in_every_backend(|world| {
        world.attack(&["kill-self"]);
        world.write("state-workspaces/main/file", b"x");
        assert_eq!(world.attack(&["lease", "/workspace/file"]).stdout, "EPERM\n");
        assert_eq!(world.attack(&["read", "/workspace/file"]).code, 0);
    });
}

#[test]
fn no_privilege_is_left_and_none_can_be_made() {
    in_every_backend(|world| {
        let status = world.sh("cat /proc/self/status").exits(0);
        for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{line}:\t0000000000000000")), "{line}: {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        for act in ["setuid-root", "setgid-root", "setgroups"] {
            assert_eq!(world.attack(&[act]).code, 1, "{act}");
        }
        assert_eq!(world.attack(&["setuid-self"]).code, 0);
        world.write("state-workspaces/main/file", b"");
        assert_eq!(world.attack(&["chmod", "/workspace/file"]).code, 0);
        for act in
            [["chmod-suid", "/workspace/file"], ["open-suid", "/workspace/new"], ["mknod-device", "/workspace/dev"]]
        {
            assert_eq!(world.attack(&act).code, 1, "{act:?}");
        }
        assert_eq!(world.attack(&["mknod-fifo", "/workspace/fifo"]).code, 0);
        let uid = world.exec(&["id", "-u"]).exits(0).trim().parse::<u32>().unwrap();
        assert_ne!(uid, 0);
        if world.user == User::Root {
            assert!((0x6fff_0000..0x8000_0000).contains(&uid), "a root runner gives a uid of its own, not {uid}");
        }
    });
}

#[test]
fn devices_are_six_and_descriptors_three() {
    in_both_tiers(|world| {
        let devices = world.sh("ls /dev").exits(0);
        assert_eq!(
            devices.split_whitespace().collect::<Vec<_>>(),
            [
                "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
                "zero"
            ]
        );
        world.sh("echo x > /dev/null && head -c 8 /dev/urandom > /dev/null && test \"$(head -c 4 /dev/zero | wc -c)\" = 4").exits(0);
        // The fourth is ls's own, on the folder it lists.
        assert_eq!(world.sh("ls /proc/self/fd").exits(0), "0\n1\n2\n3\n");
        // A lock that belongs to what is open, not to a process, is shown in every pid namespace.
        let locked = fs::File::create(world.dir.join("locked")).unwrap();
        let whole = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        nix::fcntl::fcntl(&locked, nix::fcntl::FcntlArg::F_OFD_SETLK(&whole)).unwrap();
        for file in ["kcore", "kallsyms", "keys", "timer_list", "kmsg", "config.gz", "interrupts", "locks"] {
            assert_eq!(world.sh(&format!("cat /proc/{file} 2>/dev/null | wc -c")).exits(0), "0\n", "{file}");
        }
        world.sh("grep -q . /proc/cpuinfo && grep -q . /proc/meminfo && grep -q . /proc/self/status").exits(0);
    });
}

#[test]
fn what_reaches_out_of_a_sandbox_is_refused_and_its_twin_inside_works_in_every_backend() {
    in_every_backend(|world| {
        for path in ["/usr/x", "/bin/x", "/x", "/home/x", "/proc/sys/kernel/hostname"] {
            let ran = world.attack(&["write", path]);
            assert!(ran.code == 1 && ["EROFS\n", "EACCES\n"].contains(&ran.stdout.as_str()), "{path}: {ran:?}");
        }
        for path in ["/workspace/x", "/tmp/x", "/home/agent/x", "/dev/shm/x"] {
            assert_eq!(world.attack(&["write", path]).code, 0, "{path}");
        }
        for pid in [world.gateway_pid(), std::process::id() as i32] {
            assert_eq!(world.attack(&["kill", &pid.to_string()]).stdout, "ESRCH\n");
        }
        assert_eq!(world.attack(&["kill-self"]).code, 0);
        for act in ["ptrace-init", "ptrace-child", "read-init-memory", "open-init-memory"] {
            assert_eq!(world.attack(&[act]).code, 1, "{act}");
        }
        // An ordinary user can give an engine paths alone, whose folders may hold code where there is no list of it.
        let is_given_paths = world.user == User::Ordinary && world.status()["dockerRunner"].is_object();
        let mapped = if is_given_paths { "" } else { "EPERM\n" };
        assert_eq!(world.attack(&["map-exec-tmp"]).stdout, mapped);
        world.sh("ln -s /etc/hostname in; ln -s /proc/1/root/etc out; echo x > own; ln -s own to").exits(0);
        assert_eq!(world.sh("cat to; test -r in").exits(0), "x\n");
        assert_ne!(world.exec(&["ls", "out/"]).code, 0);
    });
}

#[test]
fn power_sockets_of_the_host_are_not_there() {
    in_both_tiers(|world| {
        let found = world.sh("find / -xdev -type s 2>/dev/null; ls -A /run").exits(0);
        // A folder that nothing may be written to, by which the walls are proved.
        assert_eq!(found.trim(), "proof", "{found}");
        let env = world.exec(&["env"]).exits(0);
        assert!(!env.contains("SSH_AUTH_SOCK") && !env.contains("DBUS"));
    });
}

#[test]
fn a_workspace_that_is_a_link_missing_or_a_place_of_ours_runs_nothing() {
    for user in USERS {
        let rows = [
            ("@/link", "open a folder of the profile"),
            ("@/missing", "open a folder of the profile"),
            ("@/file", "not a folder"),
            ("@/through/main", "not seen"),
            ("@/state", "place of the gateway"),
            ("@/state/journal", "place of the gateway"),
            ("@/state/none", "place of the gateway"),
            ("@", "place of the gateway"),
            ("/", "place of the gateway"),
            ("/etc", "/etc"),
            ("/proc/self", "/proc"),
            ("/run", "/run"),
            ("@/home", "home folder"),
            ("@/home/.ssh", ".ssh"),
        ];
        for (path, words) in rows {
            let world = World::new(user);
            for folder in ["real", "home/.ssh"] {
                world.make_dir(folder);
            }
            world.write("file", b"");
            std::os::unix::fs::symlink(world.dir.join("real"), world.dir.join("link")).unwrap();
            std::os::unix::fs::symlink(world.dir.join("real"), world.dir.join("through")).unwrap();
            let world = world.config(&format!("[agents.main]\nworkspace = \"{path}\"\n")).start();
            if path == "@/through/main" {
                // Links before the last part are resolved once, when the configuration is read.
                fs::create_dir(world.dir.join("real/main")).unwrap();
                world.exec(&["true"]).exits(0);
                continue;
            }
            world.exec(&["touch", "/workspace/x"]).fails(126, words);
            assert_eq!(world.events("exec.failed").len(), 1, "{path}");
            assert!(world.events("exec.finished").is_empty(), "{path}");
        }
    }
}

#[test]
fn a_link_in_the_workspace_leads_to_what_is_inside_the_walls_only() {
    in_both_tiers(|world| {
        world.sh("ln -s /etc/shadow s; ln -s ../../../../etc/passwd p; ln -s /proc/1/root/etc r").exits(0);
        assert_ne!(world.exec(&["cat", "s"]).code, 0);
        assert!(world.exec(&["cat", "p"]).exits(0).contains("agent:x:"));
        assert_ne!(world.exec(&["ls", "r/shadow"]).code, 0);
    });
}

#[test]
fn a_read_only_workspace_is_read_only_and_a_further_folder_is_shown_as_asked() {
    for user in USERS {
        let world = World::new(user).config(
            "[agents.main]\nworkspace = \"@/ws\"\nsandbox = { workspace_access = \"ro\", ro = [\"@/more-ro\"], rw = [\"@/more-rw\"] }\n",
        );
        for folder in ["ws", "more-ro", "more-rw"] {
            world.make_dir(folder);
            world.write(&format!("{folder}/file"), b"here");
        }
        let world = world.start();
        let at = |folder: &str| world.dir.join(folder).display().to_string();
        for (folder, writable) in [("/workspace".to_owned(), false), (at("more-ro"), false), (at("more-rw"), true)] {
            assert_eq!(world.sh(&format!("cat {folder}/file")).exits(0), "here");
            let ran = world.sh(&format!("echo x > {folder}/file || echo y > {folder}/new"));
            assert_eq!(ran.code == 0, writable, "{folder}: {ran:?}");
        }
        assert_eq!(fs::read(world.dir.join("ws/file")).unwrap(), b"here");
    }
}

#[test]
fn what_a_command_leaves_behind_dies_with_it() {
    in_both_tiers(|world| {
        let mark = format!("86400.{}", world.port());
        world
            .sh(&format!("setsid sleep {mark} & (sleep {mark} &) ; nohup sleep {mark} >/dev/null 2>&1 & exit 0"))
            .exits(0);
        assert_eq!(processes_with(&mark), Vec::<i32>::new());
        // One that ignores every signal it can, at the deadline.
        let ran = world.run(&[
            "exec",
            "--timeout",
            "300ms",
            "--",
            "sh",
            "-c",
            &format!("trap '' TERM INT HUP; while :; do sleep {mark}; done"),
        ]);
        ran.exits(124);
        assert_eq!(processes_with(&mark), Vec::<i32>::new());
    });
}

#[test]
fn a_fork_bomb_is_bounded_and_the_next_command_runs() {
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox.limits]\npids = 20\n").start();
        let ran = world.run(&[
            "exec",
            "--timeout",
            "5s",
            "--",
            "sh",
            "-c",
            &format!("for i in $(seq 50); do sleep {} & done; echo started; kill $(jobs -p); wait", mark(86403)),
        ]);
        assert!(ran.stderr.to_lowercase().contains("fork"), "{ran:?}");
        // Where a control group bounds them, the record says so.
        let finished = world.events("exec.finished").pop().unwrap();
        let by_group = world.json(&["exec", "--json", "--", "true"])["enforcement"]["limits"]["pids"] == "cgroup";
        let told = finished["limits_reached"] == json!(["pids"]) && ran.stderr.contains("limits.pids");
        assert_eq!(told, by_group, "{finished} {ran:?}");
        world.run(&["exec", "--timeout", "500ms", "--", "sh", "-c", ":(){ :|:& };: ; sleep 100"]);
        assert_eq!(processes_with(mark(86403)), Vec::<i32>::new());
        assert_eq!(world.exec(&["echo", "alive"]).exits(0), "alive\n");
    }
}

#[test]
fn memory_is_bounded_and_its_want_is_named() {
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox.limits]\nmemory = \"64M\"\n").start();
        world.exec(&["head", "-c", "1000", "/dev/zero"]).exits(0);
        let hog = world.exec(&["python3", "-c", "x = bytearray(300 << 20); print(len(x))"]);
        assert_ne!(hog.code, 0, "{hog:?}");
        let limits = world.json(&["exec", "--json", "--", "true"])["enforcement"]["limits"].clone();
        if limits["memory"] == "cgroup" {
            hog.fails(137, "more memory than it may have");
        } else {
            assert!(hog.stderr.contains("MemoryError"), "{hog:?}");
        }
        // What lies in /tmp is bounded as well.
        let full = world.sh("dd if=/dev/zero of=/tmp/big bs=1M count=400 2>&1; true");
        assert!(full.code != 0 || full.stdout.contains("No space left"), "{full:?}");
    }
}

#[test]
fn output_is_bounded_and_its_end_is_told() {
    let world = World::new(User::Ordinary).config("[defaults.sandbox.limits]\noutput = \"1M\"\n").start();
    let ran = world.exec(&["sh", "-c", "yes | head -c 1048576"]);
    assert_eq!(ran.exits(0).len(), 1 << 20);
    let ran = world.exec(&["yes"]);
    assert_eq!(ran.stdout.len(), 1 << 20);
    ran.fails(137, "wrote more than it may");
    assert_eq!(world.events("exec.finished")[1]["ending"], "output-limit");
}

/// The tools that developers and agents use most, each with the Debian package it is in and a tiny use that is real.
const TOOLS: &[(&str, &str)] = &[
    ("dash", "dash -c 'echo $((6*7))' | grep -x 42"),
    ("bash", "bash -c 'a=(x y z); echo ${a[-1]} ${BASH_VERSION%%.*}' | grep '^z '"),
    ("coreutils", "date && nproc && df . && du -s . && seq 3 | tac | sort -n | uniq | wc -l | grep 3 && sha256sum /usr/bin/env"),
    ("util-linux", "script -qc 'echo in a terminal' /dev/null && flock lock true && getopt a: -a x"),
    ("procps", "ps aux | grep -q ps && pgrep -x sh && free && uptime"),
    ("git", "git init -q r && cd r && git config user.name a && git config user.email b && echo x > f && git add f && \
      git commit -qm one && cd .. && git clone -q r c && git -C c log --oneline | grep one && git -C c status --short"),
    ("python3", "python3 -c 'import ssl, json, subprocess, sqlite3, multiprocessing.pool, tempfile, hashlib, ctypes
print(json.dumps(subprocess.check_output([\"true\"]).decode()), multiprocessing.pool.ThreadPool(2).map(abs, [-1]))
with tempfile.TemporaryDirectory() as d: print(d)'"),
    ("python3", "python3 -c 'import multiprocessing as m
with m.Pool(2) as p: print(p.map(abs, [-1, -2]))' | grep '1, 2'"),
    ("nodejs", "node -e 'console.log(require(\"child_process\").execSync(\"echo \" + [1,2].map(x => x * 2)).toString())' | grep 2,4"),
    ("nodejs", "node -e 'const h = require(\"http\"); const s = h.createServer((q, r) => r.end(\"served\")).listen(0, () =>
      h.get({port: s.address().port}, r => r.on(\"data\", d => { console.log(String(d)); s.close(); process.exit() })))' | grep served"),
    ("npm", "npm --version && cd $(mktemp -d -p .) && npm init -y > /dev/null && grep -q version package.json"),
    ("perl", "perl -MList::Util=sum -e 'print sum(1..4), qx(echo ok)' | grep 10ok"),
    ("gcc", "printf '#include <stdio.h>\\nint main(){puts(\"ok\");}' > c.c && gcc -O2 -g c.c -o c.out && ./c.out | grep ok"),
    ("g++", "printf '#include <iostream>\\n#include <thread>\\nint main(){std::thread t([]{std::cout << \"ok\\\\n\";});t.join();}' \
      > x.cc && g++ -pthread x.cc -o x && ./x | grep ok"),
    ("make", "printf 'all: b\\n\\techo made\\nb:\\n\\ttouch b\\n' > Makefile && make -j2 | grep made"),
    ("cmake", "mkdir cm && cd cm && printf 'cmake_minimum_required(VERSION 3.13)\\nproject(p C)\\nadd_executable(p p.c)\\n' \
      > CMakeLists.txt && echo 'int main(){return 0;}' > p.c && cmake -S . -B b > log && cmake --build b > log && b/p"),
    ("rustc", "echo 'fn main(){println!(\"ok\")}' > r.rs && /usr/bin/rustc r.rs -o rr && ./rr | grep ok"),
    ("cargo", "/usr/bin/cargo --offline init -q --vcs none --name hello hello && cd hello && /usr/bin/cargo --offline run -q | grep Hello"),
    ("ripgrep", "echo needle > hay && rg -n needle . | grep hay"),
    ("fd-find", "touch findme && fdfind findme | grep findme"),
    ("curl", "echo content > page && curl -sS file:///workspace/page | grep content && (python3 -m http.server 8000 2>/dev/null & \
      curl -sS --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8000/page | grep content; kill $!)"),
    ("wget", "echo content > page && (python3 -m http.server 8001 2>/dev/null & \
      wget -q --tries=20 --retry-connrefused --waitretry=1 -O got http://localhost:8001/page; kill $!; grep content got)"),
    ("jq", "echo '{\"a\": [1, 2]}' | jq '.a | add' | grep 3"),
    ("tar", "tar -czf t.tgz /etc/os-release 2>/dev/null && tar -xf t.tgz && grep -q . etc/os-release"),
    ("gzip", "seq 100 > n && gzip -k n && zcat n.gz | cmp - n"),
    ("xz-utils", "seq 100 > m && xz -k m && xzcat m.xz | cmp - m"),
    ("unzip", "echo x > z && zip -q z.zip z && rm z && unzip -q z.zip && grep x z"),
    ("sed", "echo a b > s && sed -i 's/b/c/' s && grep 'a c' s"),
    ("mawk", "echo a b | awk '{print $2}' | grep b"),
    ("findutils", "touch one.q && find . -name '*.q' -newer / -print0 | xargs -0 ls -la | grep one"),
    ("diffutils", "seq 3 > d1; seq 4 > d2; diff -u d1 d2 > d.patch || test $? = 1"),
    ("patch", "seq 3 > e1; seq 4 > e2; diff -u e1 e2 > e.patch || true; patch -s e1 e.patch && cmp e1 e2"),
    ("less", "less -V | head -1 && echo shown | less | grep shown"),
    ("vim-tiny", "echo one > v && vim.tiny -es -c '%s/one/two/' -c wq v; grep two v"),
    ("nano", "nano --version | head -1"),
    ("openssh-client", "ssh -V && ssh-keygen -q -t ed25519 -N '' -f key && ssh-keygen -lf key.pub"),
    ("rsync", "mkdir -p from && echo x > from/f && rsync -a from/ to/ && grep x to/f"),
    ("sqlite3", "sqlite3 db 'create table t(a); insert into t values (1),(2); select sum(a) from t' | grep 3"),
    ("openssl", "openssl rand -hex 8 && openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=x -days 1"),
    ("tmux", "tmux -S /tmp/s new -d 'echo in-tmux > /workspace/mux' && for n in $(seq 100); do test -s mux && break; sleep 0.1; done; \
      grep in-tmux mux"),
    ("file", "file /usr/bin/env | grep ELF"),
    ("bc", "echo '2^10' | bc | grep 1024"),
    ("coreutils", "mkfifo f.fifo && (echo x > f.fifo &) && cat f.fifo && stat -c %U . | grep agent && whoami | grep agent"),
];

#[test]
fn the_commonest_tools_work_inside() {
    in_both_tiers(|world| {
        for (package, line) in TOOLS {
            let ran = world.sh(&format!("set -e; {line}"));
            let missing = if ran.stderr.contains("not found") { "is it missing? apt-get install " } else { "of " };
            assert_eq!(ran.code, 0, "{:?} {missing}{package}: {line}: {ran:?}", world.user);
        }
    });
}

#[test]
fn a_wall_that_cannot_be_built_means_that_nothing_runs() {
    // A tier of namespaces whose number is used up: the kernel refuses the user namespace.
    let world = World::new(User::Ordinary);
    let spread = finish(world.bare_command("unshare").args(["-Ur", "sh", "-c",
        "echo 0 > /proc/sys/user/max_pid_namespaces; exec \"$0\" --state-dir \"$1\" sandbox run -- touch /tmp/ran"])
        .arg(program()).arg(world.state()));
    assert_eq!(spread.code, 125, "{spread:?}");
    assert!(spread.stderr.contains("a wall could not be built, so nothing was run"), "{spread:?}");
}

#[test]
fn sandbox_run_builds_the_same_walls_without_a_gateway() {
    for user in USERS {
        let world = World::new(user);
        let folder = world.make_dir("folder").display().to_string();
        let run = |arguments: &[&str]| world.run(&[&["sandbox", "run"], arguments].concat());
        assert_eq!(run(&["--", "sh", "-c", "echo $((6*7)); exit 5"]).exits(5), "42\n");
        run(&["--workspace", &folder, "--", "touch", "/workspace/made"]).exits(0);
        assert!(world.dir.join("folder/made").exists());
        run(&["--ro", &folder, "--", "sh", "-c", &format!("test -e {folder}/made && ! touch {folder}/more")]).exits(0);
        run(&["--rw", &folder, "--", "touch", &format!("{folder}/more")]).exits(0);
        run(&["--ro", "/etc", "--", "true"]).fails(126, "/etc");
        run(&["--", "cat", "/etc/shadow"]).exits(1);
        run(&["--", "no-such"]).fails(127, "not found");
        run(&["--timeout", "200ms", "--", "sleep", "100"]).fails(124, "ran out of time");
        let said = run(&["--json", "--", "true"]);
        let facts: serde_json::Value = serde_json::from_str(said.stderr.trim()).unwrap();
        assert_eq!(facts["enforcement"]["noCapabilities"], json!(true));
    }
}

#[test]
fn a_thousand_runs_leave_nothing_behind() {
    for user in USERS {
        let world = World::running(user);
        let runner = world.runner_pid();
        let count = |what: &str| fs::read_dir(format!("/proc/{runner}/{what}")).unwrap().count();
        // Containers of other tests come and go meanwhile; what they mount is in the engine's folders or in theirs.
        let root = world.dir.display().to_string();
        let is_others =
            |line: &&str| line.contains("/docker") || line.contains("/vambrace-test-") && !line.contains(&root);
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| !is_others(l)).count();
        world.exec(&["true"]).exits(0);
        world.rest();
        let before = (count("fd"), mounts(), groups(runner));
        let mut ws = world.connect();
        for _ in 0..1000 {
            assert_eq!(ws.call("exec.run", json!({"command": ["true"]}))["ok"], true);
        }
        world.rest();
        assert_eq!((count("fd"), mounts(), groups(runner)), before);
        // A namespace without a process would be one that the runner holds open.
        let held = fs::read_dir(format!("/proc/{runner}/fd")).unwrap().flatten();
        let held: Vec<_> = held.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        let is_tree = |path: &std::path::Path| {
            ["mnt:", "net:", "pid:", "ipc:"].iter().any(|k| path.to_string_lossy().starts_with(k))
        };
        assert!(!held.iter().any(|path| is_tree(path)), "{held:?}");
    }
}

#[test]
fn folders_that_lie_in_each_other_are_refused_and_lose_nothing() {
    for user in USERS {
        let world = World::new(user);
        let outer = world.make_dir("outer").display().to_string();
        let inner = world.make_dir("outer/inner").display().to_string();
        let file = world.write("outer/file", b"precious").display().to_string();
        let beside = world.make_dir("beside").display().to_string();
        let run = |arguments: &[&str]| world.run(&[&["sandbox", "run"], arguments, &["--", "true"]].concat());
        for arguments in [
            ["--rw", &outer, "--ro", &inner],
            ["--rw", &outer, "--ro", &file],
            ["--ro", &outer, "--rw", &inner],
            ["--rw", &outer, "--ro", &outer],
            ["--workspace", &outer, "--ro", &inner],
        ] {
            run(&arguments).fails(126, "lie in each other");
        }
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        run(&["--rw", &outer, "--ro", &beside]).exits(0);
        // A file on its own may be shown read-only, and is not emptied for it.
        let cat = world.run(&["sandbox", "run", "--ro", &file, "--", "cat", &file]);
        assert_eq!(cat.exits(0), "precious");
        assert_ne!(
            world.run(&["sandbox", "run", "--ro", &file, "--", "sh", "-c", &format!("echo x > {file}")]).code,
            0
        );
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
}

#[test]
fn a_folder_below_tmp_is_shown_as_it_is() {
    for user in USERS {
        let world = World::new(user);
        for root in ["/tmp", "/var/tmp"] {
            let folder =
                std::path::PathBuf::from(format!("{root}/vambrace-test-shown-{}-{user:?}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("file"), "here").unwrap();
            if am_root() && user == User::Ordinary {
                std::os::unix::fs::chown(&folder, Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
            }
            let shown = folder.display().to_string();
            let line = format!("cat {shown}/file && echo more > {shown}/new");
            let ran = world.run(&["sandbox", "run", "--rw", &shown, "--", "sh", "-c", &line]);
            let made = folder.join("new").exists();
            fs::remove_dir_all(&folder).unwrap();
            assert_eq!(ran.exits(0), "here", "{root}");
            assert!(made, "{root}");
        }
    }
}

#[test]
fn no_file_with_a_set_id_bit_can_be_made_by_any_call() {
    in_every_backend(|world| {
        for act in [["tmpfile-sgid", "/workspace"], ["creat-suid", "/workspace/c"], ["mknod-suid", "/workspace/m"]] {
            assert_eq!(world.attack(&act).stdout, "EPERM\n", "{act:?}");
        }
        assert_eq!(world.attack(&["tmpfile", "/workspace"]).code, 0);
    });
}

#[test]
fn the_init_cannot_be_looked_into() {
    in_both_tiers(|world| {
        for file in ["environ", "maps", "mem", "cwd", "exe"] {
            let look = |pid: &str| world.sh(&format!("head -c 1 /proc/{pid}/{file} || readlink /proc/{pid}/{file}"));
            assert_ne!(look("1").code, 0, "{file}");
            assert_eq!(look("self").code, i32::from(file == "mem"), "{file}");
        }
        assert_ne!(world.sh("ls /proc/1/fd").code, 0);
    });
}

#[test]
fn nothing_tells_of_the_launcher_or_its_control_group() {
    in_both_tiers(|world| {
        let seen = world.sh("cat /proc/1/cgroup /proc/self/cgroup /proc/1/cmdline /proc/1/comm").exits(0);
        assert!(!seen.contains("vambrace"), "{seen}");
    });
}

/// Control groups of ours anywhere, apart from those of tests that run beside this one.
/// Control groups of a runner's sandboxes, in every hierarchy.
fn groups(runner: i32) -> usize {
    let mut find = std::process::Command::new("find");
    find.args(["/sys/fs/cgroup", "-maxdepth", "6", "-type", "d", "-name", &format!("vambrace-{runner}-*")]);
    let found = find.stderr(std::process::Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().count()
}
