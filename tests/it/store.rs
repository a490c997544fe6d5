//! The sealed state from outside: kills, full and read-only disks, other machines, keys, backups.

use crate::device::Device;
use crate::world::{Ran, USERS, User, World, am_root, finish};
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// 32 bytes that are a key.
fn new_key() -> Vec<u8> {
    let mut file = std::fs::File::open("/dev/urandom").unwrap();
    let mut key = vec![0; 32];
    std::io::Read::read_exact(&mut file, &mut key).unwrap();
    key
}

fn private(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A world whose key is a file, so that a start takes no tenth of a second.
fn with_key_file(user: User) -> World {
    let world = World::new(user).config("[store]\nkey_file = \"@/keys/key\"\n");
    std::fs::set_permissions(world.make_dir("keys"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(&world.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    private(&world.write("keys/key", &new_key()));
    world
}

#[test]
fn five_hundred_kills_leave_every_record_old_or_new() {
    let mut world = with_key_file(User::Ordinary).start();
    let devices: Vec<String> = (1..=3)
        .map(|n| {
            let (_, hello) = Device::new(n).connect(&world, &["operator.read"], json!({"token": world.token()}));
            assert_eq!(hello["ok"], true, "{hello}");
            let list = world.json(&["devices", "list", "--json"]);
            list["paired"].as_array().unwrap().iter().max_by_key(|d| d["createdAtMs"].as_u64()).unwrap()["deviceId"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let token = world.token();
    let mut allowed: HashMap<&str, Vec<String>> = HashMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut kept, mut lost) = (0, 0);
    for round in 0..500u64 {
        // xorshift: another moment each time, the same ones in every run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let device = devices[usize::try_from(seed % 3).unwrap()].as_str();
        let label = format!("label {round}");
        let mut ws = world.socket();
        assert_eq!(ws.hello(&token, json!({}))["ok"], true);
        if round > 0 {
            let listed = ws.call("device.pair.list", json!({}));
            for entry in listed["payload"]["paired"].as_array().unwrap() {
                let id = entry["deviceId"].as_str().unwrap();
                let Some((key, allowed)) = allowed.iter_mut().find(|(key, _)| **key == id) else { continue };
                let now = entry["operatorLabel"].as_str().unwrap_or_default().to_owned();
                assert!(allowed.contains(&now), "round {round}: {key} is {now:?}, not one of {allowed:?}");
                if allowed.len() > 1 {
                    if *allowed.last().unwrap() == now { kept += 1 } else { lost += 1 }
                }
                *allowed = vec![now];
            }
            assert_eq!(listed["payload"]["paired"].as_array().unwrap().len(), 3, "round {round}");
        }
        let before = allowed.entry(device).or_insert_with(|| vec![String::new()]);
        before.push(label.clone());
        ws.ask("device.pair.rename", json!({"deviceId": device, "label": label}));
        if seed.is_multiple_of(16) {
            // Now and then everything is sealed anew while it is killed.
            let mut rotate = world.command(&["secrets", "rotate-key"]);
            let mut rotating = rotate.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_micros(seed % 9000));
            world.stop(Signal::SIGKILL);
            rotating.wait().unwrap();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(seed % 3000));
            world.stop(Signal::SIGKILL);
        }
        world.start_again();
    }
    // The kills came before and after the writes, or this test would show nothing.
    assert!(kept > 20 && lost > 20, "{kept} were kept, {lost} were not");
    assert!(world.json(&["status", "--json"])["state"]["key"]["epoch"].as_u64().unwrap() > 1);
}

#[test]
fn a_second_gateway_on_the_same_state_is_refused() {
    for user in USERS {
        let world = with_key_file(user).start();
        world.run(&["gateway", "--port", "0"]).fails(1, "another gateway uses the state folder");
        world.run(&["restore", "/dev/null"]).fails(2, "passphrase");
        let file = backup(&world, "a passphrase of words");
        let mut restore = world.command(&["restore", "--replace", file.to_str().unwrap()]);
        with_input(&mut restore, b"a passphrase of words\n").fails(1, "another gateway uses the state folder");
    }
}

/// A folder with a disk of its own, which goes with it.
struct Disk(PathBuf);

impl Disk {
    fn new(world: &World, size: &str) -> Self {
        assert!(am_root(), "this test mounts a small disk: run `make test` as root");
        let path = world.make_dir("state");
        let options = format!("size={size},mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path).status();
        assert!(mounted.unwrap().success());
        Disk(path)
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_a_change_is_refused_and_what_was_kept_stays() {
    let mut world = with_key_file(User::Root);
    let disk = Disk::new(&world, "4m");
    world.start_again();
    world.run_with_input(&["secrets", "set", "FIRST"], b"first value\n").exits(0);
    let mut filler = std::fs::File::create(disk.0.join("filler")).unwrap();
    while std::io::Write::write(&mut filler, &[0; 4096]).is_ok() {}
    let refused = world.run_with_input(&["secrets", "set", "SECOND"], &[b'v'; 60_000]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("error: ") && refused.stderr.contains("hint: "), "{refused:?}");
    drop(filler);
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    assert_eq!(names(&world), ["FIRST"]);
    world.run_with_input(&["secrets", "set", "SECOND"], &[b'v'; 60_000]).exits(0);
    world.stop(Signal::SIGKILL);
    world.start_again();
    assert_eq!(names(&world), ["FIRST", "SECOND"]);
    world.stop(Signal::SIGTERM);
}

#[test]
fn a_disk_that_does_not_confirm_loses_neither_the_key_nor_a_record() {
    let world = World::new(User::Ordinary);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/failing_disk.c");
    let (shim, flag) = (world.dir.join("failing_disk.so"), world.dir.join("fails"));
    let built = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    assert!(built.is_ok_and(|s| s.success()), "cannot build tests/failing_disk.c: install gcc and libc6-dev");
    let mut world = world.variable("LD_PRELOAD", &shim).variable("FAILING_DISK", &flag);
    world.start_again();
    world.run_with_input(&["secrets", "set", "KEPT"], b"a value of it").exits(0);
    let token = world.token();
    for act in [&["secrets", "rotate-key"][..], &["secrets", "set", "REFUSED"], &["secrets", "rotate-key"]] {
        std::fs::write(&flag, b"").unwrap();
        let refused = world.run_with_input(act, b"a value of it");
        assert_eq!(refused.code, 1, "{act:?}: {refused:?}");
        // Killed while the disk is as it is: what comes out of the log, and which salt is the right one, shows now.
        world.stop(Signal::SIGKILL);
        std::fs::remove_file(&flag).unwrap();
        world.start_again();
        assert_eq!(world.token(), token, "{act:?}");
        assert!(names(&world).contains(&"KEPT".to_owned()));
        world.run(&["secrets", "rotate-key"]).exits(0);
    }
}

#[test]
fn on_a_read_only_disk_the_gateway_says_so_and_does_not_start() {
    let mut world = with_key_file(User::Root);
    let disk = Disk::new(&world, "8m");
    world.start_again();
    world.stop(Signal::SIGTERM);
    disk.remount("ro");
    world.run(&["gateway", "--port", "0"]).fails(1, "Read-only file system");
    disk.remount("rw");
    world.start_again();
    world.stop(Signal::SIGTERM);
}

fn names(world: &World) -> Vec<String> {
    let list = world.json(&["secrets", "list", "--json"]);
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

/// A backup under a passphrase.
fn backup(world: &World, passphrase: &str) -> PathBuf {
    let file = world.dir.join("backup.age");
    let _ = std::fs::remove_file(&file);
    world.run_with_input(&["backup", file.to_str().unwrap()], passphrase.as_bytes()).exits(0);
    file
}

fn with_input(command: &mut Command, input: &[u8]) -> Ran {
    let file = std::env::temp_dir().join(format!("vambrace-test-{}/input-{:p}", std::process::id(), &input));
    std::fs::write(&file, input).unwrap();
    let ran = finish(command.stdin(Stdio::from(std::fs::File::open(&file).unwrap())));
    std::fs::remove_file(file).unwrap();
    ran
}

/// The same command on a host with another id, in a mount namespace of its own.
fn elsewhere(world: &World, command: &Command) -> Command {
    let id = world.write("machine-id", b"fedcba9876543210fedcba9876543210\n");
    let mut there = Command::new("unshare");
    there.args(["--mount", "--propagation", "private", "sh", "-c"]);
    there.arg(r#"mount --bind "$0" /etc/machine-id && exec "$@""#).arg(id);
    there.arg(command.get_program()).args(command.get_args());
    there.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    there.current_dir(&world.dir).stdin(Stdio::null());
    there
}

#[test]
fn the_state_opens_on_its_own_machine_alone_and_a_backup_on_another() {
    assert!(Path::new("/etc/machine-id").exists(), "this host has no id: run systemd-machine-id-setup");
    let mut world = World::running(User::Root);
    assert_eq!(world.status()["state"]["key"]["source"], "machine");
    let (_, hello) = Device::new(1).connect(&world, &["operator.read"], json!({"token": world.token()}));
    assert_eq!(hello["ok"], true);
    world.run_with_input(&["secrets", "set", "API_KEY", "--agent", "main"], b"the value of it\n").exits(0);
    let token = world.token();
    // What is kept beside secrets and devices is of the backup too, and holds where it is restored.
    world.run(&["lockdown", "on"]).exits(0);
    let file = backup(&world, "a passphrase of words");
    world.stop(Signal::SIGTERM);

    // The folder alone, carried to another machine, does not open, and stays as it is.
    finish(&mut elsewhere(&world, &world.command(&["gateway", "--port", "0"])))
        .fails(1, "not the machine it was sealed on");

    // The backup does, with its passphrase.
    let other = World::new(User::Root);
    let restore = other.command(&["restore", file.to_str().unwrap()]);
    with_input(&mut elsewhere(&other, &restore), b"another passphrase\n").fails(1, "does not open");
    assert!(!other.state().join("state.sqlite").exists());
    let said = with_input(&mut elsewhere(&other, &restore), b"a passphrase of words\n").exits(0);
    assert!(said.contains("machine"), "{said}");
    // Once: what is there is not overwritten in passing.
    with_input(&mut elsewhere(&other, &restore), b"a passphrase of words\n").fails(1, "there is a state");
    // It is sealed for that machine now, and not for this one.
    other.run(&["gateway", "--port", "0"]).fails(1, "not the machine it was sealed on");
    let there = elsewhere(&other, &other.command(&["secrets", "rotate-key", "--json"]));
    let facts: serde_json::Value = serde_json::from_str(&finish(&mut { there }).exits(0)).unwrap();
    assert_eq!((&facts["source"], &facts["epoch"]), (&json!("machine"), &json!(2)));
    let read = elsewhere(&other, Command::new("python3").arg(reader()).arg(other.state()));
    let rows: serde_json::Value = serde_json::from_str(&finish(&mut { read }).exits(0)).unwrap();
    assert_eq!(rows["secret-value API_KEY"], "dGhlIHZhbHVlIG9mIGl0");

    // And back, in place of what is there.
    with_input(&mut world.command(&["restore", "--replace", file.to_str().unwrap()]), b"a passphrase of words\n")
        .exits(0);
    world.start_again();
    assert_eq!(world.token(), token);
    assert_eq!(names(&world), ["API_KEY"]);
    assert_eq!(world.json(&["devices", "list", "--json"])["paired"].as_array().unwrap().len(), 1);
    assert_eq!(world.json(&["lockdown", "status", "--json"])["on"], true);
    assert_eq!(world.events("state.restored").len(), 1);
    assert_eq!(world.events("state.backed-up").len(), 1);
}

fn reader() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_store.py")
}

#[test]
fn another_implementation_reads_the_format_by_its_description() {
    for world in [World::running(User::Ordinary), with_key_file(User::Ordinary).start()] {
        world.run_with_input(&["secrets", "set", "API_KEY"], b"the value of it\n").exits(0);
        let mut python = world.bare_command("python3");
        python.arg(reader()).arg(world.state()).arg(world.dir.join("keys/key"));
        let rows: serde_json::Value = serde_json::from_str(&finish(&mut python).exits(0)).unwrap();
        assert_eq!(rows["secret-value API_KEY"], "dGhlIHZhbHVlIG9mIGl0");
        assert!(rows["own gateway-token"].is_string());
    }
}

#[test]
fn a_backup_for_a_recipient_opens_with_its_identity_and_is_never_overwritten() {
    let world = with_key_file(User::Ordinary).start();
    let file = world.dir.join("backup.age");
    let path = file.to_str().unwrap();
    world.run(&["backup", "--recipient", "age1nonsense", path]).fails(1, "no age recipient");
    world.run_with_input(&["backup", path], b"short\n").fails(2, "at least 12 bytes");
    assert!(!file.exists());
    // A key pair of nobody's: 32 times the same byte.
    let recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    let identity = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    world.run(&["backup", "--recipient", recipient, path]).exits(0);
    world.run(&["backup", "--recipient", recipient, path]).fails(1, "not there yet");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let other = World::new(User::Ordinary);
    let keys = other.write("identity", format!("# a comment\n{identity}\n").as_bytes());
    let wrong = other.write("wrong", b"nothing\n");
    let restore = |keys: &Path| other.run(&["restore", "--identity", keys.to_str().unwrap(), path]);
    restore(&wrong).fails(1, "no age identity");
    restore(&keys).exits(0);
    for bytes in [b"".to_vec(), b"age-encryption.org/v1\n".to_vec(), std::fs::read(&file).unwrap()[..300].to_vec()] {
        let torn = other.write("torn", &bytes);
        other
            .run(&["restore", "--replace", "--identity", keys.to_str().unwrap(), torn.to_str().unwrap()])
            .fails(1, "does not open");
    }
    let other = other.start();
    assert_eq!(other.token(), world.token());
}

#[test]
fn the_key_comes_from_the_best_source_and_moves_when_it_is_told_to() {
    let mut world = World::new(User::Ordinary).start();
    let key = |world: &World| world.status()["state"]["key"].clone();
    assert_eq!(key(&world)["source"], "machine");
    let token = world.token();
    world.stop(Signal::SIGTERM);

    // A credential of systemd appears: the state opens as before, and says that there is something better.
    let credentials = world.make_dir("credentials");
    let credential = world.write("credentials/vambrace.key", &new_key());
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o400)).unwrap();
    let mut world = world.variable("CREDENTIALS_DIRECTORY", &credentials);
    world.start_again();
    assert_eq!((&key(&world)["source"], &key(&world)["best"]), (&json!("machine"), &json!("systemd-credential")));
    assert!(world.run(&["status"]).exits(0).contains("rotate-key"));
    world.run(&["secrets", "rotate-key"]).exits(0);
    assert_eq!(key(&world)["source"], "systemd-credential");
    assert!(!world.state().join("salt").exists());
    assert_eq!((world.token(), world.events("key.rotated").len()), (token.clone(), 1));
    world.stop(Signal::SIGTERM);

    // Without it there is no other way in.
    let right = std::fs::read(&credential).unwrap();
    std::fs::remove_file(&credential).unwrap();
    world.run(&["gateway", "--port", "0"]).fails(1, "holds no vambrace.key");
    for (bytes, words) in
        [(vec![b'A'; 32], "repeat"), (right[..31].to_vec(), "32 random bytes"), (new_key(), "another key")]
    {
        world.write("credentials/vambrace.key", &bytes);
        private(&credential);
        world.run(&["gateway", "--port", "0"]).fails(1, words);
    }
    world.write("credentials/vambrace.key", &right);
    world.start_again();
    assert_eq!(world.token(), token);
}

#[test]
fn a_rotation_is_for_the_gateways_own_host() {
    let world = with_key_file(User::Ordinary).start();
    let mut ws = world.connect();
    for (method, params) in [("secrets.key.rotate", json!({})), ("state.backup", json!({"recipient": "age1x"}))] {
        assert_eq!(ws.call(method, params)["ok"], false, "{method} over TCP");
    }
}
