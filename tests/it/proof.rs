//! The walls are proved before each command: what was tried, what the kernel answered, where it is written down.
//!
//! `tests/walls-off.sh` switches off each wall that is proved and sees `the_probe_holds` turn red.

use crate::world::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every act of the battery without a list of executables, with the one answer that its wall gives.
const ACTS: &[(&str, &str)] = &[
    ("see-state", "ENOENT"),
    ("see-host", "ENOENT"),
    ("write-system", "EROFS"),
    ("write-root", "EROFS"),
    ("truncate", "EROFS"),
    ("landlock", "EACCES"),
    ("connect-out", "ENETUNREACH"),
    ("abstract-socket", "ECONNREFUSED"),
    ("ptrace", "EPERM"),
    ("mount", "EPERM"),
    ("user-namespace", "EPERM"),
    ("io-uring", "EPERM"),
    ("keyring", "EPERM"),
    ("terminal-input", "EPERM"),
];

/// What is read back.
const READ_BACK: &[&str] =
    &["no-new-privs", "seccomp", "capabilities", "namespaces", "processes", "descriptors", "mounts"];

/// A world with a profile for each kind of walls, and something that no sandbox may see.
fn world(user: User) -> World {
    let config = "
[profiles.host-network]
network = \"host\"
[profiles.bound]
ro = [\"@/shown\"]
[profiles.blind]
workspace_access = \"none\"
[profiles.kept]
scope = \"shared\"
[profiles.state]
ro = [\"@/state\"]
";
    let world = World::new(user).config(config);
    world.make_dir("shown");
    world.make_dir("state");
    world
}

/// What a probe with these arguments proves, by act.
fn proofs(world: &World, arguments: &[&str]) -> BTreeMap<String, String> {
    let ran = world.run(&[&["sandbox", "probe", "--json"], arguments].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(said["able"], true, "{said}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |row: &Value| {
        assert!(!text(&row["what"]).is_empty());
        (text(&row["act"]), text(&row["answer"]))
    };
    said["proofs"].as_array().unwrap().iter().map(row).collect()
}

fn expected() -> BTreeMap<String, String> {
    let acts = ACTS.iter().map(|(act, answer)| ((*act).to_owned(), (*answer).to_owned()));
    acts.chain(READ_BACK.iter().map(|act| ((*act).to_owned(), "holds".to_owned()))).collect()
}

#[test]
fn the_probe_holds() {
    for user in USERS {
        let world = world(user);
        assert_eq!(proofs(&world, &[]), expected(), "{user:?}");
        for profile in ["bound", "blind", "kept"] {
            assert_eq!(proofs(&world, &["--profile", profile]), expected(), "{user:?} {profile}");
        }
        world.run(&["sandbox", "probe", "--profile", "state"]).fails(1, "place of the gateway");
        let text = world.run(&["sandbox", "probe"]).exits(0);
        for (act, answer) in expected() {
            let words = |line: &str| line.split_whitespace().take(2).eq([&*act, &*answer]);
            assert!(text.lines().any(words), "{act}: {text}");
        }
    }
}

#[test]
fn what_the_walls_do_not_forbid_is_not_called_proved() {
    for user in USERS {
        let world = world(user);
        let mut shared = expected();
        shared.remove("connect-out");
        // On the host's network its abstract sockets are refused by Landlock, where it knows how.
        shared.insert("abstract-socket".into(), "EPERM".into());
        assert_eq!(proofs(&world, &["--profile", "host-network"]), shared, "{user:?}");
    }
}

#[test]
fn a_list_of_executables_is_proved_as_well() {
    for user in USERS {
        let world = world(user)
            .config("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"/usr/bin/true\", \"/usr/bin/sh\"]\n");
        let mut listed = expected();
        listed.insert("execute-unlisted".into(), "EACCES".into());
        listed.insert("executable-memory".into(), "EPERM".into());
        assert_eq!(proofs(&world, &[]), listed, "{user:?}");
    }
}

#[test]
fn a_probe_of_a_profile_that_is_not_there_or_cannot_be_built_proves_nothing() {
    for user in USERS {
        let world = World::new(user).config("[profiles.gone]\nro = [\"@/gone\"]\n[profiles.etc]\nro = [\"/etc\"]\n");
        world.run(&["sandbox", "probe", "--profile", "none-such"]).fails(1, "there is no profile");
        world.run(&["sandbox", "probe", "--profile", "etc"]).fails(1, "/etc");
        let gone = world.run(&["sandbox", "probe", "--profile", "gone"]);
        assert!(!gone.stdout.contains("EROFS"), "{gone:?}");
        gone.fails(1, "open a folder of the profile");
    }
}

#[test]
fn the_digest_of_what_was_proved_stands_with_the_result_and_in_the_journal() {
    for user in USERS {
        let mut world = world(user).start();
        let enforcement = |arguments: &[&str]| {
            world.json(&[&["exec", "--json"], arguments, &["--", "true"]].concat())["enforcement"].clone()
        };

        let first = enforcement(&[]);
        let digest = first["proof"].as_str().unwrap().to_owned();
        assert_eq!((digest.len(), &first["proofs"]), (64, &json!(expected().len())), "{first}");
        assert!(digest.bytes().all(|b| b.is_ascii_hexdigit()));

        // The same walls are proved alike, by a child that waited or a new one, for another agent's command as well.
        for _ in 0..3 {
            assert_eq!(enforcement(&[])["proof"], digest.as_str());
        }
        // Other walls are not.
        let mut seen = vec![digest.clone()];
        for profile in ["host-network", "bound", "blind"] {
            let other = enforcement(&["--profile", profile]);
            seen.push(other["proof"].as_str().unwrap().to_owned());
            assert_eq!(other["proofs"], json!(proofs(&world, &["--profile", profile]).len()), "{profile}");
        }
        let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "{seen:?}");

        let finished = world.events("exec.finished");
        for (record, digest) in finished[4..].iter().zip(&seen[1..]) {
            let text = record["enforcement"].as_str().unwrap();
            assert!(text.contains(&digest[..16]), "{text}: {digest}");
        }
        assert!(finished[0]["enforcement"].as_str().unwrap().contains(&format!("proofs={}", expected().len())));

        // A restart builds the same walls.
        world.stop(nix::sys::signal::Signal::SIGTERM);
        world.start_again();
        assert_eq!(world.json(&["exec", "--json", "--", "true"])["enforcement"]["proof"], digest.as_str());
    }
}

#[test]
fn a_mount_that_the_host_makes_below_what_is_shown_changes_the_digest() {
    // Only root mounts on the host; the walls show it with the flags of what holds it.
    let world = world(User::Root).start();
    let proof = || world.json(&["exec", "--json", "--profile", "bound", "--", "true"])["enforcement"]["proof"].clone();
    let before = proof();
    let below = world.make_dir("shown/below");
    let done = finish(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&below));
    assert_eq!(done.code, 0, "{done:?}");
    let after = proof();
    finish(std::process::Command::new("umount").arg(&below)).exits(0);
    assert_eq!(before, proof());
    // A root launcher shows the folder alone, without what is mounted below it.
    assert_eq!(before, after);
}
