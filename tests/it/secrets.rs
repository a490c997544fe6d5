//! Secrets of agents through the whole system: who gets them, what is covered, and where none of them is ever found.

use crate::device::Device;
use crate::world::{Ran, USERS, User, World, finish};
use nix::sys::signal::Signal;
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A value that stands nowhere else in the world.
fn canary(name: &str) -> String {
    let random = std::fs::read("/proc/sys/kernel/random/uuid").unwrap();
    format!("canary-{name}-{}~&\"+", String::from_utf8(random).unwrap().trim())
}

fn set(world: &World, name: &str, value: &str, agents: &[&str]) {
    let mut arguments = vec!["secrets", "set", name];
    agents.iter().for_each(|agent| arguments.extend(["--agent", agent]));
    world.run_with_input(&arguments, value.as_bytes()).exits(0);
}

#[test]
fn an_agent_gets_what_it_was_granted_as_a_file_or_a_variable_and_nothing_else() {
    for user in USERS {
        let world = World::running(user);
        let (mine, other) = (canary("mine"), canary("other"));
        set(&world, "MINE", &mine, &["main"]);
        set(&world, "OTHERS", &other, &["builder"]);
        let length = |ran: Ran| ran.exits(0).trim().to_owned();
        let size = mine.len().to_string();
        let exec = |arguments: &[&str]| world.run(&[&["exec"], arguments].concat());
        assert_eq!(length(exec(&["--secret", "MINE", "--", "sh", "-c", "wc -c < /run/secrets/MINE"])), size);
        assert_eq!(length(exec(&["--secret-env", "MINE", "--", "sh", "-c", "printf %s \"$MINE\" | wc -c"])), size);
        assert_eq!(length(exec(&["--secret-env", "MINE=KEY", "--", "sh", "-c", "printf %s \"$KEY\" | wc -c"])), size);
        // Not asked for, not there.
        assert!(!exec(&["--", "sh", "-c", "ls /run/secrets; env"]).stdout.contains("MINE"));
        // Granted to another, or not there at all: the same words.
        let refused = exec(&["--secret", "OTHERS", "--", "true"]);
        let missing = exec(&["--secret", "NOTHING", "--", "true"]);
        assert_eq!(refused.stderr.replace("OTHERS", "NOTHING"), missing.stderr);
        refused.fails(126, "secrets.OTHERS");
        exec(&["--agent", "builder", "--secret", "OTHERS", "--", "true"]).exits(0);
        exec(&["--secret-env", "MINE=LD_PRELOAD", "--", "true"]).fails(126, "sandbox.env");
        // A grant that is taken back is taken back at once; a new value keeps it.
        set(&world, "MINE", &other, &[]);
        assert_eq!(
            length(exec(&["--secret", "MINE", "--", "sh", "-c", "wc -c < /run/secrets/MINE"])),
            other.len().to_string()
        );
        world.run(&["secrets", "set", "MINE", "--no-agent", "--keep-value"]).exits(0);
        exec(&["--secret", "MINE", "--", "true"]).fails(126, "secrets.MINE");
        world.run(&["secrets", "remove", "MINE"]).exits(0);
        world.run(&["secrets", "remove", "MINE"]).fails(1, "there is no secret MINE");
        let permitted = world.events("exec.permitted");
        assert!(permitted.iter().any(|entry| entry["secrets"] == json!(["MINE as KEY"])), "{permitted:?}");
        world.run(&["journal", "verify"]).exits(0);
    }
}

#[test]
fn a_value_is_covered_while_it_takes_the_place_of_another() {
    let world = World::running(User::Ordinary);
    for n in 0..12 {
        set(&world, &format!("LONG_{n}"), &canary("long").repeat(1000), &[]);
    }
    set(&world, "KEY", &canary("first"), &["main"]);
    let outputs = std::thread::scope(|scope| {
        let world = &world;
        let runs: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let run = || world.run(&["exec", "--secret-env", "KEY", "--", "sh", "-c", "echo got \"$KEY\""]);
                    (0..40).map(|_| run().exits(0)).collect::<String>()
                })
            })
            .collect();
        for n in 0..20 {
            set(world, "KEY", &canary(&n.to_string()), &[]);
            if n % 5 == 0 {
                world.run(&["token", "rotate"]).exits(0);
            }
        }
        runs.into_iter().map(|run| run.join().unwrap()).collect::<String>()
    });
    assert_eq!(outputs, "got [secret KEY]\n".repeat(80));
    assert!(!serde_json::to_string(&world.journal()).unwrap().contains("canary"));
}

#[test]
fn a_value_is_not_taken_from_arguments_nor_too_short_nor_a_marker() {
    let world = World::running(User::Ordinary);
    assert_eq!(world.run(&["secrets", "set", "A", "the-value-itself"]).code, 2);
    let set = |value: &[u8]| world.run_with_input(&["secrets", "set", "A"], value);
    set(b"short\n").fails(1, "5 bytes");
    set(b"\n").fails(1, "0 bytes");
    set(&[b'v'; 70_000]).fails(1, "bytes");
    set(b"[secret A]\n").fails(1, "in place of a secret");
    world.run_with_input(&["secrets", "set", "a"], b"a long value").fails(2, "not a secret's name");
    assert_eq!(world.json(&["secrets", "list", "--json"]), json!([]));
    // Every byte counts: arbitrary ones, and a line's end where that is said.
    let bytes: Vec<u8> = (0..=255).collect();
    world.run_with_input(&["secrets", "set", "BYTES", "--exact", "--agent", "main"], &bytes).exits(0);
    let sum = world.run(&["exec", "--secret", "BYTES", "--", "sha256sum", "/run/secrets/BYTES"]).exits(0);
    assert!(sum.starts_with("40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880"), "{sum}");
    world.run(&["exec", "--secret-env", "BYTES", "--", "true"]).fails(126, "NUL");
}

#[test]
fn an_import_is_whole_or_not_at_all() {
    let world = World::running(User::Ordinary);
    let import =
        |text: &str, more: &[&str]| world.run_with_input(&[&["secrets", "import"], more].concat(), text.as_bytes());
    import("A=a value of it\nB=short\n", &[]).fails(1, "nothing was imported");
    import("A=a value of it\nlower=a value of it\n", &[]).fails(1, "line 2");
    assert_eq!(world.json(&["secrets", "list", "--json"]), json!([]));
    import("# keys\nexport A='a value of it'\nB=another value\n", &["--agent", "main"]).exits(0);
    import(r#"{"C": "line\nline\nline"}"#, &["--format", "json", "-"]).exits(0);
    let list = world.json(&["secrets", "list", "--json"]);
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!((names, &list[0]["agents"], &list[2]["agents"]), (vec!["A", "B", "C"], &json!(["main"]), &json!([])));
    let shown = world.run(&["exec", "--secret", "A", "--", "sh", "-c", "wc -c < /run/secrets/A"]).exits(0);
    assert_eq!(shown.trim(), "13");
}

/// Commands that print `/run/secrets/KEY`, each another way.
const PRINTERS: &[&str] = &[
    "cat /run/secrets/KEY",
    "base64 /run/secrets/KEY",
    "printf 'user:%s' \"$(cat /run/secrets/KEY)\" | base64 -w0",
    "python3 -c 'import base64; print(base64.urlsafe_b64encode(open(\"/run/secrets/KEY\",\"rb\").read()).decode())'",
    "od -An -v -tx1 /run/secrets/KEY",
    "python3 -c 'print(open(\"/run/secrets/KEY\",\"rb\").read().hex().upper())'",
    "python3 -c 'import urllib.parse; print(urllib.parse.quote(open(\"/run/secrets/KEY\").read(), safe=\"\"))'",
    "python3 -c 'print(\"\".join(\"%%%02x\" % b for b in open(\"/run/secrets/KEY\",\"rb\").read()))'",
    "python3 -c 'import json; print(json.dumps({\"key\": open(\"/run/secrets/KEY\").read()}))'",
    "cat /run/secrets/KEY >&2",
    "python3 -uc 'import sys; [sys.stdout.write(c) or sys.stdout.flush() for c in open(\"/run/secrets/KEY\").read()]'",
    "dd if=/run/secrets/KEY bs=7 status=none; echo",
    "cp /run/secrets/KEY kept; cat kept; rm kept",
];

#[test]
fn a_secret_is_covered_in_output_however_it_is_written_and_cut() {
    let world = World::running(User::Ordinary);
    let value = canary("printed");
    set(&world, "KEY", &value, &["main"]);
    for printer in PRINTERS {
        let ran =
            world.run(&["exec", "--secret", "KEY", "--", "sh", "-c", &format!("echo before; {printer}; echo after")]);
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            shown.contains("[secret KEY]") && shown.contains("before") && shown.contains("after"),
            "{printer}: {ran:?}"
        );
        for (name, spelling) in spellings(value.as_bytes()) {
            let part = &spelling[spelling.len() / 4..spelling.len() * 3 / 4];
            assert!(!shown.as_bytes().windows(part.len()).any(|w| w == part), "{printer} shows {name}: {shown}");
        }
    }
    // Also in a run that did not ask for it, and in an argument that the journal keeps, whoever's run it is.
    assert_eq!(world.exec(&["echo", &value]).exits(0), "[secret KEY]\n");
    world.run(&["exec", "--agent", "builder", "--", "true", &value, &world.token()]).exits(0);
    let entry = world.events("exec.permitted").pop().unwrap();
    assert_eq!(entry["command"], json!(["true", "[secret KEY]", "[secret gateway token]"]));
    // Not for an agent that does not know it: the search itself would tell it how the secret begins.
    assert_eq!(world.run(&["exec", "--agent", "builder", "--", "echo", &value]).exits(0), format!("{value}\n"));
    // What is no secret comes through at once and as it is, an interactive prompt for one.
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let echoed = world.run_with_input(&["exec", "--", "sha256sum"], &bytes).exits(0);
    let here = finish(
        Command::new("sha256sum").stdin(Stdio::from(std::fs::File::open(world.write("bytes", &bytes)).unwrap())),
    );
    assert_eq!(echoed, here.stdout);
}

/// One way to write a value, and what it then looks like.
type Spelling = (&'static str, Vec<u8>);

/// How a value may be spelt.
fn spellings(value: &[u8]) -> Vec<Spelling> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let each = |spell: &dyn Fn(u8) -> String| value.iter().map(|b| spell(*b)).collect::<String>().into_bytes();
    let mut spellings = vec![
        ("it as it is", value.to_vec()),
        ("its hexadecimal", each(&|b| format!("{b:02x}"))),
        ("its hexadecimal in capitals", each(&|b| format!("{b:02X}"))),
        ("its percent encoding", each(&|b| format!("%{b:02X}"))),
        ("its bytes as numbers", each(&|b| format!("{b},"))),
        ("it as UTF-16", value.iter().flat_map(|b| [*b, 0]).collect()),
    ];
    // At each of the three places it may begin at; without the letters that its neighbours share.
    for shift in 0..3 {
        let shifted = [&vec![0; shift][..], value].concat();
        let inner = |text: String| text.as_bytes()[if shift == 0 { 0 } else { 4 }..text.len() - 4].to_vec();
        spellings.push(("its base64", inner(STANDARD_NO_PAD.encode(&shifted))));
        spellings.push(("its base64url", inner(URL_SAFE_NO_PAD.encode(&shifted))));
    }
    spellings
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// What is looked for, and everywhere it was looked for.
struct Search {
    canaries: Vec<(String, Vec<Spelling>)>,
    places: usize,
}

impl Search {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.places += 1;
        for (name, spellings) in &self.canaries {
            for (spelling, wanted) in spellings {
                let found = memchr::memmem::find(bytes, wanted);
                assert_eq!(found, None, "{place} holds {name}: {spelling}");
            }
        }
    }

    fn process(&mut self, pid: i32, name: &str) {
        for file in ["cmdline", "environ", "maps", "status", "limits", "cgroup", "mountinfo", "comm"] {
            if let Ok(bytes) = std::fs::read(format!("/proc/{pid}/{file}")) {
                self.look(&format!("/proc/{name}/{file}"), &bytes);
            }
        }
        for descriptor in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if let Ok(target) = std::fs::read_link(descriptor.path()) {
                self.look(&format!("/proc/{name}/fd"), target.as_os_str().as_encoded_bytes());
            }
        }
    }
}

#[test]
fn no_secret_is_found_anywhere_it_does_not_belong() {
    for user in USERS {
        let mut world = World::new(user).config("[store]\nkey_file = \"@/keys/key\"\n[gateway.tls]\nenabled = true\n");
        let keys = world.make_dir("keys");
        std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut key = [0u8; 32];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut key).unwrap();
        std::fs::set_permissions(world.write("keys/key", &key), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        world.start_again();

        // Something to find, in every place that keeps secrets.
        let (file, variable, imported, removed) =
            (canary("file"), canary("variable"), canary("imported"), canary("removed"));
        set(&world, "FILE", &file, &["main"]);
        set(&world, "VARIABLE", &variable, &["main"]);
        world
            .run_with_input(&["secrets", "import", "--agent", "main"], format!("IMPORTED={imported}\n").as_bytes())
            .exits(0);
        set(&world, "REMOVED", &removed, &[]);
        world.run(&["secrets", "remove", "REMOVED"]).exits(0);
        let (password, phrase) = (canary("password"), canary("passphrase"));
        world.run_with_input(&["password", "set"], password.as_bytes()).exits(0);
        let token = world.token();
        let rotated = world.run(&["token", "rotate"]).exits(0).trim().to_owned();
        let certificate = world.certificate();
        let mut ws = world.tls_socket(&certificate);
        let nonce = ws.challenge();
        let mut params = json!({"scopes": ["operator.read"], "auth": {"token": rotated}});
        Device::new(1).sign(&mut params, &nonce, crate::device::now());
        let hello = crate::device::connect_with(&mut ws, &rotated, params);
        let device_token =
            hello["payload"]["auth"]["deviceToken"].as_str().unwrap_or_else(|| panic!("{hello}")).to_owned();
        let invite = world.json(&[
            "devices",
            "invite",
            "--scope",
            "operator.read",
            "--json",
            "--public-url",
            &format!("wss://localhost:{}", world.port()),
        ]);
        let code = invite["setupCode"].as_str().unwrap().to_owned();
        let guest = World::new(user);
        let fingerprint = world.status()["tls"]["fingerprint"].as_str().unwrap().to_owned();
        guest.run_with_input(&["--fingerprint", &fingerprint, "devices", "join"], code.as_bytes()).exits(0);
        let url = format!("wss://localhost:{}", world.port());
        let signing = guest.json(&["--url", &url, "devices", "identity", "--signing-key", "--json"]);
        let signing_key = signing["signingKey"].as_str().unwrap().to_owned();

        let mut canaries: Vec<(String, Vec<Spelling>)> = [
            ("a file's value", &file),
            ("a variable's value", &variable),
            ("an imported value", &imported),
            ("a removed value", &removed),
            ("the password", &password),
            ("the backup's passphrase", &phrase),
            ("the old token", &token),
            ("the token", &rotated),
            ("a device's token", &device_token),
            ("a setup code", &code),
        ]
        .map(|(name, value)| (name.to_owned(), spellings(value.as_bytes())))
        .into();
        let raw_signing: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&signing_key[2 * n..2 * n + 2], 16).unwrap()).collect();
        canaries.push(("a signing key".into(), spellings(&raw_signing)));
        canaries.push(("the key of the state".into(), spellings(&key)));
        let mut search = Search { canaries, places: 0 };

        // All verbs, with what they print; also those that fail.
        let backup = world.dir.join("backup.age");
        let said = |ran: Ran| format!("{}{}", ran.stdout, ran.stderr);
        let mut heard = vec![
            said(world.run_with_input(&["backup", backup.to_str().unwrap()], phrase.as_bytes())),
            said(world.run(&["secrets", "list"])),
            said(world.run(&["secrets", "list", "--json"])),
            said(world.run(&["secrets", "rotate-key"])),
            said(world.run_with_input(&["secrets", "set", "lower"], file.as_bytes())),
            said(world.run_with_input(&["secrets", "import"], format!("x y {imported}").as_bytes())),
            said(
                world.run_with_input(&["secrets", "import", "--format", "json"], format!("[\"{imported}\"").as_bytes()),
            ),
            said(world.run_with_input(&["restore", "--replace", backup.to_str().unwrap()], phrase.as_bytes())),
            said(world.run_with_input(&["restore", "--replace", backup.to_str().unwrap()], password.as_bytes())),
            said(world.run(&["status", "--json"])),
            said(world.run(&["config", "show", "--json"])),
            said(world.run(&["devices", "list", "--json"])),
            said(guest.run_with_input(&["devices", "join"], code.as_bytes())),
        ];
        for uses in
            [&["--secret", "FILE"][..], &["--secret-env", "VARIABLE"], &["--secret-env", "IMPORTED=I", "--json"]]
        {
            let act =
                "cat /run/secrets/FILE; env; tr '\\0' '\\n' < /proc/self/environ; base64 /run/secrets/FILE; exit 3";
            heard.push(said(world.run(&[&["exec"], uses, &["--", "sh", "-c", act]].concat())));
        }
        heard.push(said(world.run(&["exec", "--", "sh", "-c", &format!("echo {file} {rotated}; exit 1")])));
        heard.push(said(world.run(&["exec", "--", &file])));
        heard.push(said(world.run(&["exec", "--cwd", &file, "--", "true"])));
        heard.push(said(world.run(&["journal", "list", "--limit", "1000", "--json"])));
        for (at, text) in heard.iter().enumerate() {
            // A command that was given a value may name it in its own error; what comes back from a run may not.
            let own = text.contains("error: ") && (text.contains(&file));
            if !own {
                search.look(&format!("output {at}: {text}"), text.as_bytes());
            }
        }

        // While a run holds its secrets: the processes of the gateway and the runner, and what they keep.
        let mut holding = world.command(&[
            "exec",
            "--secret",
            "FILE",
            "--secret-env",
            "VARIABLE",
            "--",
            "sh",
            "-c",
            "touch /workspace/on; cat",
        ]);
        let mut holding = holding.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        crate::world::eventually("it runs", || world.workspace().join("on").exists());
        search.process(world.gateway_pid(), "gateway");
        search.process(world.runner_pid(), "runner");
        search.process(holding.id() as i32, "command line");
        // Nor in their memory: what the libraries have freed is zeroed as well. A connection's buffers end with it.
        drop(ws);
        crate::world::eventually("the device is gone", || world.status()["connections"] == 2);
        for (pid, name) in [(world.gateway_pid(), "gateway"), (world.runner_pid(), "runner")] {
            for region in crate::delivery::memory(pid) {
                search.look(&format!("the memory of the {name}"), &region);
            }
        }
        for folder in [world.state(), guest.state(), world.workspace()] {
            let mut found = Vec::new();
            files(&folder, &mut found);
            for path in found {
                search.look(&path.display().to_string(), &std::fs::read(&path).unwrap());
            }
        }
        search.look("the backup", &std::fs::read(&backup).unwrap());
        search.look("the log", world.log().as_bytes());
        drop(holding.stdin.take());
        holding.wait().unwrap();

        // Killed at once, so that the log of SQLite is there, and started again.
        world.stop(Signal::SIGKILL);
        let mut found = Vec::new();
        files(&world.state(), &mut found);
        assert!(found.iter().any(|path| path.to_string_lossy().ends_with("-wal")));
        found.iter().for_each(|path| search.look(&path.display().to_string(), &std::fs::read(path).unwrap()));
        assert!(search.places > 60, "only {} places were searched", search.places);
        world.start_again();
        assert_eq!(world.token(), rotated);

        // The search finds what is there: this is the token where it belongs.
        let shown = world.run(&["token", "show"]).exits(0);
        let wanted = &search.canaries.iter().find(|(name, _)| name == "the token").unwrap().1[0].1;
        assert!(memchr::memmem::find(shown.as_bytes(), wanted).is_some());
    }
}

#[test]
fn a_gateway_that_crashes_leaves_no_core() {
    let world = World::new(User::Ordinary);
    let gateway = world.command(&["gateway", "--port", "0"]);
    // Where it may write: else another wall would keep the core away.
    world.make_dir("state");
    let mut command = world.bare_command("sh");
    command
        .current_dir(world.state())
        .args(["-c", "ulimit -c unlimited && exec \"$0\" \"$@\""])
        .arg(gateway.get_program())
        .args(gateway.get_args());
    let mut gateway = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    crate::world::eventually("it answers", || world.run(&["health"]).code == 0);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(gateway.id() as i32), Signal::SIGABRT).unwrap();
    let ended = gateway.wait().unwrap();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(Signal::SIGABRT as i32), false));
}
