//! The activity log: what stands in it, that it cannot be changed unseen, and that nothing runs without it.

use crate::world::*;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn every_run_and_refusal_is_a_record_of_a_chain_that_holds() {
    let mut world = World::running(User::Ordinary);
    world.exec(&["true"]).exits(0);
    world.run(&["exec", "--env", "LD_PRELOAD=x", "--", "true"]);
    world.exec(&["no-such"]);
    world.stop(nix::sys::signal::Signal::SIGTERM);
    world.start_again();
    let events: Vec<String> = world.journal().iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        events,
        [
            "gateway.started",
            "exec.permitted",
            "exec.finished",
            "exec.denied",
            "exec.permitted",
            "exec.failed",
            "gateway.stopped",
            "gateway.started"
        ]
    );
    let seqs: Vec<u64> = world.journal().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<u64>>());
    assert_eq!(world.run(&["journal", "verify"]).exits(0), "the chain holds: 8 entries\n");
    assert_eq!(world.json(&["journal", "verify", "--json"]), json!({"ok": true, "entries": 8}));
    let shown = world.run(&["journal", "list", "--event", "exec.denied"]).exits(0);
    assert!(shown.contains("rule=sandbox.env") && shown.lines().count() == 1, "{shown}");
}

#[test]
fn a_changed_entry_is_found_with_and_without_the_gateway() {
    let world = World::running(User::Ordinary);
    world.exec(&["echo", "evidence"]).exits(0);
    let folder = world.state().join("journal");
    let segment = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, text.replace("evidence", "nothing!")).unwrap();

    world.run(&["journal", "verify"]).fails(1, "the chain is broken at");
    world.run(&["journal", "verify", "--dir", folder.to_str().unwrap()]).fails(1, ":2: entry 2 was changed");
}

#[test]
fn its_files_are_readable_by_the_gateways_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::running(User::Ordinary);
    let mut checked = 0;
    for item in fs::read_dir(world.state()).unwrap().chain(fs::read_dir(world.state().join("journal")).unwrap()) {
        let path = item.unwrap().path();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        assert!(mode == 0o600 || (path.is_dir() && mode == 0o700), "{}: {mode:o}", path.display());
        checked += 1;
    }
    assert!(checked >= 5, "{checked}");
}

#[test]
fn a_line_torn_by_a_crash_is_set_aside_and_said() {
    let mut world = World::running(User::Ordinary);
    world.exec(&["true"]).exits(0);
    world.stop(nix::sys::signal::Signal::SIGKILL);
    let segment = fs::read_dir(world.state().join("journal")).unwrap().next().unwrap().unwrap().path();
    let mut text = fs::read_to_string(&segment).unwrap();
    text.push_str("{\"hash\":\"half of a li");
    fs::write(&segment, text).unwrap();
    world.start_again();
    assert!(world.journal().iter().any(|e| e["event"] == "journal.mended"));
    world.run(&["journal", "verify"]).exits(0);
}

#[test]
fn when_it_cannot_be_written_nothing_runs() {
    // A state folder on a file system that is full.
    let world = World::new(User::Root);
    let state = world.make_dir("state");
    let done =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=700", "none"]).arg(&state).status().unwrap();
    assert!(done.success());
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(state.clone());
    let mut world = world.start();
    world.exec(&["touch", "/workspace/before"]).exits(0);
    let _ = fs::write(state.join("filler"), vec![0u8; 1 << 20]);
    // The page the journal stands on has some room left: fill it. The end of a run is longer than its beginning.
    let full = (0..400).any(|_| world.exec(&["true"]).stderr.contains("the journal does not take records"));
    assert!(full, "the disk did not fill");

    let refused = world.run(&["exec", "--", "touch", "/workspace/after"]);

    refused.fails(125, "the journal does not take records");
    assert!(world.workspace().join("before").exists() && !world.workspace().join("after").exists());
    fs::remove_file(state.join("filler")).unwrap();
    world.exec(&["touch", "/workspace/after"]).exits(0);
    world.run(&["journal", "verify"]).exits(0);
    world.stop(nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn a_journal_that_was_removed_is_noticed_before_the_next_act() {
    let world = World::running(User::Ordinary);
    world.exec(&["true"]).exits(0);
    fs::remove_dir_all(world.state().join("journal")).unwrap();
    world.exec(&["touch", "/workspace/unrecorded"]).fails(125, "the journal does not take records");
    assert!(!world.workspace().join("unrecorded").exists());
}

#[test]
fn tail_shows_what_was_and_then_what_comes() {
    let world = World::running(User::Ordinary);
    world.exec(&["echo", "first"]).exits(0);
    let tail = world.command(&["journal", "tail", "--event", "exec.permitted"]).stdout(Stdio::piped()).spawn();
    let mut tail = Spawned(tail.unwrap());
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("first"));
    world.exec(&["echo", "second\u{1b}[2J\nforged  line"]).exits(0);
    let second = lines.next().unwrap().unwrap();
    assert!(second.contains("second") && !second.contains('\u{1b}'), "{second:?}");
    tail.stop(nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn journald_gets_every_record_with_its_fields() {
    // A real journald in a mount namespace of its own, so that nothing of the host's /run is touched.
    let world = World::new(User::Root);
    let script = world.write("journald.sh", include_bytes!("../journald.sh"));
    let ran = finish(
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "bash"])
            .arg(script)
            .arg(program())
            .arg(world.dir.join("jd")),
    );
    assert_eq!(ran.code, 0, "{ran:?}\njournald comes with the package systemd: apt-get install systemd");
    let entries: Vec<serde_json::Value> = ran.stdout.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let finished = entries.iter().find(|e| e["VAMBRACE_EVENT"] == "exec.finished").unwrap_or_else(|| panic!("{ran:?}"));
    assert_eq!(finished["SYSLOG_IDENTIFIER"], "vambrace");
    assert_eq!((&finished["VAMBRACE_EXIT"], &finished["VAMBRACE_AGENT"]), (&json!("3"), &json!("main")));
    assert_eq!(finished["VAMBRACE_COMMAND"], "sh -c exit 3");
    assert!(finished["VAMBRACE_ENFORCEMENT"].as_str().unwrap().contains("seccomp=1"));
    assert_eq!(finished["MESSAGE_ID"].as_str().unwrap().len(), 32);
    assert_eq!(finished["VAMBRACE_CHAIN"].as_str().unwrap().len(), 64);
    let permitted = entries.iter().find(|e| e["VAMBRACE_EVENT"] == "exec.permitted").unwrap();
    assert_eq!(
        (&permitted["VAMBRACE_VERDICT"], &permitted["VAMBRACE_RULE"]),
        (&json!("permit"), &json!("defaults.sandbox"))
    );
}
