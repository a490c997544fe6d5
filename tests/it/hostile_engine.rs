//! Engines that are not what they should be: written here, at a socket of their own. What they say has an end, in bytes
//! and in time, and whoever waits is told.

use crate::engine::{Dock, ask, before_the_engine, image};
use crate::world::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

/// What a hostile engine does with a request: its status and how its answer goes on, for ever.
enum Answer {
    Json(u32, Value),
    /// These bytes and no more.
    Raw(&'static [u8]),
    /// Nothing, for as long as it is waited for.
    Never,
    /// This, and then the same again and again.
    Endless(&'static [u8], &'static [u8]),
}

/// An engine whose answers these are; a thread for each connection, until the test ends.
fn engine(socket: &Path, answers: fn(&str) -> Answer) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || drop(serve(client, answers)));
        }
    });
}

fn serve(mut client: UnixStream, answers: fn(&str) -> Answer) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    // What comes behind the head is read, as an engine would, and thrown away.
    let mut rest = client.try_clone()?;
    std::thread::spawn(move || std::io::copy(&mut rest, &mut std::io::sink()));
    let head = String::from_utf8_lossy(&head).into_owned();
    match answers(head.lines().next().unwrap_or_default()) {
        Answer::Json(status, body) => {
            let body = body.to_string();
            write!(client, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        }
        Answer::Raw(bytes) => {
            client.write_all(bytes)?;
            client.shutdown(std::net::Shutdown::Both)
        }
        Answer::Never => Ok(()),
        Answer::Endless(begins, goes_on) => {
            client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            client.write_all(begins)?;
            let piece = goes_on.repeat((64 << 10) / goes_on.len());
            loop {
                client.write_all(&piece)?;
            }
        }
    }
}

fn version() -> Answer {
    Answer::Json(
        200,
        json!({"ApiVersion": "1.41", "Version": "20.10", "Components": [{"Name": "Engine", "Version": "20.10"}]}),
    )
}

/// A world whose engine is that one.
fn with(answers: fn(&str) -> Answer) -> World {
    let world = World::new(User::Root);
    let socket = world.make_dir("engine").join("engine.sock");
    engine(&socket, answers);
    let host = format!("[docker]\nhost = \"unix://{}\"\n", socket.display());
    world.config(&format!("{host}[defaults.sandbox]\nbackend = \"docker\"\nimage = \"x:1\"\n")).start()
}

/// More than anything of these answers may take, and less than they are long.
const MOST: u64 = 256 << 20;

#[test]
fn an_answer_without_an_end_is_given_up_and_takes_no_memory() {
    let endless_text: fn(&str) -> Answer = |line| match line {
        _ if line.contains("/version") => version(),
        _ if line.contains("/info") => Answer::Json(200, json!({})),
        _ if line.contains("/images/x:1") => Answer::Endless(b"{\"Id\":\"", b"x"),
        _ => Answer::Json(200, json!([])),
    };
    // Of a few bytes each a list becomes many times as long in memory.
    let endless_list: fn(&str) -> Answer = |line| match line {
        _ if line.contains("/version") => version(),
        _ if line.contains("/info") => Answer::Json(200, json!({})),
        _ if line.contains("/containers/json") => Answer::Endless(b"[{}", b",{}"),
        _ => Answer::Json(500, json!({"message": "not now"})),
    };
    let endless_build: fn(&str) -> Answer = |line| match line {
        _ if line.contains("/version") => version(),
        _ if line.contains("/info") => Answer::Json(200, json!({})),
        _ if line.contains("/build") => Answer::Endless(b"", b"{\"stream\":\"x\"}\r\n"),
        _ if line.contains("/images/x:1") => Answer::Json(200, json!({"Id": format!("sha256:{}", "a".repeat(64))})),
        _ if line.contains("/images/") => Answer::Json(404, json!({"message": "no such image"})),
        _ => Answer::Json(200, json!([])),
    };
    for (answers, says) in [
        (endless_text, "longer than 1 MiB"),
        (endless_build, "longer than an answer may be"),
        (endless_list, "not now"),
    ] {
        let world = with(answers);
        let runner = world.status()["dockerRunner"]["pid"].as_i64().unwrap() as i32;
        let before = resident(runner);
        for _ in 0..2 {
            let ran = world.exec(&["true"]);
            assert!(ran.stderr.contains("hint: "), "{ran:?}");
            ran.fails(125, says);
        }
        world.run(&["sandbox", "prune", "--all"]).exits(0);
        // What it puts into an image is this program, packed and sent.
        let own = 3 * std::fs::metadata(program()).unwrap().len();
        assert!(resident(runner) < before + own + MOST, "{says}: {} MiB", resident(runner) >> 20);
    }
}

#[test]
fn an_engine_that_answers_with_anything_else_is_told_as_such_with_a_hint() {
    let nothing: [fn(&str) -> Answer; 8] = [
        |_| Answer::Raw(b""),
        |_| Answer::Raw(b"hello\n"),
        |_| Answer::Raw(b"\x15\x03\x01\x00\x02\x02\x46"),
        |_| Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"ApiVersion\""),
        |_| Answer::Raw(b"HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"),
        |_| Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}"),
        |_| Answer::Json(200, json!("<html>")),
        |_| Answer::Json(200, json!({"ApiVersion": "1.41\u{1b}[2J", "Version": ["20.10"]})),
    ];
    for (number, answers) in nothing.into_iter().enumerate() {
        let world = with(answers);
        let ran = world.exec(&["true"]);
        assert!(!ran.stderr.contains('\u{1b}'), "{number}: {ran:?}");
        ran.fails(125, "there is no container engine at");
    }
    let old: fn(&str) -> Answer = |_| Answer::Json(200, json!({"ApiVersion": "1.40", "Version": "19.03"}));
    with(old).exec(&["true"]).fails(125, "speaks API 1.40, and 1.41 is the least");

    let stuck: fn(&str) -> Answer = |line| if line.contains("/version") { version() } else { Answer::Never };
    with(stuck).run(&["exec", "--timeout", "1s", "--", "true"]).fails(125, "had no container ready");

    // One that says what it is, and then anything.
    let later: [fn(&str) -> Answer; 4] = [
        |line| if line.contains("/version") { version() } else { Answer::Raw(b"HTTP/1.1 200 OK\r\n\r\nhello") },
        |line| if line.contains("/version") { version() } else { Answer::Json(200, json!({"Id": 5})) },
        |line| if line.contains("/version") { version() } else { Answer::Json(200, json!([])) },
        |line| {
            if line.contains("/version") { version() } else { Answer::Json(500, json!({"message": "x\u{1b}[2J\n"})) }
        },
    ];
    for (number, answers) in later.into_iter().enumerate() {
        let world = with(answers);
        let runner = world.status()["dockerRunner"]["pid"].clone();
        for _ in 0..2 {
            let ran = world.exec(&["true"]);
            assert!(
                ran.code == 125 && ran.stderr.contains("hint: ") && !ran.stderr.contains('\u{1b}'),
                "{number}: {ran:?}"
            );
        }
        world.run(&["sandbox", "list"]).exits(0);
        assert_eq!(world.status()["dockerRunner"]["pid"], runner, "{number}");
    }
}

/// The engine behind a socket, where the answer to an entered container is these bytes for ever.
fn lying_inside(socket: &Path, says: &'static [u8]) {
    before_the_engine(socket, move |mut client, mut engine| {
        let (mut back, mut to) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut client, &mut engine));
        std::thread::spawn(move || {
            let mut bytes = [0; 16 << 10];
            while let Ok(mut read @ 1..) = back.read(&mut bytes) {
                if bytes.starts_with(b"HTTP/1.1 101") {
                    // A head may come in pieces.
                    let end = loop {
                        match memchr::memmem::find(&bytes[..read], b"\r\n\r\n") {
                            Some(at) => break at + 4,
                            None => read += back.read(&mut bytes[read..]).unwrap(),
                        }
                    };
                    let _ = to.write_all(&bytes[..end]);
                    while to.write_all(says).is_ok() {}
                    return;
                }
                if to.write_all(&bytes[..read]).is_err() {
                    return;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    });
}

#[test]
fn what_an_engine_makes_up_in_place_of_a_container_ends_the_run_and_the_container() {
    // No frame; a frame of no stream; a report of a length that none has; error output alone.
    for says in [
        &b"hello"[..],
        b"\x03\0\0\0\0\0\0\x01x",
        b"\x01\0\0\0\0\0\0\x08\xff\xff\xff\xff\0\0\0\0",
        b"\x01\0\0\0\0\0\0\x05\x05\0\0\0{",
    ] {
        let world = World::new(User::Root);
        let socket = world.make_dir("engine").join("engine.sock");
        lying_inside(&socket, says);
        let config = format!("[docker]\nhost = \"unix://{}\"\n", socket.display());
        let sandbox = format!("[defaults.sandbox]\nbackend = \"docker\"\nimage = \"{}\"\nscope = \"agent\"\n", image());
        let dock = Dock { world: world.config(&(config + &sandbox)).start(), way: None };
        let ran = dock.world.exec(&["true"]);
        assert!(ran.stderr.contains("hint: "), "{ran:?}");
        ran.fails(125, "the runner inside the container cannot begin");
        eventually("its container is gone", || dock.containers().is_empty());
    }
}

#[test]
fn an_image_that_is_packed_without_an_end_takes_no_memory() {
    // A name of a terabyte, as archives may have them.
    static LONG: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let answers: fn(&str) -> Answer = |line| match line {
        _ if line.contains("/version") => version(),
        _ if line.contains("/info") => Answer::Json(200, json!({})),
        _ if line.contains("/export") => Answer::Endless(
            LONG.get_or_init(|| {
                let mut header = [0_u8; 512];
                header[..13].copy_from_slice(b"././@LongLink");
                header[100..107].copy_from_slice(b"0000644");
                header[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
                header[156] = b'L';
                header[257..265].copy_from_slice(b"ustar  \0");
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                header.to_vec()
            }),
            b"x",
        ),
        _ if line.contains("/images/") => Answer::Json(200, json!({"Id": format!("sha256:{}", "a".repeat(64))})),
        _ if line.contains("/create") => Answer::Json(201, json!({"Id": "b".repeat(64), "Warnings": []})),
        _ if line.starts_with("DELETE") => Answer::Json(204, json!("")),
        _ => Answer::Json(200, json!([])),
    };
    let world = with(answers);
    world.run(&["sandbox", "check-image", "x:1"]).fails(1, "longer than any file's");
}

#[test]
fn containers_that_are_too_many_for_one_answer_are_removed_all_the_same() {
    const MANY: usize = 450;
    static GONE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let answers: fn(&str) -> Answer = |line| {
        let after = |word: &str, length: usize| {
            let at = line.find(word)? + word.len();
            line.get(at..at + length).map(ToOwned::to_owned)
        };
        match line {
            _ if line.contains("/version") => version(),
            _ if line.starts_with("DELETE") => {
                GONE.lock().unwrap().insert(after("/containers/", 64).unwrap());
                Answer::Json(204, json!(""))
            }
            _ if line.contains("/containers/json") && line.contains("io.vambrace.gateway") => {
                let last = after("before%22%3A%5B%22", 64).map_or(MANY, |id| usize::from_str_radix(&id, 16).unwrap());
                let limit = line.split("limit=").nth(1).and_then(|text| text.split(['&', ' ']).next()?.parse().ok());
                let one = |number: usize| {
                    let labels = json!({"io.vambrace.sandbox": format!("once.{number}"), "long": "x".repeat(8000)});
                    json!({"Id": format!("{number:064x}"), "Labels": labels})
                };
                let gone = GONE.lock().unwrap();
                let there = (0..last).rev().filter(|number| !gone.contains(&format!("{number:064x}")));
                Answer::Json(200, there.take(limit.unwrap_or(usize::MAX)).map(one).collect())
            }
            _ => Answer::Json(200, json!([])),
        }
    };
    let _world = with(answers);
    eventually("all are removed", || GONE.lock().unwrap().len() == MANY);
}

/// The engine behind a socket that stops at a word of a request: what comes from there on is held.
fn held_at(socket: &Path, word: &'static [u8]) {
    before_the_engine(socket, move |mut client, mut engine| {
        let (mut back, mut to) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut to));
        std::thread::spawn(move || {
            let mut bytes = [0; 16 << 10];
            while let Ok(read @ 1..) = client.read(&mut bytes) {
                if memchr::memmem::find(&bytes[..read], word).is_some() || engine.write_all(&bytes[..read]).is_err() {
                    // Held, and open until the client goes.
                    let _ = std::io::copy(&mut client, &mut std::io::sink());
                    return;
                }
            }
        });
    });
}

/// Containers that somebody has made to look into this image.
fn looked_into(image: &str) -> usize {
    let filters = "%7B%22label%22%3A%5B%22io.vambrace.maker%22%5D%7D";
    let (_, found) = ask("GET", &format!("/containers/json?all=1&filters={filters}"), None);
    found.as_array().unwrap().iter().filter(|container| container["Image"] == image).count()
}

#[test]
fn a_look_into_an_image_that_is_interrupted_or_killed_leaves_no_container() {
    let name = crate::engine::import("looked-into", &[], |_| ());
    let (_, facts) = ask("GET", &format!("/images/{name}/json"), None);
    let count = || looked_into(&name) + looked_into(facts["Id"].as_str().unwrap());
    let dock = Dock::running(User::Root);
    let world = World::new(User::Root);
    let socket = world.make_dir("engine").join("engine.sock");
    held_at(&socket, b"/export");
    let world = world.config(&format!("[docker]\nhost = \"unix://{}\"\n", socket.display()));
    let look = || {
        let mut command = world.command(&["sandbox", "check-image", &name]);
        let child = Spawned(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("it looks", || count() > 0);
        child
    };

    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut child = look();
        kill(Pid::from_raw(child.0.id() as i32), signal).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(1), "{signal}");
        assert_eq!(count(), 0, "{signal}");
    }

    // The next who looks removes what a killed one has left, and nothing that another still looks into.
    let mut first = look();
    let mut other = look();
    eventually("both look", || count() == 2);
    first.stop(Signal::SIGKILL);
    assert_eq!(count(), 2);
    dock.world.run(&["sandbox", "check-image", image()]).exits(0);
    assert_eq!(count(), 1, "one is still looked into");

    // What somebody uses stays, whatever mark its image gave it.
    let mark = || -> Option<String> {
        let (_, found) = ask("GET", "/containers/json?all=1", None);
        let marks = found.as_array()?.iter().map(|container| &container["Labels"]["io.vambrace.maker"]);
        marks.filter_map(Value::as_str).find(|mark| mark.starts_with(&other.0.id().to_string())).map(ToOwned::to_owned)
    };
    let used = json!({"Image": image(), "Cmd": ["sleep", "1000"], "Labels": {"io.vambrace.maker": mark().unwrap()}});
    let (_, made) = ask("POST", "/containers/create", Some(&used));
    let used = made["Id"].as_str().unwrap();
    ask("POST", &format!("/containers/{used}/start"), None);

    // And so does a runner, when it begins.
    other.stop(Signal::SIGKILL);
    drop(dock);
    let _dock = Dock::running(User::Root);
    eventually("nothing is left", || count() == 0);
    assert_eq!(ask("GET", &format!("/containers/{used}/json"), None).1["State"]["Status"], "running");
    ask("DELETE", &format!("/containers/{used}?force=1"), None);
}
