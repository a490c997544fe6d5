//! What a container shows: workspaces of whoever they belong to, further folders, and what an image has in their place.

use crate::engine::{Dock, import};
use crate::world::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_workspace_of_anybody_is_the_commands_own_and_the_host_sees_its_owner() {
    let agents: String = ["root", "person", "nobody"]
        .iter()
        .flat_map(|name| {
            ["rw", "ro", "none"].map(|access| {
                format!(
                    "[agents.{name}-{access}]\nworkspace = \"@/{name}\"\nsandbox = {{ workspace_access = \"{access}\", \
                     ro = [\"@/further-{name}\"], rw = [\"@/writable-{name}\"] }}\n"
                )
            })
        })
        .collect();
    let world = World::new(User::Root);
    for (name, uid) in [("root", 0), ("person", 1000), ("nobody", 65_534)] {
        for folder in [name.to_owned(), format!("further-{name}"), format!("writable-{name}")] {
            let folder = world.make_dir(&folder);
            fs::write(folder.join("file"), "here\n").unwrap();
            fs::set_permissions(folder.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
            chown(&folder, Some(uid), Some(uid)).unwrap();
            chown(folder.join("file"), Some(uid), Some(uid)).unwrap();
        }
    }
    let dock = Dock::within(world, &agents);
    let dir = dock.world.dir.display().to_string();
    let sh = |agent: &str, line: &str| dock.world.run(&["exec", "--agent", agent, "--", "sh", "-c", line]);
    for (name, uid) in [("root", 0), ("person", 1000), ("nobody", 65_534)] {
        let [rw, ro, none] = ["rw", "ro", "none"].map(|access| format!("{name}-{access}"));
        assert_eq!(
            sh(&rw, "cat file && echo more >> file && echo new > new && id -u").exits(0).lines().next(),
            Some("here")
        );
        assert_ne!(sh(&rw, "id -u").exits(0), "0\n", "{name}");
        let made = fs::metadata(dock.world.dir.join(name).join("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (uid, uid), "{name}");
        assert_eq!(sh(&ro, "cat new").exits(0), "new\n");
        for line in ["echo x > new", "echo x > another", "rm new", "mount -o remount,rw /workspace"] {
            assert_ne!(sh(&ro, line).code, 0, "{name}: {line}");
        }
        assert_eq!(sh(&none, "ls && echo x > own && cat own").exits(0), "x\n");
        assert!(!dock.world.dir.join(name).join("own").exists());
        for agent in [&rw, &ro, &none] {
            let (further, writable) = (format!("{dir}/further-{name}"), format!("{dir}/writable-{name}"));
            assert_eq!(sh(agent, &format!("cat {further}/file {writable}/file")).exits(0), "here\nhere\n");
            assert_ne!(sh(agent, &format!("echo x > {further}/{agent}")).code, 0);
            sh(agent, &format!("echo x > {writable}/{agent}")).exits(0);
            assert_eq!(fs::metadata(format!("{writable}/{agent}")).unwrap().uid(), uid, "{agent}");
        }
    }
}

#[test]
fn a_workspace_that_is_a_link_or_becomes_one_is_never_followed() {
    let world = World::new(User::Root);
    let (real, other) = (world.make_dir("real"), world.make_dir("other"));
    fs::write(other.join("secret"), "x").unwrap();
    symlink(&other, world.dir.join("link")).unwrap();
    let config = "[agents.real]\nworkspace = \"@/real\"\nsandbox = { scope = \"agent\" }\n[agents.link]\nworkspace = \"@/link\"\n";
    let dock = Dock::within(world, config);
    let sh = |agent: &str, line: &str| dock.world.run(&["exec", "--agent", agent, "--", "sh", "-c", line]);
    sh("link", "cat secret").fails(126, "cannot be shown");
    sh("real", "echo x > file").exits(0);

    // Swapped while it is mounted.
    fs::rename(&real, real.with_extension("old")).unwrap();
    symlink(&other, &real).unwrap();

    let ran = sh("real", "cat secret");
    assert!(ran.code != 0 && ran.stdout.is_empty(), "{ran:?}");
    ran.fails(126, "cannot be shown");
    fs::remove_file(&real).unwrap();
    fs::rename(real.with_extension("old"), &real).unwrap();
    assert_eq!(sh("real", "cat file").exits(0), "x\n");
}

#[test]
fn a_volume_of_an_image_is_a_folder_in_memory_however_it_is_written_and_hides_nothing_of_the_host() {
    let image = import("volumes", &["VOLUME /data/", "VOLUME /workspace/", "VOLUME /more/../deep//er/"], |_| ());
    let inner = import("inner", &["VOLUME /workspace/inner"], |_| ());
    let profiles = format!(
        "[profiles.inner]\nimage = \"{inner}\"\n[profiles.memory]\nimage = \"{inner}\"\nworkspace_access = \"none\"\nscope = \"session\"\n"
    );
    for user in USERS {
        let dock = Dock::of(user, &image, &profiles);
        let mounts = dock.world.sh("echo kept > file; cat /proc/self/mounts").exits(0);
        for place in ["/data", "/deep/er"] {
            let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(place)).unwrap_or_default();
            assert!(line.starts_with("tmpfs ") && line.contains("nosuid,nodev,noexec"), "{place}: {mounts}");
        }
        assert_eq!(fs::read(dock.world.workspace().join("file")).unwrap(), b"kept\n");

        dock.world.run(&["exec", "--profile", "inner", "--", "true"]).fails(126, "/workspace/inner");
        assert!(!dock.world.workspace().join("inner").exists());
        dock.world.run(&["exec", "--profile", "memory", "--", "sh", "-c", "echo x > file"]).exits(0);
    }
}

#[test]
fn an_image_says_neither_who_a_command_is_nor_where_its_folders_lie() {
    let users = "1000:x:0:0::/root:/bin/sh\n1879048192:x:0:0::/:/bin/sh\n1879048191:x:0:0::/:/bin/sh\n\
                 65534:x:0:0::/:/bin/sh\nroot:x:1000:1000::/:/bin/sh\n";
    let lying = import("lying", &["USER 0:0", "WORKDIR /root", "ENV HOME=/lied"], |root: &Path| {
        fs::write(root.join("etc/passwd"), users).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:1000,1879048192\n1000:x:0:\n1879048192:x:0:1879048192\n").unwrap();
        // Programs that say what they like.
        for name in ["true", "id"] {
            fs::remove_file(root.join("bin").join(name)).unwrap();
            fs::write(root.join("bin").join(name), "#!/bin/sh\necho lied\n").unwrap();
            fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(0o4755)).unwrap();
        }
    });
    for (name, places) in [("workspace", "/etc"), ("tmp", "/usr"), ("home", "/bin")] {
        let linked = import(&format!("linked-{name}"), &[], |root: &Path| {
            symlink(places, root.join(name)).unwrap();
        });
        for user in USERS {
            let dock = Dock::of(user, &linked, "scope = \"agent\"\n");
            let ran = dock.world.sh("echo x > /workspace/file");
            match ran.code {
                0 => assert!(dock.world.workspace().join("file").exists(), "{name}: it was somewhere else"),
                125 | 126 => assert!(ran.stderr.contains("hint: "), "{name}: {ran:?}"),
                _ => panic!("{name}: {ran:?}"),
            }
        }
    }
    for user in USERS {
        let dock = Dock::of(user, &lying, "scope = \"agent\"\n");
        let status = dock.world.exec(&["cat", "/proc/self/status"]).exits(0);
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        for ids in ["Uid:", "Gid:"] {
            assert!(!line(ids).split('\t').skip(1).any(|id| id == "0"), "{}", line(ids));
        }
        assert!(!line("Groups:").split([' ', '\t']).skip(1).any(|id| id == "0"), "{}", line("Groups:"));
        assert_eq!(line("CapBnd:"), "CapBnd:\t0000000000000000");
        assert_eq!(dock.world.sh("echo $HOME; pwd").exits(0), "/home/agent\n/workspace\n");
        // A program that lies is the image's, and what it says is its own claim.
        assert_eq!(dock.world.exec(&["true"]).exits(0), "lied\n");
        assert_eq!(dock.inspect("agent.main")["Config"]["WorkingDir"], "/");
    }
}

#[test]
fn what_else_the_owner_of_a_workspace_runs_is_not_counted_against_a_command() {
    let world = World::new(User::Root);
    let folder = world.make_dir("person");
    chown(&folder, Some(1000), Some(1000)).unwrap();
    let config = "[agents.person]\nworkspace = \"@/person\"\n[defaults.sandbox.limits]\npids = 64\n";
    let dock = Dock::within(world, config);
    // As much as a desktop of this user has, outside of every container.
    let program = "import threading, time\n\
                   for _ in range(200): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
                   print('there', flush=True)\ninput()";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "/usr/bin/python3", "-c", program]);
    let mut desktop = Spawned(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(desktop.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "there\n");

    let ran = dock.world.run(&["exec", "--agent", "person", "--json", "--", "sh", "-c", "id -u | cat; (echo x)"]);

    assert!(ran.stdout.contains("1000\\nx\\n"), "{ran:?}");
    assert!(!ran.stdout.contains("\"pids\"]"), "no limit was met: {ran:?}");
}
