//! Containers as walls: a real engine, real images, and the same acts that are tried on native walls.

use crate::engine::{Dock, ask, image, import};
use crate::world::*;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_command_runs_in_a_container_and_the_record_says_in_which() {
    for user in USERS {
        let dock = Dock::running(user);
        let world = &dock.world;

        let said = world.sh("echo $HOME; pwd; id -u; hostname; echo written > file").exits(0);

        let lines: Vec<&str> = said.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("/home/agent", "/workspace", "sandbox"), "{said}");
        assert_ne!(lines[2], "0");
        assert_eq!(fs::read(world.workspace().join("file")).unwrap(), b"written\n");
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(world.workspace().join("file")).unwrap());
        assert_eq!(owner, world.uid(), "the host sees its own owner");
        let record = world.events("exec.finished").pop().unwrap();
        let walls = record["enforcement"].as_str().unwrap();
        assert!(walls.starts_with("docker image=sha256:") && walls.contains("caps=none"), "{walls}");
        let json = world.json(&["exec", "--json", "--", "true"]);
        let enforcement = &json["enforcement"];
        assert_eq!((&enforcement["backend"], &enforcement["tier"]), (&json!("docker"), &json!("container")));
        let image = ask("GET", &format!("/images/{}/json", image()), None).1;
        assert_eq!(enforcement["container"]["image"], image["Id"]);
        assert_eq!(enforcement["limits"], json!({"cpu": "cgroup", "memory": "cgroup", "pids": "cgroup"}));
    }
}

#[test]
fn what_the_engine_was_asked_for_is_hard_in_every_field() {
    for user in USERS {
        let dock = Dock::with(user, "scope = \"agent\"\n");
        dock.world.exec(&["true"]).exits(0);

        let live = dock.inspect("agent.main");

        let host = &live["HostConfig"];
        for (field, value) in [
            ("Privileged", json!(false)),
            ("CapDrop", json!(["ALL"])),
            ("SecurityOpt", json!(["no-new-privileges"])),
            ("ReadonlyRootfs", json!(true)),
            ("NetworkMode", json!("none")),
            ("PidMode", json!("")),
            ("IpcMode", json!("private")),
            ("UTSMode", json!("")),
            ("Init", json!(true)),
            ("PublishAllPorts", json!(false)),
            ("Memory", json!(512 << 20)),
            ("MemorySwap", json!(512 << 20)),
            ("NanoCpus", json!(1_000_000_000)),
            ("RestartPolicy", json!({"Name": "no", "MaximumRetryCount": 0})),
        ] {
            assert_eq!(host[field], value, "{field}");
        }
        assert!(host["PidsLimit"].as_i64().is_some_and(|limit| (1..1000).contains(&limit)));
        for field in ["CapAdd", "Binds", "Devices", "DeviceRequests", "GroupAdd", "VolumesFrom", "Links", "ExtraHosts"]
        {
            assert!(host[field].as_array().is_none_or(Vec::is_empty), "{field}: {}", host[field]);
        }
        assert!(host["PortBindings"].as_object().is_none_or(serde_json::Map::is_empty));
        assert_ne!(live["Config"]["User"], "0:0");
        assert_eq!(live["Config"]["Healthcheck"]["Test"], json!(["NONE"]));
        for mount in live["Mounts"].as_array().unwrap() {
            assert_eq!((&mount["Type"], &mount["Propagation"]), (&json!("bind"), &json!("rprivate")), "{mount}");
            assert!(!mount["Source"].as_str().unwrap().contains("docker.sock"));
        }
        for (place, options) in host["Tmpfs"].as_object().unwrap() {
            let options = options.as_str().unwrap();
            assert!(options.contains("nosuid,nodev") && options.contains("size="), "{place}: {options}");
            assert!(place == "/workspace" || options.contains("noexec"), "{place}: {options}");
        }
        // And from inside: no mount honours set-id bits but the image's own, which is read-only.
        let mounts = dock.world.sh("cat /proc/self/mounts").exits(0);
        for line in mounts.lines().filter(|line| line.starts_with("/dev/")) {
            let place = line.split(' ').nth(1).unwrap();
            assert!(
                line.contains("nosuid")
                    || place.starts_with("/etc/")
                    || place.ends_with("/docker-init")
                    || user == User::Ordinary,
                "{line}"
            );
        }
    }
}

#[test]
fn each_scope_has_its_own_container_and_what_has_none_leaves_none() {
    let config = "[profiles.agent]\nscope = \"agent\"\n[profiles.shared]\nscope = \"shared\"\n";
    for user in USERS {
        let dock = Dock::with(user, config);
        let sh = |arguments: &[&str], line: &str| {
            dock.world.run(&[&["exec"], arguments, &["--", "sh", "-c", line]].concat())
        };
        sh(&["--session", "s1"], "echo one > /tmp/mark; echo one > /home/agent/mark").exits(0);
        assert_eq!(sh(&["--session", "s1"], "cat /tmp/mark /home/agent/mark").exits(0), "one\none\n");
        for others in [&["--session", "s2"][..], &["--session", "s1", "--agent", "other"], &["--profile", "agent"], &[]]
        {
            assert_ne!(sh(others, "cat /tmp/mark").code, 0, "{others:?}");
        }
        sh(&["--profile", "shared"], "echo all > /tmp/mark").exits(0);
        assert_eq!(sh(&["--profile", "shared", "--agent", "other"], "cat /tmp/mark").exits(0), "all\n");

        let wanted = ["agent.main", "session.main.s1", "session.main.s2", "session.other.s1", "shared"];
        eventually("those without a scope are gone", || dock.containers() == wanted);
    }
}

#[test]
fn a_container_is_adopted_after_a_restart_if_it_is_as_planned_and_made_anew_if_not() {
    for user in USERS {
        let mut dock = Dock::with(user, "scope = \"agent\"\n");
        dock.world.sh("echo kept > /tmp/mark").exits(0);
        let first = dock.inspect("agent.main")["Id"].clone();
        let id = |dock: &Dock| {
            assert_eq!(dock.world.sh("cat /tmp/mark").exits(0), "kept\n");
            dock.inspect("agent.main")["Id"].clone()
        };

        dock.world.stop(nix::sys::signal::Signal::SIGTERM);
        dock.world.start_again();
        assert_eq!(dock.standing()["asPlanned"], true, "{}", dock.standing());
        assert_eq!(id(&dock), first, "it is adopted");
        dock.world.stop(nix::sys::signal::Signal::SIGKILL);
        dock.world.start_again();
        assert_eq!(id(&dock), first, "also after a gateway that was killed");

        // Changed by somebody else while nobody looked.
        dock.world.stop(nix::sys::signal::Signal::SIGTERM);
        let more = json!({"Memory": 1 << 30, "MemorySwap": 1 << 30});
        assert_eq!(ask("POST", &format!("/containers/{}/update", first.as_str().unwrap()), Some(&more)).0, 200);
        dock.world.start_again();
        let standing = dock.standing();
        assert_eq!((&standing["asPlanned"], &standing["id"]), (&json!(false), &first), "{standing}");
        assert_eq!(standing["differences"], json!(["HostConfig.Memory", "HostConfig.MemorySwap"]));
        assert!(dock.world.run(&["sandbox", "list"]).exits(0).contains("differs in HostConfig.Memory"));
        let second = id(&dock);
        assert!(dock.world.run(&["sandbox", "list"]).exits(0).contains("running since 20"), "age, and as planned");
        assert_ne!(second, first, "a container that is not as planned is made anew");

        // The folder it shows is another one by now, under the same name.
        let workspace = dock.world.workspace();
        fs::rename(&workspace, workspace.with_extension("old")).unwrap();
        dock.world.make_dir("state-workspaces/main");
        dock.world.write("state-workspaces/main/new", b"new\n");
        dock.world.give(&workspace);
        assert_eq!(dock.standing()["differences"], json!(["Config.Labels"]), "the same name, another folder");
        assert_eq!(dock.world.sh("cat new").exits(0), "new\n");
        assert_ne!(dock.inspect("agent.main")["Id"], second);
        assert_eq!(dock.containers(), ["agent.main"]);
    }
}

#[test]
fn a_container_that_somebody_put_on_another_network_is_made_anew() {
    let other = format!("vambrace-test-{}", std::process::id());
    assert_eq!(ask("POST", "/networks/create", Some(&json!({"Name": other, "Driver": "bridge"}))).0, 201);
    let _network = Network(other.clone());
    let mut dock =
        Dock::with(User::Root, "scope = \"agent\"\n[profiles.out]\nnetwork = \"host\"\nscope = \"session\"\n");
    let interfaces = |dock: &Dock, more: &[&str]| {
        let line = [&["exec"], more, &["--", "ls", "/sys/class/net"]].concat();
        dock.world.run(&line).exits(0)
    };
    let out = ["--profile", "out", "--session", "s"];
    assert_eq!(interfaces(&dock, &[]), "lo\n");
    assert_eq!(interfaces(&dock, &out), "eth0\nlo\n");
    let id = |dock: &Dock, name: &str| dock.inspect(name)["Id"].as_str().unwrap().to_owned();
    let names = ["agent.main", "session.main.s"];
    let before = names.map(|name| id(&dock, name));
    let act = |network: &str, act: &str, container: &str| {
        ask("POST", &format!("/networks/{network}/{act}"), Some(&json!({"Container": container}))).0
    };
    dock.world.stop(nix::sys::signal::Signal::SIGTERM);
    dock.world.start_again();
    interfaces(&dock, &[]);
    interfaces(&dock, &out);
    assert_eq!(names.map(|name| id(&dock, name)), before, "as long as nobody did, they are adopted");

    dock.world.stop(nix::sys::signal::Signal::SIGTERM);
    // The engine lets nobody add one to none, but take that away first.
    assert_eq!(act("none", "disconnect", &before[0]), 200);
    assert_eq!([act(&other, "connect", &before[0]), act(&other, "connect", &before[1])], [200, 200]);
    assert_eq!(dock_network(&before[0]), std::slice::from_ref(&other));
    dock.world.start_again();

    assert_eq!(dock.standing()["differences"], json!(["Networks none is missing", format!("Networks {other}")]));
    assert_eq!(interfaces(&dock, &[]), "lo\n");
    assert_eq!(interfaces(&dock, &out), "eth0\nlo\n");
    let after = names.map(|name| id(&dock, name));
    assert!(before.iter().all(|id| !after.contains(id)), "both are made anew: {before:?} {after:?}");
}

/// A network that goes with the test; declared before what is put on it.
struct Network(String);

impl Drop for Network {
    fn drop(&mut self) {
        ask("DELETE", &format!("/networks/{}", self.0), None);
    }
}

/// The networks that a container is on.
fn dock_network(id: &str) -> Vec<String> {
    let (_, live) = ask("GET", &format!("/containers/{id}/json"), None);
    live["NetworkSettings"]["Networks"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_container_of_somebody_else_with_our_name_is_not_used_and_not_touched() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\n");
    let name = format!("vambrace-{:.8}-agent.main", dock.label());
    let (status, made) = ask(
        "POST",
        &format!("/containers/create?name={name}"),
        Some(&json!({"Image": image(), "Cmd": ["sleep", "1000"], "HostConfig": {"Privileged": true}})),
    );
    assert_eq!(status, 201, "{made}");
    let id = made["Id"].as_str().unwrap();

    dock.world.exec(&["true"]).fails(125, "not of this gateway");

    assert_eq!(ask("GET", &format!("/containers/{id}/json"), None).1["State"]["Status"], "created");
    ask("DELETE", &format!("/containers/{id}?force=1"), None);
    dock.world.exec(&["true"]).exits(0);
}

#[test]
fn every_way_to_end_is_told_and_the_whole_tree_ends() {
    for (user, mark) in [(User::Root, mark(86601)), (User::Ordinary, mark(86602))] {
        let dock =
            Dock::with(user, "scope = \"agent\"\n[defaults.sandbox.limits]\noutput = \"64K\"\nmemory = \"64M\"\n");
        let world = &dock.world;
        assert_eq!(world.sh("exit 7").code, 7);
        assert_eq!(world.sh("kill -TERM $$").code, 128 + 15);
        world.exec(&["nothing-of-this-name"]).fails(127, "command not found");
        world.exec(&["/etc/hostname"]).fails(126, "cannot be executed");
        let hide = format!("setsid sh -c 'sleep {mark} & sleep {mark}' & trap '' TERM; sleep {mark}");
        world.run(&["exec", "--timeout", "2s", "--", "sh", "-c", &hide]).fails(124, "ran out of time");
        eventually("nothing of it is left", || processes_with(mark).is_empty());
        let ran = world.sh("yes");
        assert_eq!((ran.code, ran.stdout.len()), (137, 64 << 10), "{}", ran.stderr);
        assert!(ran.stderr.contains("output"), "{}", ran.stderr);
        world.exec(&["tail", "/dev/zero"]).fails(137, "memory");
        // Others of the same container went on meanwhile, and it is still the one.
        world.exec(&["true"]).exits(0);
        // A client that goes takes its command with it.
        let mut child = world.command(&["exec", "--", "sleep", mark]).spawn().unwrap();
        eventually("it runs", || processes_with(mark).len() >= 2);
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("it is gone", || processes_with(mark).is_empty());
    }
}

#[test]
fn a_fork_bomb_is_bounded_and_harms_nobody_else() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\n[defaults.sandbox.limits]\npids = 64\n");
    let bomb = "b() { b | b & }; b; sleep 2; exit 0";
    let ran = dock.world.run(&["exec", "--timeout", "5s", "--", "sh", "-c", bomb]);
    assert!(ran.stderr.contains("fork") || ran.code != 0, "{ran:?}");
    let finished = dock.world.events("exec.finished").pop().unwrap();
    assert_eq!(finished["limits_reached"], json!(["pids"]), "{finished}");
    dock.world.run(&["exec", "--agent", "other", "--", "true"]).exits(0);
    dock.world.exec(&["true"]).exits(0);
}

#[test]
fn input_terminals_and_file_tools_are_as_everywhere() {
    for user in USERS {
        let dock = Dock::with(user, "scope = \"agent\"\n");
        let world = &dock.world;
        let long = vec![b'x'; 3 << 20];
        let ran = world.run_with_input(&["exec", "--", "wc", "-c"], &long);
        assert_eq!(ran.exits(0).trim(), long.len().to_string());
        let mut ws = world.connect();
        let size = json!({"rows": 30, "columns": 99});
        let id = ws.ask("exec.run", json!({"command": ["sh", "-c", "tty; stty size"], "terminal": size}));
        let answer = ws.response(&id);
        assert_eq!(answer["payload"]["exitCode"], 0, "{answer}");
        world.run_with_input(&["sandbox", "write", "file"], b"from outside\n").exits(0);
        assert_eq!(world.sh("cat file; echo from inside > file").exits(0), "from outside\n");
        assert_eq!(world.run(&["sandbox", "read", "file"]).exits(0), "from inside\n");
        world.sh("ln -s /etc/hostname link").exits(0);
        world.run(&["sandbox", "read", "link"]).fails(1, "links are not followed");
    }
}

#[test]
fn a_secret_is_a_variable_of_its_command_and_nothing_the_engine_knows() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\n");
    let world = &dock.world;
    world.run_with_input(&["secrets", "set", "KEY", "--agent", "main"], b"open-sesame-4711").exits(0);
    let ran = world.run(&["exec", "--secret-env", "KEY", "--", "sh", "-c", "echo ${#KEY}; sleep 0"]);
    assert_eq!(ran.exits(0), "16\n");
    assert!(!dock.inspect("agent.main").to_string().contains("open-sesame"));
    assert!(!world.sh("env; cat /proc/*/environ /proc/*/cmdline").stdout.contains("open-sesame"));
}

#[test]
fn lockdown_reaches_into_containers() {
    for (user, mark) in [(User::Root, mark(86603)), (User::Ordinary, mark(86604))] {
        let dock = Dock::with(user, "scope = \"agent\"\n");
        let world = &dock.world;
        let line = format!("i=0; while :; do i=$((i+1)); echo $i > count; done # {mark}");
        let mut ws = world.connect();
        let id = ws.ask("exec.run", json!({"command": ["sh", "-c", line]}));
        let file = world.workspace().join("count");
        let count = || fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        eventually("it counts", || count() > 10);
        world.run(&["lockdown", "on"]).exits(0);
        world.exec(&["true"]).fails(126, "lock");
        let states = || -> Vec<char> {
            let state = |pid: i32| {
                let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                text.rsplit(") ").next()?.chars().next()
            };
            processes_with(mark).into_iter().filter_map(state).collect()
        };
        eventually("it stands still", || !states().is_empty() && states().iter().all(|state| *state == 'T'));
        world.run(&["lockdown", "on", "--kill"]).exits(0);
        assert_eq!(ws.response(&id)["payload"]["ending"], "lockdown");
        eventually("nothing is left", || processes_with(mark).is_empty());
        world.run(&["lockdown", "off"]).exits(0);
        world.exec(&["true"]).exits(0);
    }
}

#[test]
fn an_engine_an_image_or_a_container_that_is_not_there_is_an_error_with_a_hint() {
    let build = import("build", &["ONBUILD RUN /bin/true"], |_| ());
    let profiles = format!("[profiles.none]\nimage = \"no-such-image:1\"\n[profiles.build]\nimage = \"{build}\"\n");
    let dock = Dock::with(User::Root, &format!("scope = \"agent\"\n{profiles}"));
    let world = &dock.world;
    let run = |profile: &str| world.run(&["exec", "--profile", profile, "--", "true"]);
    run("none").fails(125, "has no image \"no-such-image:1\"");
    run("build").fails(125, "ONBUILD");
    // Killed while something runs in it.
    let mut ws = world.connect();
    let mark = mark(86605);
    let id = ws.ask("exec.run", json!({"command": ["sleep", mark]}));
    eventually("it runs", || !processes_with(mark).is_empty());
    let container = dock.inspect("agent.main")["Id"].as_str().unwrap().to_owned();
    assert_eq!(ask("POST", &format!("/containers/{container}/kill"), None).0, 204);
    let answer = ws.response(&id);
    assert_eq!(answer["error"]["details"]["code"], "ENGINE_UNAVAILABLE", "{answer}");
    assert!(answer["error"].to_string().contains("hint"), "{answer}");
    world.exec(&["true"]).exits(0);

    let nowhere = World::new(User::Root).config(
        "[docker]\nhost = \"unix:///nowhere/engine.sock\"\n[defaults.sandbox]\nbackend = \"docker\"\nimage = \"x\"\n",
    );
    let nowhere = nowhere.start();
    let ran = nowhere.exec(&["true"]);
    assert!(ran.stderr.contains("hint: "), "{ran:?}");
    ran.fails(125, "no container engine at /nowhere/engine.sock");
}

#[test]
fn an_images_volumes_health_checks_and_entry_points_are_not_ours() {
    let wild = import(
        "wild",
        &[
            "VOLUME /data",
            "HEALTHCHECK CMD touch /tmp/checked",
            "ENTRYPOINT [\"/bin/false\"]",
            "USER root",
            "ENV LD_PRELOAD=/lib/evil.so",
        ],
        |root| {
            fs::create_dir(root.join("data")).unwrap();
            // Whoever loads this ends with a word that is in no test.
            fs::write(root.join("etc/ld.so.preload"), "/lib/evil.so\n").unwrap();
            // Where a loader looks first, if the folder's name could be known.
            let first = root.join(".vambrace/lib/glibc-hwcaps/x86-64-v2");
            fs::create_dir_all(&first).unwrap();
            let source = root.join("evil.c");
            fs::write(&source, "#include <unistd.h>\n__attribute__((constructor)) void evil(void) { _exit(66); }")
                .unwrap();
            let built = std::process::Command::new("cc")
                .args(["-shared", "-fPIC", "-o"])
                .arg(root.join("lib/evil.so"))
                .arg(&source)
                .status();
            assert!(built.unwrap().success());
            for library in ["libc.so.6", "libgcc_s.so.1"] {
                fs::copy(root.join("lib/evil.so"), first.join(library)).unwrap();
            }
        },
    );
    let dock = Dock::with(User::Root, &format!("scope = \"agent\"\n[profiles.wild]\nimage = \"{wild}\"\n"));
    let ran = dock.world.run(&["exec", "--profile", "wild", "--", "sh", "-c", "id -u; mount | grep ' /data '"]);
    let said = ran.exits(0);
    assert!(!said.starts_with("0\n") && said.contains("tmpfs") && said.contains("noexec"), "{said}");
    let live = dock.inspect("agent.main");
    assert!(live["Mounts"].as_array().unwrap().iter().all(|mount| mount["Type"] != "volume"), "{live}");
    assert_eq!(live["State"]["Health"], Value::Null);
    assert_eq!(live["Config"]["Env"], json!(["LD_PRELOAD=", "PATH="]));
    assert!(!dock.world.run(&["exec", "--profile", "wild", "--", "env"]).exits(0).contains("LD_PRELOAD"));
}

#[test]
fn an_image_of_other_layers_under_our_name_is_not_used() {
    let base = import("layers", &[], |_| ());
    let dock = Dock::with(User::Root, &format!("[profiles.layers]\nimage = \"{base}\"\n"));
    let run = || dock.world.run(&["exec", "--profile", "layers", "--", "ls", "/"]).exits(0);
    assert!(!run().contains("forged"));
    let id = ask("GET", &format!("/images/{base}/json"), None).1["Id"].as_str().unwrap().to_owned();
    let (_, images) = ask("GET", "/images/json", None);
    let made =
        images.as_array().unwrap().iter().find(|image| image["Labels"]["io.vambrace.base"] == id.as_str()).unwrap();
    let name = made["RepoTags"][0].as_str().unwrap().to_owned();
    let labels = ["base", "bundle", "exec-mode"].map(|label| {
        format!("LABEL io.vambrace.{label}={}", made["Labels"][format!("io.vambrace.{label}")].as_str().unwrap())
    });
    let forged = import("forged", &labels.each_ref().map(String::as_str), |root| {
        fs::write(root.join("forged"), "x").unwrap();
    });
    eventually("its container is gone", || dock.containers().is_empty());
    let (repo, tag) = name.split_once(':').unwrap();
    assert_eq!(ask("POST", &format!("/images/{forged}/tag?repo={repo}&tag={tag}"), None).0, 201);

    assert!(!run().contains("forged"), "it is built once more");
    assert_ne!(
        ask("GET", &format!("/images/{name}/json"), None).1["Id"],
        ask("GET", &format!("/images/{forged}/json"), None).1["Id"]
    );
}

#[test]
fn what_no_container_may_have_is_refused_by_the_configuration() {
    for (line, words) in [
        ("image = \"-v/:/host\"", "no name of an image"),
        ("image = \"../x\"", "no name of an image"),
        ("privileged = true", "privileged"),
        ("binds = [\"/var/run/docker.sock:/s\"]", "binds"),
        ("cap_add = [\"SYS_ADMIN\"]", "cap_add"),
        ("rw = [\"/var/run/docker.sock\"]", "/run"),
        ("rw = [\"/var/lib/docker\"]", "/var/lib/docker"),
    ] {
        let world = World::new(User::Root);
        let image = if line.starts_with("image") { "" } else { "image = \"x\"\n" };
        let world = world.config(&format!("[defaults.sandbox]\nbackend = \"docker\"\n{image}{line}\n"));
        let ran = world.run(&["config", "check"]);
        if ran.code == 0 {
            // A folder is judged when it is to be shown.
            let dock = Dock::with(User::Root, &format!("{line}\n"));
            dock.world.exec(&["true"]).fails(126, words);
        } else {
            assert!(ran.stderr.contains(words), "{line}: {ran:?}");
        }
    }
}

#[test]
fn setup_is_executed_once_in_each_container_before_its_first_command() {
    for user in USERS {
        let config = "scope = \"agent\"\nsetup = \"echo x >> /workspace/done; echo tool > /tmp/tool\"\n\
                      [profiles.failing]\nsetup = \"echo no such package >&2; exit 3\"\nscope = \"session\"\n";
        let dock = Dock::with(user, config);
        let world = &dock.world;
        // Two at once: neither begins before it is done.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(world.exec(&["cat", "/tmp/tool"]).exits(0), "tool\n"));
            }
        });
        world.exec(&["true"]).exits(0);
        assert_eq!(fs::read_to_string(world.workspace().join("done")).unwrap(), "x\n", "once");
        world.run(&["sandbox", "recreate", "agent.main"]).exits(0);
        eventually("its container is gone", || dock.containers().is_empty());
        world.exec(&["true"]).exits(0);
        assert_eq!(fs::read_to_string(world.workspace().join("done")).unwrap(), "x\nx\n", "once for each container");
        // Each permit says what may be executed before its command, and each end whether it was.
        let permits = world.events("exec.permitted");
        assert!(
            permits.iter().all(|e| e["setup"] == "echo x >> /workspace/done; echo tool > /tmp/tool"),
            "{permits:?}"
        );
        let ends = world.events("exec.finished");
        let set_up = ends.iter().filter(|e| e["enforcement"].as_str().unwrap().contains(" setup=done ")).count();
        assert_eq!((ends.len(), set_up), (4, 2), "{ends:?}");
        let ran = world.run(&["exec", "--profile", "failing", "--", "true"]);
        assert!(ran.stderr.contains("hint: it is `setup`"), "{ran:?}");
        ran.fails(125, "failed (exit code 3): no such package");
        eventually("what was not set up is gone", || dock.containers() == ["agent.main"]);
    }
    // An operator's lockdown ends a setup as it does commands.
    let mark = mark(86661);
    let slow = format!("scope = \"agent\"\nsetup = \"sleep {mark}\"\n");
    let dock = Dock::with(User::Root, &slow);
    let mut ws = dock.world.connect();
    ws.ask("exec.run", json!({"command": ["true"]}));
    eventually("it is being set up", || !processes_with(mark).is_empty());
    dock.world.run(&["lockdown", "on", "--kill"]).exits(0);
    eventually("nothing of it is left", || processes_with(mark).is_empty() && dock.containers().is_empty());
    let native = World::new(User::Root).config("[defaults.sandbox]\nsetup = \"true\"\n");
    assert!(native.run(&["config", "check"]).stderr.contains("backend = \"docker\" alone"));
}

#[test]
fn a_bridge_leads_out_and_to_no_other_container() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\nnetwork = \"host\"\n");
    let world = &dock.world;
    let sh = |agent: &str, line: &str| world.run(&["exec", "--agent", agent, "--", "sh", "-c", line]);
    let bridge = format!("vambrace-{:.8}", dock.label());
    let address = sh("main", "ip -4 -o addr show eth0").exits(0);
    let own = address.split_whitespace().nth(3).and_then(|text| text.split('/').next()).unwrap().to_owned();
    sh("other", "ip -4 -o addr show eth0").exits(0);
    let network = ask("GET", &format!("/networks/{bridge}"), None).1;
    let host = network["IPAM"]["Config"][0]["Gateway"].as_str().unwrap();

    // The host's end answers, its loopback and the other container do not.
    let listener = std::net::TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    sh("main", &format!("nc -w 5 {host} {port} -e true")).exits(0);
    assert_ne!(sh("main", &format!("nc -w 2 127.0.0.1 {} -e true", world.port())).code, 0);
    let mut ws = world.connect();
    ws.ask("exec.run", json!({"command": ["nc", "-ll", "-p", "7777", "-e", "cat"]}));
    eventually("it listens", || sh("main", "nc -w 2 127.0.0.1 7777 -e true").code == 0);
    sh("main", &format!("nc -w 2 {own} 7777 -e true")).exits(0);
    assert_ne!(sh("other", &format!("nc -w 2 {own} 7777 -e true")).code, 0);
    drop(ws);
    let record = world.events("exec.finished").remove(0);
    assert!(record["enforcement"].as_str().unwrap().contains("net=host"), "{record}");

    // One that somebody else has made under this name is not used.
    for agent in ["main", "other"] {
        let recreate = ["sandbox", "recreate", &format!("agent.{agent}")];
        // What listened ends with its client, and not before that is seen.
        eventually("nothing runs in it", || world.run(&recreate).code == 0);
    }
    eventually("the bridge goes with the last container", || ask("GET", &format!("/networks/{bridge}"), None).0 == 404);
    assert_eq!(ask("POST", "/networks/create", Some(&json!({"Name": bridge, "Driver": "bridge"}))).0, 201);
    sh("main", "true").fails(125, "not of this gateway");
    assert_eq!(ask("DELETE", &format!("/networks/{bridge}"), None).0, 204);
}

#[test]
fn a_hundred_sessions_leave_nothing_behind() {
    let dock = Dock::running(User::Root);
    let runner = dock.world.status()["dockerRunner"]["pid"].as_i64().unwrap();
    let count = || {
        let descriptors = fs::read_dir(format!("/proc/{runner}/fd")).unwrap().count();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = mounts.lines().filter(|line| line.contains(dock.world.dir.to_str().unwrap())).count();
        (descriptors, ours, dock.containers().len())
    };
    dock.world.exec(&["true"]).exits(0);
    eventually("it is gone", || dock.containers().is_empty());
    let before = count();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut ws = dock.world.connect();
                for _ in 0..25 {
                    assert_eq!(ws.call("exec.run", json!({"command": ["true"]}))["ok"], true);
                }
            });
        }
    });
    eventually("all are gone", || count() == before);
}

#[test]
fn the_default_image_is_built_from_this_hosts_packages_and_developers_can_work_in_it() {
    const NAME: &str = "vambrace-test-built:1";
    let world = World::new(User::Root);
    let built =
        finish(world.command(&["sandbox", "build-image", NAME, "--json"]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"));
    assert_eq!(built.code, 0, "{}", built.stderr);
    let facts: Value = serde_json::from_str(&built.stdout).unwrap();
    assert!(facts["bytes"].as_u64().is_some_and(|bytes| bytes > 50_000_000), "{facts}");
    let dock = Dock::with(User::Root, &format!("scope = \"agent\"\n[profiles.built]\nimage = \"{NAME}\"\n"));
    let sh = |line: &str| dock.world.run(&["exec", "--profile", "built", "--", "bash", "-c", line]);
    sh("git init -q repo && cd repo && git config user.email a@b && git config user.name a && echo x > f && git add f && \
        git commit -qm one && git log --oneline | wc -l").exits(0);
    sh("printf 'int main(void){return 0;}' > a.c && gcc -o a a.c && ./a && make --version > /dev/null").exits(0);
    sh("python3 -c 'import json, ssl, subprocess; subprocess.check_call([\"true\"])'").exits(0);
    sh("echo '{\"a\": 1}' | jq -e .a && rg -q a a.c && curl --version > /dev/null && tar -cf t.tar a.c && sed -i s/int/int/ a.c && \
        awk 1 a.c > /dev/null && find . -name a.c | xargs ls > /dev/null").exits(0);
    assert_eq!(facts["found"], json!([]), "neither a set-id program nor a secret");
    // Nothing in it honours a set-id bit.
    assert_eq!(sh("find / -xdev -perm /6000 -type f 2>/dev/null | wc -l").exits(0), "0\n");
    drop(dock);
    ask("DELETE", &format!("/images/{NAME}?force=1"), None);
    let (_, images) = ask("GET", "/images/json", None);
    for image in images.as_array().unwrap() {
        // What was made of it for this test alone.
        if image["Labels"]["io.vambrace.base"] == facts["id"] {
            ask("DELETE", &format!("/images/{}?force=1", image["Id"].as_str().unwrap()), None);
        }
    }
}

#[test]
fn an_images_set_id_programs_and_secrets_are_reported() {
    use std::os::unix::fs::PermissionsExt;
    let image = import("laden", &["ENV GITHUB_TOKEN=x"], |root| {
        fs::write(root.join("bin/sudo-own"), "x").unwrap();
        fs::set_permissions(root.join("bin/sudo-own"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::create_dir_all(root.join("root/.ssh")).unwrap();
        fs::write(root.join("root/.ssh/id_ed25519"), "x").unwrap();
        fs::write(root.join("root/.ssh/id_ed25519.pub"), "x").unwrap();
    });
    let world = World::new(User::Root);
    let ran = world.run(&["sandbox", "check-image", &image, "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let places: Vec<_> = told["found"].as_array().unwrap().iter().map(|f| (&f["kind"], &f["place"])).collect();
    let expected = [
        (json!("secret"), json!("GITHUB_TOKEN")),
        (json!("set-id"), json!("/bin/sudo-own")),
        (json!("secret"), json!("/root/.ssh/id_ed25519")),
    ];
    assert_eq!(places.len(), 3, "{told}");
    assert!(expected.iter().all(|(kind, place)| places.contains(&(kind, place))), "{told}");
    world.run(&["sandbox", "check-image", crate::engine::image()]).exits(0);
    world.run(&["sandbox", "check-image", "no-such:1"]).fails(1, "has no image");
    assert_eq!(world.run(&["sandbox", "check-image", "--", "-x"]).code, 2);
}

#[test]
fn sandbox_run_has_the_same_walls_without_a_gateway_and_leaves_nothing() {
    for user in USERS {
        let dock = Dock::running(user);
        let world = &dock.world;
        let folder = world.make_dir("work");
        let run = ["sandbox", "run", "--image", image(), "--workspace", folder.to_str().unwrap(), "--json", "--"];
        let line = "cat > got; id -u; exit 4";
        let ran = world.run_with_input(&[&run[..], &["sh", "-c", line]].concat(), b"given");
        assert_eq!(ran.code, 4, "{ran:?}");
        assert_eq!(fs::read(folder.join("got")).unwrap(), b"given");
        assert!(ran.stderr.contains("\"backend\":\"docker\""), "{}", ran.stderr);
        eventually("its container is gone", || dock.containers().is_empty());
    }
}

#[test]
fn an_engine_that_goes_ends_what_runs_and_is_found_again_when_it_is_back() {
    let dock = Dock::with(User::Ordinary, "scope = \"agent\"\n");
    let (world, way) = (&dock.world, dock.way.clone().unwrap());
    let mark = mark(86606);
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sleep", mark]}));
    eventually("it runs", || !processes_with(mark).is_empty());
    way.cut(true);
    let answer = ws.response(&id);
    assert_eq!(answer["error"]["details"]["code"], "ENGINE_UNAVAILABLE", "{answer}");
    eventually("what ran has ended with its line", || processes_with(mark).is_empty());
    world.exec(&["true"]).fails(125, "engine");
    way.cut(false);
    world.exec(&["true"]).exits(0);
    assert_eq!(dock.containers(), ["agent.main"]);
}

#[test]
fn what_runs_where_nobody_is_heard_any_more_ends() {
    let dock = Dock::with(User::Ordinary, "scope = \"agent\"\n[defaults.sandbox.limits]\ntimeout = \"1h\"\n");
    let mark = mark(86608);
    let mut ws = dock.world.connect();
    ws.ask("exec.run", json!({"command": ["sleep", mark]}));
    eventually("it runs", || !processes_with(mark).is_empty());

    // As an engine on another machine whose network is cut off, or one that is killed.
    dock.way.as_ref().unwrap().fall_silent();

    eventually("it has ended", || processes_with(mark).is_empty());
}

#[test]
fn a_container_that_is_paused_by_somebody_is_given_up_after_the_deadline() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\n[defaults.sandbox.limits]\ntimeout = \"2s\"\n");
    dock.world.exec(&["true"]).exits(0);
    let first = dock.inspect("agent.main")["Id"].as_str().unwrap().to_owned();
    assert_eq!(ask("POST", &format!("/containers/{first}/pause"), None).0, 204);
    dock.world.exec(&["true"]).fails(125, "paused");
    dock.world.exec(&["true"]).exits(0);
    assert_ne!(dock.inspect("agent.main")["Id"], first.as_str());
}

#[test]
fn what_keeps_a_command_cannot_be_ended_by_it_and_nothing_outlives_lockdown() {
    for user in USERS {
        let dock = Dock::with(user, "scope = \"agent\"\n");
        let world = &dock.world;
        // Limits of whoever keeps it: of no CPU time the kernel would make an end of that.
        for act in [["limits-of", "1"], ["nice", "1"], ["affinity-of", "1"]] {
            assert_ne!(world.attack(&act).code, 0, "{act:?}");
        }
        let parent = world.sh("prlimit --pid $PPID --cpu=0:0; echo $PPID");
        assert!(!parent.stdout.is_empty(), "{parent:?}");
        world.exec(&["true"]).exits(0);
        let before = dock.inspect("agent.main")["Id"].clone();
        // A container in which nothing is known to run goes itself.
        world.run(&["lockdown", "on", "--kill"]).exits(0);
        eventually("it is gone", || dock.containers().is_empty());
        world.run(&["lockdown", "off"]).exits(0);
        world.exec(&["true"]).exits(0);
        assert_ne!(dock.inspect("agent.main")["Id"], before);
    }
}

#[test]
fn a_workspace_that_is_removed_in_mid_run_harms_neither_this_run_nor_the_next() {
    for user in USERS {
        let dock = Dock::with(user, "scope = \"agent\"\n");
        let world = &dock.world;
        let mut command = world.command(&["exec", "--", "sh", "-c", "echo x > mark; read line; ls; echo over"]);
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let workspace = world.workspace();
        eventually("it runs", || workspace.join("mark").exists());
        fs::remove_dir_all(&workspace).unwrap();
        drop(child.stdin.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(0), b"over\n".as_slice()));
        world.sh("ls; echo new > file").exits(0);
        assert_eq!(fs::read(workspace.join("file")).unwrap(), b"new\n");
        assert_eq!(dock.containers(), ["agent.main"]);
    }
}

#[test]
fn a_way_out_that_cannot_be_opened_runs_nothing() {
    // An ordinary user may not enter the network namespace of a container.
    let dock =
        Dock::with(User::Ordinary, "scope = \"agent\"\nnetwork = \"allowlist\"\nallow_domains = [\"open.example\"]\n");
    dock.world.sh("echo ran > /workspace/file").fails(125, "leads out");
    assert!(!dock.world.workspace().join("file").exists());
}

#[test]
fn a_container_in_use_is_not_made_anew_under_its_commands() {
    let dock = Dock::with(User::Root, "scope = \"agent\"\n[profiles.more.limits]\nmemory = \"1G\"\n");
    let mark = mark(86607);
    let mut ws = dock.world.connect();
    let line = format!("read x; exit 5 # {mark}");
    let id = ws.ask("exec.run", json!({"command": ["sh", "-c", line], "stdin": true}));
    let run = ws.event("exec.started")["runId"].clone();
    eventually("it runs", || !processes_with(mark).is_empty());
    dock.world.run(&["exec", "--profile", "more", "--", "true"]).fails(125, "as many runs as it takes");
    ws.ask("exec.input", json!({"runId": run, "data": "", "eof": true}));
    assert_eq!(ws.response(&id)["payload"]["exitCode"], 5);
    dock.world.run(&["exec", "--profile", "more", "--", "true"]).exits(0);
    assert_eq!(dock.inspect("agent.main")["HostConfig"]["Memory"], 1 << 30);
}

#[test]
fn the_engines_socket_is_shown_nowhere() {
    let dock = Dock::running(User::Ordinary);
    let folder = dock.world.dir.join("engine").display().to_string();
    let run = ["sandbox", "run", "--image", image(), "--rw", &folder, "--", "true"];
    dock.world.run(&run).fails(126, "place of the gateway");
    let native = ["sandbox", "run", "--backend", "native", "--rw", &folder, "--", "true"];
    dock.world.run(&native).fails(126, "place of the gateway");
}

#[test]
fn two_gateways_on_one_engine_know_nothing_of_each_other() {
    let docks = [Dock::with(User::Root, "scope = \"agent\"\n"), Dock::with(User::Root, "scope = \"agent\"\n")];
    for (dock, word) in docks.iter().zip(["one", "two"]) {
        dock.world.sh(&format!("echo {word} > /tmp/mark")).exits(0);
    }
    assert_ne!(docks[0].inspect("agent.main")["Id"], docks[1].inspect("agent.main")["Id"]);
    docks[0].world.run(&["sandbox", "prune", "--all"]).exits(0);
    eventually("its own is gone", || docks[0].containers().is_empty());
    assert_eq!(docks[1].world.sh("cat /tmp/mark").exits(0), "two\n");
}

#[test]
fn probe_and_explain_speak_of_the_engine_and_the_image() {
    let dock = Dock::with(User::Root, "[profiles.none]\nimage = \"no-such-image:1\"\n");
    let world = &dock.world;
    let probed = world.json(&["sandbox", "probe", "--json"]);
    assert_eq!(probed["able"], true, "{probed}");
    let row = |name: &str| probed["walls"].as_array().unwrap().iter().find(|row| row["wall"] == name).cloned().unwrap();
    assert!(row("image")["detail"].as_str().unwrap().starts_with(image()));
    assert_eq!((row("memory limit")["here"].clone(), row("seccomp")["here"].clone()), (json!(true), json!(true)));
    world.run(&["sandbox", "probe", "--profile", "none"]).fails(1, "cannot build every wall");
    let said = world.run(&["sandbox", "explain"]).exits(0);
    assert!(said.contains(&format!("what is in the image {}", image())) && !said.contains("/usr  "), "{said}");
    let explained = world.json(&["sandbox", "explain", "--json"]);
    let setting = |name: &str| explained["settings"].as_array().unwrap().iter().find(|s| s["setting"] == name).cloned();
    assert_eq!(setting("backend").unwrap()["value"], "docker");
}

#[test]
fn what_is_pruned_or_recreated_takes_its_container_with_it() {
    let dock = Dock::with(User::Root, "scope = \"session\"\n");
    let world = &dock.world;
    for session in ["a", "b"] {
        world.run(&["exec", "--session", session, "--", "sh", "-c", "echo x > /tmp/mark"]).exits(0);
    }
    assert_eq!(dock.containers(), ["session.main.a", "session.main.b"]);
    world.run(&["sandbox", "recreate", "session.main.a"]).exits(0);
    eventually("it is gone", || dock.containers() == ["session.main.b"]);
    assert_ne!(world.run(&["exec", "--session", "a", "--", "cat", "/tmp/mark"]).code, 0);
    world.run(&["sandbox", "prune", "--all"]).exits(0);
    eventually("both are gone", || dock.containers().is_empty());
}

#[test]
fn a_docker_runner_that_is_its_own_service_is_connected_to_and_none_is_started() {
    // Declared first, so that it is there until the containers are gone.
    let mut runner;
    let dock = Dock::with(User::Ordinary, "[runner]\ndocker_socket = \"@/run/docker.sock\"\n");
    let world = &dock.world;
    let place = |relative: &str| world.dir.join(relative).display().to_string();
    let [socket, engine] = [place("run/docker.sock"), place("engine/engine.sock")];
    let [scratch, kept, workspaces] = ["run/scratch", "state-sandboxes", "state-workspaces"].map(place);
    let arguments = ["runner", "--backend", "docker", "--socket", &socket, "--engine", &engine, "--scratch", &scratch];
    let more = ["--gateway", "0123456789abcdef", "--kept", &kept, "--workspaces", &workspaces];
    let health = |failing: serde_json::Value| world.json(&["health", "--json"])["failing"] == failing;
    assert!(health(json!(["docker-runner"])));
    world.exec(&["true"]).fails(125, "runner");

    let child = world.command(&[&arguments[..], &more[..]].concat()).stdin(std::process::Stdio::null()).spawn();
    runner = Spawned(child.unwrap());

    eventually("it is connected", || health(json!([])));
    assert_eq!(world.exec(&["echo", "in a container"]).exits(0), "in a container\n");
    assert_eq!(world.status()["dockerRunner"]["pid"], runner.0.id());
    drop(dock);
    assert!(runner.stop(nix::sys::signal::Signal::SIGTERM).success());
}
