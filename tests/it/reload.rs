//! A configuration that is read again under load: nobody is sent away, each request is answered once, each stream is whole.

use crate::service::reloaded;
use crate::world::{Ran, User, World, Ws, eventually};
use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const GOOD: [&str; 2] =
    ["[profiles.quick]\nlimits = { timeout = \"9s\" }\n", "[profiles.quick]\nlimits = { timeout = \"8s\" }\n"];
const BAD: &str = "[gateway]\nprot = 5\n";
const STREAMING: &str = "[defaults.sandbox.limits]\noutput = \"1G\"\n";

/// Asks in batches until told to stop, all of one batch in flight at once; how many answers there were, one for each.
fn ask(mut ws: Ws, stop: &AtomicBool, batches: &AtomicUsize) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut waiting: HashMap<String, bool> = (0..20)
            .map(|n| match n % 10 {
                0 => (ws.ask("exec.run", json!({"command": ["echo", "here"], "profile": "quick"})), true),
                _ => (ws.ask("health", json!({})), false),
            })
            .collect();
        while !waiting.is_empty() {
            let frame = ws.read();
            if frame["type"] == "res" {
                // Unknown: answered twice, or never asked.
                let is_run = waiting.remove(frame["id"].as_str().unwrap()).unwrap_or_else(|| panic!("{frame}"));
                assert_eq!(frame["ok"], true, "{frame}");
                assert!(!is_run || frame["payload"]["exitCode"] == 0, "{frame}");
                answers += 1;
            }
        }
        batches.fetch_add(1, Ordering::Relaxed);
    }
    answers
}

/// A command that writes a piece for each line it reads, and reads lines until it is told to stop; gives the digests of what
/// came and of what should have, and how many pieces there were.
fn stream(mut ws: Ws, stop: &AtomicBool, pieces: &AtomicUsize) -> ([u8; 32], [u8; 32], usize) {
    let line = "while read from; do seq $from $((from + 20000)); done";
    let id = ws.ask("exec.run", json!({"command": ["sh", "-c", line], "stdin": true}));
    let run = ws.event("exec.started")["runId"].clone();
    let (mut came, mut wanted, mut count) = (Sha256::new(), Sha256::new(), 0);
    let input = |ws: &mut Ws, text: &str, eof: bool| {
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        ws.ask("exec.input", json!({"runId": run, "data": data, "eof": eof}))
    };
    let mut take = |frame: &Value| {
        let data = frame["payload"]["data"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        came.update(&bytes);
        bytes.len()
    };
    while !stop.load(Ordering::Relaxed) {
        let from = 1_000_000 + count;
        let piece = (from..=from + 20_000).map(|n| format!("{n}\n")).collect::<String>();
        wanted.update(&piece);
        count += 1;
        let asked = input(&mut ws, &format!("{from}\n"), false);
        let (mut left, mut answered) = (piece.len(), 0);
        while left > 0 || answered == 0 {
            let frame = ws.read();
            if frame["event"] == "exec.output" {
                left = left.checked_sub(take(&frame)).expect("more came than was written");
            } else if frame["type"] == "res" {
                assert!(frame["id"] == asked && frame["ok"] == true, "{frame}");
                answered += 1;
            }
        }
        assert_eq!(answered, 1);
        pieces.fetch_add(1, Ordering::Relaxed);
    }
    input(&mut ws, "", true);
    loop {
        let frame = ws.read();
        assert_ne!(frame["event"], "exec.output", "more came than was written");
        if frame["id"] == id {
            assert_eq!(frame["payload"]["exitCode"], 0, "{frame}");
            break;
        }
    }
    (came.finalize().into(), wanted.finalize().into(), count)
}

#[test]
fn nothing_is_lost_or_answered_twice_while_good_and_bad_configurations_are_read_again_and_again() {
    let config = |text: &str| format!("{STREAMING}{text}");
    let world = World::new(User::Ordinary).config(&config(GOOD[0])).managed().start();
    let (stop, batches, pieces) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (mut taken, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| world.connect()).collect();
        let asking: Vec<_> = asking.into_iter().map(|ws| scope.spawn(|| ask(ws, &stop, &batches))).collect();
        let streaming: Vec<_> = (0..2).map(|_| world.connect()).collect();
        let streaming: Vec<_> = streaming.into_iter().map(|ws| scope.spawn(|| stream(ws, &stop, &pieces))).collect();
        for round in 0..60 {
            let text = if round % 3 == 2 { BAD } else { GOOD[round % 3] };
            world.write("vambrace.toml", config(text).as_bytes());
            match reloaded(&world) {
                said if said.contains("not taken") => refused += 1,
                said if said.contains(';') => panic!("{said}"),
                _ => taken += 1,
            }
        }
        // Each of them was under way while that was done, and has gone on since.
        let so_far = (batches.load(Ordering::Relaxed), pieces.load(Ordering::Relaxed));
        eventually("they go on", || {
            batches.load(Ordering::Relaxed) > so_far.0 && pieces.load(Ordering::Relaxed) > so_far.1
        });
        stop.store(true, Ordering::Relaxed);
        for thread in asking {
            assert!(thread.join().unwrap() >= 20);
        }
        for thread in streaming {
            let (came, wanted, count) = thread.join().unwrap();
            assert!(came == wanted && count >= 1, "what came of {count} pieces is not what was written");
        }
    });
    assert_eq!((taken, refused), (40, 20));
    assert_eq!(world.events("config.refused").len(), 20);
}

/// `config reload`, asked of the gateway.
fn reload(world: &World) -> Ran {
    world.run(&["config", "reload"])
}

#[test]
fn whoever_asks_for_a_reload_is_told_what_came_of_it_in_the_gateways_words() {
    let world = World::new(User::Ordinary).config("[gateway]\nhosts = []\n").start();
    assert_eq!(reload(&world).exits(0), "the configuration was read again\n");

    // Wrong by itself; refused by the gateway that runs; taken, but for what waits; gone.
    world.write("vambrace.toml", BAD.as_bytes());
    reload(&world).fails(1, "the new configuration was not taken: ");
    reload(&world).fails(1, "vambrace.toml:2:1: unknown field `prot`");
    world.write("vambrace.toml", b"[gateway.auth]\nmode = \"none\"\n");
    world.run(&["config", "check"]).exits(0);
    reload(&world).fails(1, "gateway.auth.mode needs a restart; nothing was changed");
    world.write("vambrace.toml", b"[gateway]\nbind = \"::1\"\n");
    assert!(reload(&world).exits(0).ends_with("needs a restart: gateway.bind\n"));
    std::fs::remove_file(world.dir.join("vambrace.toml")).unwrap();
    reload(&world).fails(1, "not taken");
    assert_eq!(world.events("config.refused").len(), 4);
}

#[test]
fn whoever_asks_for_rules_that_end_the_own_connection_has_the_answer_first() {
    let world = World::new(User::Ordinary).config("[gateway.auth]\nlocal_trust = \"same-user\"\n").start();
    let mut other = world.connect();

    world.write("vambrace.toml", b"[gateway.auth]\nlocal_trust = \"off\"\n");
    reload(&world).exits(0);

    assert_eq!(other.closed().1.code, 4001);
}

#[test]
fn a_reload_is_for_the_gateways_own_host_alone() {
    let world = World::new(User::Ordinary).config("# nothing\n").start();
    let answer = world.connect().call("config.reload", json!({}));
    assert_eq!(answer["error"]["details"]["code"], "LOCAL_SOCKET_REQUIRED", "{answer}");
    assert!(world.events("config.reloaded").is_empty());
}
