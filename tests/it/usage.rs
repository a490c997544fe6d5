//! What goes wrong at the command line: each error says what happened and what to do, with the code that README.md promises.

use crate::neighbours::tool;
use crate::world::*;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// Each with its code: what fails says so, with a hint, and prints nothing else.
#[track_caller]
fn fail(world: &World, rows: &[(i32, &[&str])]) {
    for (code, words) in rows {
        let ran = world.run(words);
        let is_told = ran.stderr.contains("error: ") && ran.stderr.contains("\nhint: ") && ran.stdout.is_empty();
        assert!(is_told && ran.code == *code && !ran.stderr.contains('\u{1b}'), "{words:?}: {ran:?}");
    }
}

/// `vambrace` with this state folder.
fn at(world: &World, state: &OsStr, words: &[&str]) -> Ran {
    let mut command = world.bare_command(program().to_str().unwrap());
    finish(command.arg("--state-dir").arg(state).args(words).stdin(Stdio::null()))
}

#[test]
fn words_that_are_no_command_are_told_with_the_code_of_what_was_to_run() {
    let world = World::new(User::Ordinary);
    let long = "a".repeat(100_000);
    fail(
        &world,
        &[
            (2, &[]),
            (2, &["stauts"]),
            (2, &["--bogus"]),
            (2, &["--\u{1b}[2J"]),
            (2, &[&long]),
            (2, &["--config"]),
            (2, &["gateway", "--port", "65536"]),
            (2, &["sandbox"]),
            (2, &["sandbox", "prune", "--idle", "soon"]),
            (2, &["sandbox", "explain", "--agent", "a b"]),
            (2, &["journal", "list", "--limit", "-1"]),
            (2, &["--fingerprint", "zz", "--url", "wss://127.0.0.1:1", "status"]),
            // A code below 124 would be taken for the command's own.
            (125, &["exec"]),
            (125, &["exec", "true"]),
            (125, &["exec", "--bogus", "--", "true"]),
            (125, &["exec", "--timeout", "soon", "--", "true"]),
            (125, &["exec", "--env", "A", "--", "true"]),
            (125, &["exec", "--tty", "--json", "--", "true"]),
            (125, &["sandbox", "run"]),
            (125, &["sandbox", "run", "--net", "all", "--", "true"]),
            (125, &["sandbox", "run", "--timeout", "soon", "--", "true"]),
        ],
    );
    let said = world.run(&["status", "--jsn"]).stderr;
    assert!(
        said.contains("error: unexpected argument '--jsn' found\nhint: a similar argument exists: '--json'"),
        "{said}"
    );
    assert!(world.run(&["exec", "--help"]).exits(0).contains("Usage: vambrace exec"));
}

#[test]
fn files_and_folders_that_cannot_be_used_are_named_and_nothing_is_left() {
    let world = World::new(User::Ordinary);
    let path = |name: &str, bytes: &[u8]| world.write(name, bytes).to_str().unwrap().to_owned();
    let (binary, open, wrong) =
        (path("binary", &[0xff; 9]), path("open", b"[gateway\n"), path("wrong", b"[docker]\nhost = 1\n"));
    let folder = world.make_dir("empty").to_str().unwrap().to_owned();
    let nested = format!("{binary}/state");
    fail(
        &world,
        &[
            (1, &["--config", &folder, "config", "check"]),
            (1, &["--config", "/dev/zero", "config", "check"]),
            (1, &["--config", &binary, "config", "check"]),
            (1, &["--config", &open, "config", "check"]),
            (1, &["--config", &wrong, "config", "check"]),
            (125, &["--config", &wrong, "sandbox", "run", "--", "true"]),
            (1, &["--config", &wrong, "sandbox", "probe"]),
            (1, &["sandbox", "probe", "--profile", "none-such"]),
            (126, &["sandbox", "run", "--ro", "/nonexistent/x", "--", "true"]),
            (1, &["man", "--dir", &nested]),
            (1, &["journal", "list", "--dir", &nested]),
            (1, &["restore", &nested, "--identity", &nested]),
            (1, &["restore", &binary, "--identity", &nested]),
            (1, &["secrets", "import", &nested]),
        ],
    );
    at(&world, OsStr::new(&nested), &["gateway", "--port", "0"]).fails(1, "cannot be used");
    // Of a folder without a journal it is not said that its chain holds.
    for words in [&["journal", "verify", "--dir", &folder][..], &["journal", "list", "--dir", &folder]] {
        world.run(words).fails(1, "holds no journal");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert!(!world.state().exists());
}

/// `--state-dir /` by root would have shut everybody out of the host.
#[test]
fn a_folder_of_the_host_that_is_named_as_the_state_is_left_as_it_is() {
    let world = World::new(User::Ordinary);
    let host = world.make_dir("host");
    world.make_dir("host/usr");
    for folder in [&host, &host.join("usr")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for words in [&["gateway", "--port", "0"][..], &["secrets", "rotate-key"], &["backup", "--recipient", KEY, "-"]] {
        at(&world, host.as_os_str(), words).fails(1, "it is open to others, and so is usr in it");
    }
    assert_eq!(fs::metadata(&host).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(&host).unwrap().count(), 1);

    // One that is empty, or holds what is ours alone, becomes ours alone.
    let mut world = World::new(User::Ordinary).start();
    world.stop(nix::sys::signal::Signal::SIGTERM);
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o755)).unwrap();
    world.start_again();
    assert_eq!(fs::metadata(world.state()).unwrap().permissions().mode() & 0o777, 0o700);
}

const KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

#[test]
fn a_path_that_is_no_text_is_an_error_wherever_it_stands() {
    let world = World::new(User::Ordinary);
    let odd = OsStr::from_bytes(b"/tmp/\xff");
    for (code, words) in
        [(1, &["config", "show", "--json"][..]), (1, &["gateway", "--port", "0"]), (125, &["exec", "--", "true"])]
    {
        at(&world, odd, words).fails(code, "is not UTF-8");
    }
    finish(world.command(&["config", "check", "--json", "--config"]).arg(odd)).fails(1, "is not UTF-8");
    finish(world.command(&["sandbox", "run", "--ro"]).arg(odd).args(["--", "true"])).fails(126, "error: ");
    finish(world.command(&["exec", "--"]).arg(odd)).fails(125, "UTF-8");
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_no_panic() {
    let world = World::running(User::Ordinary);
    world.run_with_input(&["sandbox", "write", "file"], b"a file\n").exits(0);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (code, words) in [
        (1, &["status"][..]),
        (1, &["status", "--json"]),
        (1, &["journal", "list", "--json"]),
        (1, &["token", "show"]),
        (1, &["config", "schema"]),
        (1, &["completions", "bash"]),
        (1, &["completions", "zsh"]),
        (1, &["man", "exec"]),
        (1, &["--help"]),
        (1, &["sandbox", "read", "file"]),
        (125, &["exec", "--", "echo", "told"]),
        (125, &["exec", "--json", "--", "true"]),
    ] {
        let child = world.command(words).stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains("error: standard output cannot be written to: ") && said.contains("hint: "), "{said}");
    }
    // Where nothing can be said, the code still is.
    for (code, words) in [
        (2, &["--bogus"][..]),
        (1, &["config", "check", "--config", "/nonexistent"]),
        (124, &["exec", "--timeout", "200ms", "--", "sleep", "1000"]),
        (124, &["sandbox", "run", "--timeout", "200ms", "--", "sleep", "1000"]),
        (0, &["sandbox", "run", "--json", "--", "true"]),
    ] {
        let status = world.command(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}

/// script(1) makes the terminal.
#[test]
fn the_log_is_coloured_on_a_terminal_where_colours_are_wanted() {
    let world = World::new(User::Root);
    let said = |wish: &str| {
        let line = "\"$V\" gateway --port 0 & until \"$V\" health >/dev/null 2>&1; do :; done; kill $!; wait $!";
        let mut script = tool("script", "bsdutils");
        script.args(["--quiet", "--return", "--command", line, "/dev/null"]).stdin(Stdio::null());
        script
            .env("NO_COLOR", wish)
            .env("V", program())
            .env("SHELL", "/bin/sh")
            .env("VAMBRACE_STATE_DIR", world.state());
        let said = finish(&mut script).exits(0);
        assert!(said.contains("listening"), "{said}");
        said.contains('\u{1b}')
    };
    assert!(said("") && !said("1"));
}
