//! The protocol from outside: handshake, frames, scopes, HTTP, what each refusal looks like.

use crate::device::*;
use crate::world::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[test]
fn the_greeting_has_the_shape_that_clients_read() {
    let world = World::running(User::Ordinary);
    let mut ws = world.socket();
    let response = ws.hello(&world.token(), json!({}));
    let hello = &response["payload"];
    assert_eq!((&hello["type"], &hello["protocol"]), (&json!("hello-ok"), &json!(4)));
    assert_eq!(hello["auth"]["role"], "operator");
    assert_eq!(hello["auth"]["scopes"], json!(["operator.admin", "operator.read", "operator.write"]));
    assert_eq!(
        hello["policy"],
        json!({"maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000})
    );
    for part in [
        "/server/version",
        "/server/connId",
        "/features/methods",
        "/features/events",
        "/snapshot/presence/0/ts",
        "/snapshot/health",
        "/snapshot/stateVersion/presence",
        "/snapshot/uptimeMs",
    ] {
        assert!(hello.pointer(part).is_some(), "{part}: {hello}");
    }
    assert_eq!(ws.call("health", json!({}))["payload"]["ok"], true);
    assert_eq!(ws.call("health", json!({"probe": true}))["ok"], true);
    assert!(ws.call("system-presence", json!({}))["payload"].as_array().unwrap().len() == 1);
    let identity = ws.call("gateway.identity.get", json!({}));
    let key = URL_SAFE_NO_PAD.decode(identity["payload"]["publicKey"].as_str().unwrap()).unwrap();
    let digest: String = Sha256::digest(&key).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(identity["payload"]["deviceId"], digest);
    assert_eq!(ws.call("status", json!({"includeChannelSummary": true}))["payload"]["runner"]["connected"], true);
}

#[test]
fn before_connect_nothing_else_is_understood() {
    let world = World::running(User::Ordinary);
    let ends = |send: &dyn Fn(&mut Ws)| {
        let mut ws = world.socket();
        ws.challenge();
        send(&mut ws);
        let (texts, closed) = ws.closed();
        (texts, closed.code, closed.reason)
    };
    // NET-01 and its kin: a method before authentication.
    for method in ["config.apply", "exec.run", "health", "token.show"] {
        let (texts, code, _) = ends(&|ws| {
            ws.ask(method, json!({}));
        });
        assert_eq!((texts[0]["ok"].clone(), code), (json!(false), 1008), "{method}");
    }
    assert_eq!(ends(&|ws| ws.send_text("{nope")).1, 1000);
    assert_eq!(ends(&|ws| ws.send_text("[1]")).1, 1008);
    assert_eq!(ends(&|ws| ws.socket.send(tungstenite::Message::binary(b"{}".to_vec())).unwrap()).1, 1003);
    let (texts, code, reason) = ends(&|ws| {
        ws.ask("connect", json!({"minProtocol": 4, "maxProtocol": 4, "surprise": 1}));
    });
    assert_eq!(code, 1008);
    assert!(reason.starts_with("invalid connect params:"), "{reason}");
    assert_eq!(texts[0]["error"]["code"], "INVALID_REQUEST");
    let twice = r#"{"type":"req","id":"1","method":"connect","method":"health","params":{}}"#;
    assert_eq!(ends(&|ws| ws.send_text(twice)).1, 1008);
}

#[test]
fn a_wrong_or_missing_token_is_turned_away_with_one_public_reason() {
    let world = World::running(User::Ordinary);
    let right = world.token();
    let refused = |auth: Value| {
        let mut ws = world.socket();
        let response = ws.hello("", json!({"auth": auth}));
        let (_, closed) = ws.closed();
        assert_eq!(closed.code, 1008);
        assert_eq!(closed.reason, response["error"]["message"].as_str().unwrap());
        response["error"]["details"]["code"].as_str().unwrap().to_owned()
    };
    for wrong in ["x", "undefined", &right[1..], &format!("{right}x"), &right.to_uppercase(), &"a".repeat(10_000)] {
        assert_eq!(refused(json!({"token": wrong})), "AUTH_TOKEN_MISMATCH");
    }
    assert_eq!(refused(json!({"password": "x"})), "AUTH_TOKEN_MISMATCH");
    assert_eq!(refused(json!({"deviceToken": right})), "AUTH_DEVICE_TOKEN_MISMATCH");
    for missing in [json!({}), json!({"token": ""}), json!({"token": "   "}), json!(null)] {
        assert_eq!(refused(missing), "AUTH_TOKEN_MISSING");
    }
    assert_eq!(refused(json!({"bootstrapToken": right})), "DEVICE_IDENTITY_REQUIRED");
    let recorded = world.events("auth.refused");
    assert_eq!(recorded.len(), 13);
    assert!(!world.log().contains(&right) && !serde_json::to_string(&world.journal()).unwrap().contains(&right));
}

#[test]
fn a_version_we_do_not_speak_is_told_which_we_do() {
    let world = World::running(User::Ordinary);
    let mut ws = world.socket();
    let response = ws.hello(&world.token(), json!({"minProtocol": 5, "maxProtocol": 9}));
    let details = &response["error"]["details"];
    assert_eq!((&details["code"], &details["expectedProtocol"]), (&json!("PROTOCOL_MISMATCH"), &json!(4)));
    assert_eq!(ws.closed().1.code, 1002);
}

#[test]
fn scopes_come_from_the_credential_and_the_kernel_not_from_the_frame() {
    let world = World::running(User::Ordinary);
    // The tests' own process is root, so only a gateway of root takes it for the operator.
    let mut ws = world.socket();
    let hello = ws
        .hello(&world.token(), json!({"client": {"id": "test", "mode": "test", "version": "1", "platform": "linux"}}));
    assert_eq!(hello["payload"]["auth"]["scopes"], json!([]));
    for (method, params) in
        [("status", json!({})), ("exec.run", json!({"command": ["true"]})), ("journal.list", json!({}))]
    {
        let response = ws.call(method, params);
        assert_eq!(response["error"]["code"], "FORBIDDEN", "{response}");
        assert_eq!(response["error"]["details"]["code"], "MISSING_SCOPE");
    }
    assert_eq!(ws.call("health", json!({}))["ok"], true);
    // Unknown methods are not told apart from forbidden ones for who is not an admin.
    assert_eq!(ws.call("no.such", json!({}))["error"]["details"]["missingScope"], "operator.admin");
    assert_eq!(world.events("request.denied").len(), 3);

    let mut asks_for_more = world.socket();
    let refused = asks_for_more.hello(&world.token(), json!({"scopes": ["operator.zzz"]}));
    assert_eq!(refused["ok"], false);
}

#[test]
fn another_users_process_gains_nothing_by_the_right_token() {
    let world = World::running(User::Root);
    let url = format!("ws://127.0.0.1:{}", world.port());
    let stranger = World::new(User::Ordinary);
    let ask =
        |from: &World, what: &str| finish(from.command(&["--url", &url, what]).env("VAMBRACE_TOKEN", world.token()));
    ask(&world, "status").exits(0);
    ask(&stranger, "status").fails(1, "missing scope: operator.read");
    // And without the token not even that; the unix socket is out of its reach altogether.
    finish(&mut stranger.command(&["--url", &url, "status"])).fails(1, "token missing");
    let state = world.state().display().to_string();
    finish(stranger.bare_command(program().to_str().unwrap()).args(["--state-dir", &state, "token", "show"]))
        .fails(1, "Permission denied");
}

#[test]
fn the_token_is_shown_on_the_unix_socket_alone_and_a_rotated_one_is_dead_at_once() {
    let mut world = World::running(User::Ordinary);
    let old = world.token();
    let mut ws = world.connect();
    let over_tcp = ws.call("token.show", json!({}));
    assert_eq!(over_tcp["error"]["details"]["code"], "LOCAL_SOCKET_REQUIRED", "{over_tcp}");

    let new = world.run(&["token", "rotate"]).exits(0).trim().to_owned();

    assert_eq!(ws.closed().1, Closed { code: 4001, reason: "gateway auth changed".into() });
    assert_ne!(new, old);
    assert_eq!(world.socket().hello(&old, json!({}))["error"]["details"]["code"], "AUTH_TOKEN_MISMATCH");
    assert_eq!(world.socket().hello(&new, json!({}))["ok"], true);
    world.stop(nix::sys::signal::Signal::SIGTERM);
    world.start_again();
    assert_eq!(world.token(), new);
    let journal = serde_json::to_string(&world.journal()).unwrap();
    assert!(journal.contains("token.rotated") && journal.contains("token.shown"));
    assert!(!journal.contains(&new) && !journal.contains(&old));
}

#[test]
fn a_signed_device_is_let_in_and_every_flaw_in_its_proof_is_named() {
    let world = World::running(User::Root);
    let token = world.token();
    let device = Device::new(9);
    let attempt = |change: &dyn Fn(&mut Value)| {
        let mut ws = world.socket();
        let nonce = ws.challenge();
        let mut over = device.params(&nonce, &token, now());
        change(&mut over);
        connect_with(&mut ws, &token, over)
    };
    let welcome = attempt(&|_| {});
    assert_eq!(welcome["payload"]["auth"]["scopes"], json!(["operator.read"]), "{welcome}");

    let code =
        |change: &dyn Fn(&mut Value)| attempt(change)["error"]["details"]["code"].as_str().unwrap_or("none").to_owned();
    assert_eq!(code(&|o| o["device"]["id"] = json!("0".repeat(64))), "DEVICE_AUTH_DEVICE_ID_MISMATCH");
    assert_eq!(code(&|o| o["device"]["signedAt"] = json!(now() - 200_000)), "DEVICE_AUTH_SIGNATURE_EXPIRED");
    assert_eq!(code(&|o| o["device"]["signedAt"] = json!(-1)), "DEVICE_AUTH_SIGNATURE_EXPIRED");
    assert_eq!(code(&|o| o["device"]["nonce"] = json!("")), "DEVICE_AUTH_NONCE_REQUIRED");
    assert_eq!(code(&|o| o["device"]["nonce"] = json!("other")), "DEVICE_AUTH_NONCE_MISMATCH");
    assert_eq!(code(&|o| o["device"]["signature"] = json!("AAAA")), "DEVICE_AUTH_SIGNATURE_INVALID");
    assert_eq!(code(&|o| o["scopes"] = json!(["operator.admin"])), "DEVICE_AUTH_SIGNATURE_INVALID");
    assert_eq!(code(&|o| o["device"]["publicKey"] = json!("AAAA")), "DEVICE_AUTH_PUBLIC_KEY_INVALID");
    // Not a number at all: the frame itself is refused.
    assert_eq!(attempt(&|o| o["device"]["signedAt"] = json!("1737"))["error"]["code"], "INVALID_REQUEST");
    assert_eq!(attempt(&|o| o["device"]["signedAt"] = json!(1e308))["error"]["code"], "INVALID_REQUEST");
}

#[test]
fn a_recorded_proof_is_worth_nothing_on_another_connection() {
    let world = World::running(User::Root);
    let token = world.token();
    let device = Device::new(9);
    let mut first = world.socket();
    let nonce = first.challenge();
    let recorded = device.params(&nonce, &token, now());
    assert_eq!(connect_with(&mut first, &token, recorded.clone())["ok"], true);
    let mut second = world.socket();
    second.challenge();
    let replayed = connect_with(&mut second, &token, recorded);
    assert_eq!(replayed["error"]["details"]["code"], "DEVICE_AUTH_NONCE_MISMATCH");
}

#[test]
fn a_node_and_a_device_of_another_user_must_be_paired_first() {
    let world = World::running(User::Ordinary);
    let token = world.token();
    let node = world.socket().hello(&token, json!({"role": "node", "scopes": []}));
    assert_eq!(node["error"]["details"]["code"], "DEVICE_IDENTITY_REQUIRED", "{node}");
    if am_root() {
        // Root's process is an operator of every gateway; nobody's is of none.
        let mut ws = world.socket();
        let nonce = ws.challenge();
        let mut over = Device::new(9).params(&nonce, &token, now());
        over["role"] = json!("node");
        over["scopes"] = json!([]);
        assert_eq!(connect_with(&mut ws, &token, over)["error"]["details"]["code"], "DEVICE_AUTH_SIGNATURE_INVALID");
    }
}

#[test]
fn a_page_a_proxy_and_a_foreign_host_name_do_not_get_a_socket() {
    let world = World::running(User::Ordinary);
    let open = |name: &str, value: &str| Ws::try_open(world.port(), &[(name, value)]).map(|_| ());
    for (name, value, kind) in [
        ("Origin", "https://evil.example", "origin_not_allowed"),
        ("Origin", "https://evil.example:443", "CONTROL_UI_ORIGIN_NOT_ALLOWED"),
        ("Origin", "null", "origin_not_allowed"),
        ("Origin", "http://127.0.0.1:18789", "origin_not_allowed"),
        ("Host", "evil.example", "host_not_allowed"),
        ("Host", "evil.example:18789", "host_not_allowed"),
        ("X-Forwarded-For", "203.0.113.9", "proxy_attribution_required"),
        ("Forwarded", "for=203.0.113.9", "proxy_attribution_required"),
        ("X-Real-IP", "127.0.0.1", "proxy_attribution_required"),
    ] {
        let (status, body) = open(name, value).unwrap_err();
        assert_eq!(status, 403, "{name}: {value}");
        assert!(body.contains(kind), "{name}: {value}: {body}");
    }
    assert!(open("Host", "localhost").is_ok());
}

#[test]
fn http_answers_its_probes_and_nothing_else_and_tells_strangers_nothing() {
    let world = World::running(User::Ordinary);
    let get = |path: &str| {
        http(world.port(), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    };
    for path in ["/health", "/healthz", "/ready", "/readyz", "/startup", "/startupz"] {
        let (code, head, body) = get(path);
        assert_eq!(code, 200, "{path}: {body}");
        for header in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "content-security-policy:",
        ] {
            assert!(head.contains(header), "{path}: {head}");
        }
        assert!(!body.contains(env!("CARGO_PKG_VERSION")) && !body.contains("main"), "{path}: {body}");
    }
    assert_eq!(serde_json::from_str::<Value>(&get("/readyz").2).unwrap()["ready"], true);
    assert_eq!(get("/").0, 404);
    assert_eq!(get("/../etc/passwd").0, 404);
    let post = "POST /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(http(world.port(), post).0, 405);
    let evil = "GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(http(world.port(), evil).0, 403);
    let no_key = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\n\r\n";
    assert_eq!(http(world.port(), no_key).0, 400);
}

#[test]
fn a_second_gateway_keeps_out_of_a_state_folder_that_is_in_use() {
    let world = World::running(User::Ordinary);
    world.run(&["gateway", "--port", "0"]).fails(1, "another gateway uses the state folder");
    world.run(&["gateway", "--port", "0", "--bind", "0.0.0.0"]).fails(1, "not a loopback address");
    assert_eq!(world.exec(&["true"]).code, 0);
}

#[test]
fn a_token_that_could_be_guessed_keeps_the_gateway_from_starting() {
    use std::os::unix::fs::PermissionsExt;
    for bad in ["", "   ", "undefined", "null", "changeme", "short"] {
        let world = World::new(User::Ordinary);
        world.make_dir("state");
        let path = world.write("state/gateway-token", bad.as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        world.run(&["gateway", "--port", "0"]).fails(1, "gateway-token");
    }
}
