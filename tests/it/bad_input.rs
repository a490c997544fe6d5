//! Hostile and broken clients: the connection or the run ends as the protocol says, the rest goes on.

use crate::world::*;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use tungstenite::Message;

#[test]
fn a_frame_too_large_before_authentication_is_cut_off_at_64_kib() {
    let world = World::running(User::Ordinary);
    let mut ws = world.socket();
    ws.challenge();
    let _ = ws.socket.send(Message::text("x".repeat(70_000)));
    assert_eq!(ws.closed().1.code, 1009);

    // In many small fragments it is no smaller.
    let mut ws = world.socket();
    ws.challenge();
    let stream = ws.socket.get_mut();
    for n in 0..100 {
        let opcode = if n == 0 { 0x01 } else { 0x00 };
        let mut frame = vec![opcode, 0x80 | 126, 0x04, 0x00, 0, 0, 0, 0];
        frame.extend([b'x'; 1024]);
        if stream.write_all(&frame).is_err() {
            break;
        }
    }
    assert_eq!(ws.closed().1.code, 1009);

    // A length of 2^40 is refused by its header alone.
    let mut ws = world.socket();
    ws.challenge();
    let mut header = vec![0x81, 0x80 | 127];
    header.extend((1u64 << 40).to_be_bytes());
    header.extend([0; 4]);
    ws.socket.get_mut().write_all(&header).unwrap();
    assert_eq!(ws.closed().1.code, 1009);
    assert_eq!(world.exec(&["true"]).code, 0);
}

#[test]
fn after_authentication_the_bound_is_25_mib_and_memory_comes_back() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    let almost = json!({"type": "req", "id": "big", "method": "no.such", "params": "x".repeat(20 << 20)}).to_string();
    ws.send_text(&almost);
    assert_eq!(ws.response("big")["error"]["message"], "unknown method: no.such");
    let _ = ws.socket.send(Message::text("x".repeat(27 << 20)));
    assert_eq!(ws.closed().1.code, 1009);
    drop(ws);
    eventually("memory comes back", || resident(world.gateway_pid()) < 64 << 20);
}

#[test]
fn frames_that_are_no_requests_are_answered_and_then_end_the_connection() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    for (text, words) in [
        (r#"{"type":"req","id":"a","method":"health","extra":1}"#, "unknown field"),
        (r#"{"type":"req","id":"a","method":"health","method":"status"}"#, "duplicate field"),
        (r#"{"type":"req","id":"a"}"#, "missing field"),
        (r#"{"type":"res","id":"a","method":"x"}"#, "at type"),
    ] {
        ws.send_text(text);
        let response = ws.response("a");
        assert_eq!(response["error"]["code"], "INVALID_REQUEST");
        let message = response["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("invalid request frame: ") && message.contains(words), "{message}");
    }
    for (params, words) in [
        (json!({"command": ["true"], "privileged": true}), "unknown field"),
        (json!({"command": "true"}), "invalid type"),
        (json!({"command": ["true"], "cwd": 5}), "invalid type"),
        (json!([]), "invalid"),
        (json!({"command": ["a\u{0}b"]}), "NUL"),
        (json!({"command": vec!["x"; 5000]}), "at most 4096 words"),
        (json!({"command": ["x".repeat(200_000)]}), "131072 bytes"),
    ] {
        let response = ws.call("exec.run", params);
        let message = response["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("invalid exec.run params: ") && message.contains(words), "{message}");
    }
    ws.send_text(
        r#"{"type":"req","id":"d","method":"exec.run","params":{"command":["true"],"env":{"CI":"1","CI":"2"}}}"#,
    );
    assert!(ws.response("d")["error"]["message"].as_str().unwrap().contains("duplicate key"));
    let deep = format!(
        r#"{{"type":"req","id":"e","method":"exec.run","params":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    ws.send_text(&deep);
    ws.send_text("{not json");
    assert_eq!(ws.call("health", json!({}))["ok"], true, "one malformed text is forgiven");
    for _ in 0..10 {
        let _ = ws.socket.send(Message::text("{not json"));
    }
    assert_eq!(ws.closed().1, Closed { code: 1008, reason: "repeated invalid frames".into() });

    let mut ws = world.connect();
    ws.socket.send(Message::binary(b"{}".to_vec())).unwrap();
    assert_eq!(ws.closed().1.code, 1003);
}

#[test]
fn requests_beyond_256_at_once_are_told_to_come_back() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    let runs: Vec<String> = (0..256).map(|_| ws.ask("exec.run", json!({"command": ["sleep", mark(86404)]}))).collect();
    let extra = ws.call("health", json!({}));
    assert_eq!(
        (&extra["error"]["code"], &extra["error"]["retryable"]),
        (&json!("UNAVAILABLE"), &json!(true)),
        "{extra}"
    );
    drop(runs);
    drop(ws);
    eventually("all of them are gone", || processes_with(mark(86404)).is_empty());
    eventually("their places are free", || world.status()["runs"] == 0);
    assert_eq!(world.exec(&["true"]).code, 0);
}

#[test]
fn ten_thousand_connections_that_never_speak_cost_little_and_keep_nobody_out() {
    let world = World::running(User::Ordinary);
    let mut friend = world.connect();
    let before = resident(world.gateway_pid());
    let mut silent = Vec::new();
    let mut peak = before;
    for n in 0..10_000 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", world.port())) {
            silent.push(stream);
        }
        // Our own descriptors are bounded as well: the oldest go when they are many.
        if silent.len() > 400 {
            silent.drain(..100);
        }
        if n % 500 == 0 {
            peak = peak.max(resident(world.gateway_pid()));
            assert_eq!(friend.call("health", json!({}))["ok"], true);
        }
    }
    assert!(peak - before < 16 << 20, "{} KiB more", (peak - before) >> 10);
    assert_eq!(world.exec(&["true"]).code, 0);
}

#[test]
fn the_thirty_third_stranger_from_one_address_gets_503_and_a_place_is_free_again_after_it() {
    let world = World::running(User::Ordinary);
    let mut strangers: Vec<Ws> = (0..32).map(|_| world.socket()).collect();
    let (status, body) = Ws::try_open(world.port(), &[]).err().unwrap();
    assert_eq!((status, body.as_str()), (503, "Too many unauthenticated sockets"));
    // One that authenticates is a stranger no more.
    let token = world.token();
    assert_eq!(strangers[0].hello(&token, json!({}))["ok"], true);
    let mut next = world.socket();
    assert_eq!(next.hello(&token, json!({}))["ok"], true);
    strangers.pop();
    eventually("a place is free", || Ws::try_open(world.port(), &[]).is_ok());
}

#[test]
fn a_stranger_that_says_nothing_is_sent_away_after_its_time() {
    let world = World::running(User::Ordinary);
    let mut ws = world.socket();
    ws.challenge();
    let mut raw = TcpStream::connect(("127.0.0.1", world.port())).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    raw.write_all(b"GET / HT").unwrap();
    assert_eq!(ws.closed().1, Closed { code: 1000, reason: String::new() });
    // The slow HTTP head ends as well, without an answer or with 408.
    let mut rest = String::new();
    let _ = raw.read_to_string(&mut rest);
    assert!(rest.is_empty() || rest.contains("408"), "{rest}");
}

#[test]
fn a_head_too_large_is_refused() {
    let world = World::running(User::Ordinary);
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let mut stream = TcpStream::connect(("127.0.0.1", world.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(head.as_bytes());
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    let (code, ..) = http(world.port(), &format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"));
    assert_eq!(code, 431);
    assert_eq!(world.exec(&["true"]).code, 0);
}

#[test]
fn a_client_that_never_reads_stops_its_own_command_and_nothing_else() {
    let world =
        World::new(User::Ordinary).config("[defaults.sandbox.limits]\noutput = \"4G\"\ntimeout = \"20s\"\n").start();
    let mut deaf = world.connect();
    let before = resident(world.gateway_pid());
    deaf.ask("exec.run", json!({"command": ["yes"]}));
    deaf.event("exec.started");
    // Meanwhile others are served, and what waits for the deaf one stays bounded.
    let mut friend = world.connect();
    for _ in 0..200 {
        let run = friend.call("exec.run", json!({"command": ["true"]}));
        assert_eq!(run["payload"]["exitCode"], 0);
    }
    let grown = resident(world.gateway_pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "{} KiB more", grown >> 10);
    assert!(resident(world.runner_pid()) < 32 << 20);
    drop(deaf);
    eventually("its command is cancelled", || world.events("exec.finished").iter().any(|e| e["ending"] == "cancelled"));
}

#[test]
fn requests_without_reading_the_answers_are_not_taken_any_more() {
    let world = World::running(User::Ordinary);
    let mut deaf = world.connect();
    let before = resident(world.gateway_pid());
    deaf.socket.get_mut().set_nonblocking(true).unwrap();
    let text = json!({"type": "req", "id": "x".repeat(200), "method": "status"}).to_string();
    let mut sent = 0u64;
    // Until the kernel takes no more: the gateway has stopped reading.
    while sent < 200_000 {
        match deaf.socket.send(Message::text(text.as_str())) {
            Ok(()) => sent += 1,
            Err(_) => break,
        }
    }
    assert!(sent < 200_000, "every request was taken");
    let grown = resident(world.gateway_pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "{} KiB more", grown >> 10);
    assert_eq!(world.connect().call("health", json!({}))["ok"], true);
}

#[test]
fn input_for_a_command_that_does_not_read_waits_and_stays_bounded() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    let id = ws.ask("exec.run", json!({"command": ["sleep", mark(86405)], "stdin": true}));
    let run = ws.event("exec.started")["runId"].clone();
    let before = resident(world.runner_pid());
    use base64::Engine;
    let chunk = base64::engine::general_purpose::STANDARD.encode(vec![b'x'; 1 << 20]);
    for _ in 0..20 {
        ws.ask("exec.input", json!({"runId": run, "data": chunk}));
    }
    assert_eq!(ws.call("health", json!({}))["ok"], true);
    assert!(resident(world.runner_pid()).saturating_sub(before) < 8 << 20);
    ws.call("exec.cancel", json!({"runId": run}));
    assert_eq!(ws.response(&id)["payload"]["ending"], "cancelled");
    let bad = ws.call("exec.input", json!({"runId": run, "data": "!"}));
    assert!(bad["error"]["message"].as_str().unwrap().contains("not base64"));
}

#[test]
fn pieces_of_input_sent_without_waiting_arrive_in_order() {
    let world = World::running(User::Ordinary);
    let mut ws = world.connect();
    use base64::Engine;
    for _ in 0..5 {
        let id = ws.ask("exec.run", json!({"command": ["cat"], "stdin": true}));
        let run = ws.event("exec.started")["runId"].clone();
        let expected: String = (0..150).map(|n| format!("{n:05}\n")).collect();
        for line in expected.split_inclusive('\n') {
            let data = base64::engine::general_purpose::STANDARD.encode(line);
            ws.ask("exec.input", json!({"runId": run, "data": data}));
        }
        ws.ask("exec.input", json!({"runId": run, "eof": true}));
        let mut output = Vec::new();
        loop {
            let frame = ws.read();
            if frame["event"] == "exec.output" {
                let data = frame["payload"]["data"].as_str().unwrap();
                output.extend(base64::engine::general_purpose::STANDARD.decode(data).unwrap());
            } else if frame["id"] == id.as_str() {
                break;
            }
        }
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }
}

#[test]
fn one_request_of_any_size_ends_nobody_elses_command() {
    let world = World::running(User::Ordinary);
    let (mut victim, mut hostile) = (world.connect(), world.connect());
    let id = victim.ask("exec.run", json!({"command": ["sleep", mark(86412)]}));
    let run = victim.event("exec.started")["runId"].clone();
    for params in [
        json!({"command": ["true"], "cwd": "a/".repeat(600_000)}),
        json!({"command": ["true", "\u{1}".repeat(130_000)]}),
        json!({"command": ["true"], "env": {"LANG": "x".repeat(130_000)}}),
    ] {
        hostile.call("exec.run", params);
    }
    assert_eq!(victim.call("exec.cancel", json!({"runId": run}))["ok"], true);
    assert_eq!(victim.response(&id)["payload"]["ending"], "cancelled");
    assert!(world.events("runner.restarted").is_empty());
}

#[test]
fn the_longest_command_leaves_a_journal_that_can_be_opened_again() {
    let mut world = World::running(User::Ordinary);
    let mut ws = world.connect();
    for _ in 0..30 {
        ws.call("exec.run", json!({"command": ["true", "\u{1}".repeat(130_000)]}));
    }
    world.stop(nix::sys::signal::Signal::SIGKILL);
    world.start_again();
    world.run(&["journal", "verify"]).exits(0);
    assert!(world.run(&["journal", "list", "--limit", "1000"]).exits(0).contains("sha256"));
}

#[test]
fn strangers_who_guess_cannot_fill_the_journal() {
    let world = World::running(User::Ordinary);
    for _ in 0..200 {
        let mut ws = world.socket();
        ws.hello("guess", json!({}));
    }
    let recorded = world.events("auth.refused").len();
    assert!((20..=60).contains(&recorded), "{recorded}");
}
