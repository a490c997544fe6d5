//! Devices and nodes from unknown to paired to revoked, over the wire and by the command line.

use crate::device::*;
use crate::world::*;
use serde_json::{Value, json};

/// A gateway to which nobody's process is local, so that every device has to ask. Root's command line is its operator.
fn strict() -> World {
    World::new(User::Root).config("[gateway.auth]\nlocal_trust = \"off\"\n").start()
}

/// Pairs a device for these scopes and gives its token.
fn pair(world: &World, device: &Device, scopes: &[&str]) -> Value {
    let shared = json!({"token": world.token()});
    let (_, refused) = device.connect(world, scopes, shared.clone());
    let request = refused["error"]["details"]["requestId"].as_str().unwrap_or_else(|| panic!("{refused}"));
    world.run(&["devices", "approve", request]).exits(0);
    let (_, hello) = device.connect(world, scopes, shared);
    device_token(&hello)
}

#[test]
fn a_device_goes_from_unknown_to_paired_to_rotated_to_revoked() {
    let world = strict();
    let (device, shared) = (Device::new(1), json!({"token": world.token()}));

    // Unknown: told how it is approved, and by which id.
    let (mut ws, refused) = device.connect(&world, &["operator.read"], shared.clone());
    let details = &refused["error"]["details"];
    assert_eq!((code(&refused), refused["error"]["code"].as_str()), ("PAIRING_REQUIRED", Some("NOT_PAIRED")));
    assert_eq!((&details["reason"], &details["deviceId"]), (&json!("not-paired"), &json!(device.id())));
    let request = details["requestId"].as_str().unwrap().to_owned();
    let closed = ws.closed().1;
    assert_eq!(closed.code, 1008);
    assert!(closed.reason.ends_with(&format!("(requestId: {request})")), "{}", closed.reason);
    let waiting = world.json(&["devices", "list", "--json"]);
    assert_eq!(waiting["pending"][0]["requestId"], request);
    assert_eq!(waiting["pending"][0]["scopes"], json!(["operator.read"]));
    assert_eq!(waiting["paired"], json!([]));

    // Approved: it fetches a token of its own, and needs nothing else from then on.
    world.run(&["devices", "approve", &request]).exits(0);
    let (_, hello) = device.connect(&world, &["operator.read"], shared.clone());
    assert_eq!(hello["payload"]["auth"]["method"], "token");
    let first = device_token(&hello);
    let (mut open, hello) = device.connect(&world, &["operator.read"], first.clone());
    assert_eq!(hello["payload"]["auth"]["method"], "device-token");
    assert_eq!(device_token(&hello), first);
    assert_eq!(open.call("status", json!({}))["ok"], true);
    let listed = world.json(&["devices", "list", "--json"]);
    assert_eq!(listed["paired"][0]["approvedVia"], "owner");
    assert!(!listed.to_string().contains(first["deviceToken"].as_str().unwrap()));

    // Rotated: sent out, comes back with the old token once more, and the new one ends the old.
    world.run(&["devices", "rotate", &device.id()]).exits(0);
    assert_eq!(open.closed().1, Closed { code: 4001, reason: "device removed".into() });
    let (_, hello) = device.connect(&world, &["operator.read"], first.clone());
    let second = device_token(&hello);
    assert_ne!(first, second);
    assert_eq!(code(&device.connect(&world, &["operator.read"], second.clone()).1), "let in");
    assert_eq!(code(&device.connect(&world, &["operator.read"], first).1), "AUTH_DEVICE_TOKEN_MISMATCH");

    // Revoked: sent out, and neither token brings it back.
    let (mut open, _) = device.connect(&world, &["operator.read"], second.clone());
    world.run(&["devices", "revoke", &device.id()]).exits(0);
    assert_eq!(open.closed().1, Closed { code: 4001, reason: "device removed".into() });
    assert_eq!(code(&device.connect(&world, &["operator.read"], second).1), "AUTH_DEVICE_TOKEN_MISMATCH");
    assert_eq!(code(&device.connect(&world, &["operator.read"], shared).1), "PAIRING_REQUIRED");
    world.run(&["devices", "remove", &device.id()]).exits(0);
    assert_eq!(world.json(&["devices", "list", "--json"]), json!({"pending": [], "paired": []}));
    for event in
        ["device.requested", "device.approved", "device.token.rotated", "device.token.revoked", "device.removed"]
    {
        assert!(!world.events(event).is_empty(), "{event}");
    }
}

#[test]
fn unknown_revoked_and_wrong_device_tokens_look_alike() {
    let world = strict();
    let (paired, stranger) = (Device::new(1), Device::new(2));
    let right = pair(&world, &paired, &["operator.read"]);
    let refusal = |device: &Device, auth: Value| {
        let (_, answer) = device.connect(&world, &["operator.read"], auth);
        (answer["error"]["code"].clone(), answer["error"]["message"].clone(), answer["error"]["details"].clone())
    };
    let wrong = refusal(&paired, json!({"deviceToken": "A".repeat(43)}));
    let unknown = refusal(&stranger, right.clone());
    world.run(&["devices", "revoke", &paired.id()]).exits(0);
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, refusal(&paired, right));
}

#[test]
fn a_device_that_asks_for_more_than_it_holds_waits_for_an_operator() {
    let world = strict();
    let device = Device::new(1);
    let token = pair(&world, &device, &["operator.read"]);
    let (_, refused) = device.connect(&world, &["operator.admin"], token.clone());
    assert_eq!(code(&refused), "AUTH_SCOPE_MISMATCH");
    let (_, refused) = device.connect(&world, &["operator.admin"], json!({"token": world.token()}));
    assert_eq!((code(&refused), &refused["error"]["details"]["reason"]), ("PAIRING_REQUIRED", &json!("scope-upgrade")));
    assert_eq!(refused["error"]["details"]["approvedScopes"], json!(["operator.read"]));
    // Approved in part: it holds what it held and that part.
    let request = refused["error"]["details"]["requestId"].as_str().unwrap().to_owned();
    world.run(&["devices", "approve", &request, "--scope", "operator.zzz"]).fails(1, "no such scope");
    world.run(&["devices", "approve", &request, "--scope", "operator.pairing"]).exits(0);
    assert_eq!(code(&device.connect(&world, &["operator.pairing", "operator.read"], token.clone()).1), "let in");
    assert_eq!(code(&device.connect(&world, &["operator.admin"], token).1), "AUTH_SCOPE_MISMATCH");
}

#[test]
fn an_approver_grants_only_what_it_holds_and_a_device_manages_itself_alone() {
    let world = strict();
    let (clerk, admin, other) = (Device::new(1), Device::new(2), Device::new(3));
    let token = pair(&world, &clerk, &["operator.pairing"]);
    let admins = pair(&world, &admin, &["operator.admin"]);
    let (_, refused) = other.connect(&world, &["operator.admin"], json!({"token": world.token()}));
    let request = refused["error"]["details"]["requestId"].clone();

    let (mut ws, _) = clerk.connect(&world, &["operator.pairing"], token);
    // It sees itself, and neither the others nor what waits.
    let seen = ws.call("device.pair.list", json!({}))["payload"].clone();
    assert_eq!((seen["pending"].clone(), seen["paired"].as_array().unwrap().len()), (json!([]), 1));
    for (method, params) in [
        ("device.pair.approve", json!({"requestId": request})),
        ("device.pair.reject", json!({"requestId": request})),
        ("device.pair.remove", json!({"deviceId": admin.id()})),
        ("device.pair.rename", json!({"deviceId": admin.id(), "label": "x"})),
        ("device.token.rotate", json!({"deviceId": admin.id(), "role": "operator", "scopes": ["operator.admin"]})),
        ("device.token.revoke", json!({"deviceId": admin.id(), "role": "operator"})),
        ("device.pair.setupCode", json!({"publicUrl": "wss://x"})),
    ] {
        assert_eq!(ws.call(method, params)["ok"], false, "{method}");
    }
    assert!(!world.events("change.refused").is_empty());
    let own = ws
        .call("device.token.rotate", json!({"deviceId": clerk.id(), "role": "operator", "scopes": ["operator.admin"]}));
    assert_eq!(own["error"]["message"], "device token rotation denied", "PAI-02");
    // Its own token it may replace; the answer carries the new one and ends the connection.
    let own = ws.call("device.token.rotate", json!({"deviceId": clerk.id(), "role": "operator"}));
    assert_eq!(own["payload"]["tokenDelivery"], "in-band");
    assert_eq!(ws.closed().1.code, 4001);
    let new = json!({"deviceToken": own["payload"]["token"]});
    assert_eq!(code(&clerk.connect(&world, &["operator.pairing"], new).1), "let in");

    // Of two approvers at once one is told that there is no such request.
    let (mut one, _) = admin.connect(&world, &["operator.admin"], admins.clone());
    let (mut two, _) = admin.connect(&world, &["operator.admin"], admins);
    let (a, b) = (
        one.ask("device.pair.approve", json!({"requestId": request})),
        two.ask("device.pair.approve", json!({"requestId": request})),
    );
    let answers = [one.response(&a), two.response(&b)];
    assert_eq!(answers.iter().filter(|answer| answer["ok"] == true).count(), 1, "{answers:?}");
    let refused = answers.iter().find(|answer| answer["ok"] == false).unwrap();
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["message"]),
        (&json!("INVALID_REQUEST"), &json!("unknown requestId"))
    );
}

#[test]
fn operators_with_the_scope_are_told_of_requests_and_nobody_else() {
    let world = strict();
    let (admin, reader, clerk) = (Device::new(1), Device::new(2), Device::new(4));
    let admins = pair(&world, &admin, &["operator.admin"]);
    let readers = pair(&world, &reader, &["operator.read"]);
    // One that manages itself alone is told of itself alone.
    let clerks = pair(&world, &clerk, &["operator.pairing"]);
    let (mut watching, _) = admin.connect(&world, &["operator.admin"], admins);
    let (mut reading, _) = reader.connect(&world, &["operator.read"], readers);
    let (mut minding, _) = clerk.connect(&world, &["operator.pairing"], clerks);

    let (_, refused) = Device::new(3).connect(&world, &["operator.read"], json!({"token": world.token()}));
    let request = refused["error"]["details"]["requestId"].clone();
    world.run(&["devices", "approve", request.as_str().unwrap()]).exits(0);

    assert_eq!(watching.event("device.pair.requested")["requestId"], request);
    let resolved = watching.event("device.pair.resolved");
    assert_eq!((&resolved["requestId"], &resolved["decision"]), (&request, &json!("approved")));
    let id = reading.ask("health", json!({}));
    let next = reading.read();
    assert_eq!(next["id"], id, "a reader was told: {next}");
    let id = minding.ask("device.pair.list", json!({}));
    let told = std::iter::from_fn(|| Some(minding.read()).filter(|frame| frame["id"] != id));
    assert!(told.into_iter().all(|frame| frame["event"] == "device.pair.changed"));
}

#[test]
fn a_restart_in_the_middle_of_a_pairing_loses_nothing() {
    let mut world = strict();
    let device = Device::new(1);
    let (_, refused) = device.connect(&world, &["operator.read"], json!({"token": world.token()}));
    let request = refused["error"]["details"]["requestId"].as_str().unwrap().to_owned();
    world.stop(nix::sys::signal::Signal::SIGKILL);
    world.start_again();

    world.run(&["devices", "approve", &request]).exits(0);
    world.stop(nix::sys::signal::Signal::SIGKILL);
    world.start_again();

    let (_, hello) = device.connect(&world, &["operator.read"], json!({"token": world.token()}));
    let token = device_token(&hello);
    world.stop(nix::sys::signal::Signal::SIGTERM);
    world.start_again();
    assert_eq!(code(&device.connect(&world, &["operator.read"], token).1), "let in");
    assert!(world.json(&["devices", "list", "--json"])["paired"][0]["lastSeenAtMs"].is_number());
}

#[test]
fn a_revocation_during_a_call_ends_the_call() {
    let world = strict();
    let device = Device::new(1);
    let token = pair(&world, &device, &["operator.write"]);
    let (mut ws, _) = device.connect(&world, &["operator.write"], token);
    ws.ask("exec.run", json!({"command": ["sleep", mark(7301)]}));
    ws.event("exec.started");
    eventually("it sleeps", || processes_with(mark(7301)).len() == 1);

    world.run(&["devices", "revoke", &device.id()]).exits(0);

    assert_eq!(ws.closed().1.code, 4001);
    eventually("it ends", || processes_with(mark(7301)).is_empty());
    eventually("its end is recorded", || world.events("exec.finished").iter().any(|e| e["ending"] == "cancelled"));
}

#[test]
fn a_setup_code_pairs_one_of_two_that_try_at_once() {
    let world = strict();
    let invited = world.json(&["devices", "invite", "--public-url", "ws://127.0.0.1:1", "--json"]);
    let code_json = base64_json(invited["setupCode"].as_str().unwrap());
    assert_eq!(code_json["url"], "ws://127.0.0.1:1");
    let auth = json!({"bootstrapToken": code_json["bootstrapToken"]});

    let answers: Vec<Value> = std::thread::scope(|threads| {
        let tries: Vec<_> = [Device::new(1), Device::new(2)]
            .into_iter()
            .map(|device| {
                let (world, auth) = (&world, auth.clone());
                threads.spawn(move || device.connect(world, &["operator.admin"], auth).1)
            })
            .collect();
        tries.into_iter().map(|t| t.join().unwrap()).collect()
    });

    let mut codes: Vec<&str> = answers.iter().map(code).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["AUTH_BOOTSTRAP_TOKEN_INVALID", "let in"]);
    let hello = answers.iter().find(|answer| answer["ok"] == true).unwrap();
    assert_eq!(hello["payload"]["auth"]["scopes"], json!(["operator.read"]), "what the code grants, not what is asked");
    assert_eq!(world.json(&["devices", "list", "--json"])["paired"].as_array().unwrap().len(), 1);
    // Without a place where a device could reach us there is no code.
    world.run(&["devices", "invite"]).fails(1, "loopback");
}

fn base64_json(code: &str) -> Value {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(code).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn an_agent_runs_for_itself_and_sees_nothing_else() {
    let world = strict();
    let agent = Device::new(1);
    let (_, refused) = agent.connect(&world, &["agent.exec"], json!({"token": world.token()}));
    let request = refused["error"]["details"]["requestId"].as_str().unwrap().to_owned();
    world.run(&["devices", "approve", &request]).fails(1, "name the agent");
    world.run(&["devices", "approve", &request, "--agent", "builder"]).exits(0);
    let (mut ws, hello) = agent.connect(&world, &["agent.exec"], json!({"token": world.token()}));
    assert_eq!(hello["payload"]["auth"]["scopes"], json!(["agent.exec"]));

    assert_eq!(ws.call("exec.run", json!({"command": ["true"], "agent": "builder"}))["ok"], true);
    let other = ws.call("exec.run", json!({"command": ["true"], "agent": "main"}));
    assert_eq!(other["error"]["details"]["code"], "AGENT_MISMATCH");
    for method in ["status", "device.pair.list", "journal.list", "config.get", "node.list", "token.show"] {
        assert_eq!(ws.call(method, json!({}))["error"]["details"]["code"], "MISSING_SCOPE", "{method}");
    }
    let token = device_token(&hello);
    assert_eq!(code(&agent.connect(&world, &["operator.read"], token).1), "AUTH_SCOPE_MISMATCH");
}

#[test]
fn a_node_is_paired_first_and_its_commands_are_enabled_second() {
    let world = strict();
    let (node, shared) = (Device::new(1), json!({"token": world.token()}));
    let (_, refused) = node.connect_node(&world, &["system.run"], shared.clone());
    assert_eq!((code(&refused), &refused["error"]["details"]["requestedRole"]), ("PAIRING_REQUIRED", &json!("node")));
    let request = refused["error"]["details"]["requestId"].as_str().unwrap().to_owned();
    world.run(&["devices", "approve", &request]).exits(0);

    let (mut ws, hello) = node.connect_node(&world, &["system.run", "dir.list"], shared);
    assert_eq!(hello["payload"]["auth"]["role"], "node");
    let token = device_token(&hello);
    // Connected, and nothing of what it declares is enabled; a node's own methods are answered as unknown.
    let listed = world.json(&["node", "list", "--json"]);
    assert_eq!(listed["nodes"][0]["commands"], json!([]));
    assert_eq!(listed["nodes"][0]["approvalState"], "pending-approval");
    assert_eq!(ws.call("node.skills.update", json!({"skills": []}))["error"]["code"], "INVALID_REQUEST");
    assert_eq!(ws.call("status", json!({}))["error"]["message"], "unauthorized role: node");
    let (mut insisting, _) = node.connect_node(&world, &["system.run", "dir.list"], token.clone());
    for _ in 0..11 {
        insisting.ask("status", json!({}));
    }
    assert_eq!(insisting.closed().1, Closed { code: 1008, reason: "repeated unauthorized calls".into() });
    let pending = world.json(&["node", "pending", "--json"]);
    assert_eq!(pending[0]["requiredApproveScopes"], json!(["operator.admin", "operator.write", "operator.pairing"]));
    world.run(&["node", "approve", pending[0]["requestId"].as_str().unwrap()]).exits(0);
    let resolved = ws.event("node.pair.resolved");
    assert_eq!((&resolved["decision"], &resolved["nodeId"]), (&json!("approved"), &json!(node.id())));
    let described = world.json(&["node", "describe", &node.id(), "--json"]);
    assert_eq!((&described["commands"], &described["connected"]), (&json!(["dir.list", "system.run"]), &json!(true)));

    // It declares less: less is enabled. It declares more: that waits.
    drop(ws);
    let (ws, _) = node.connect_node(&world, &["dir.list", "fs.listDir"], token.clone());
    let described = world.json(&["node", "describe", &node.id(), "--json"]);
    assert_eq!(
        (&described["commands"], &described["approvalState"]),
        (&json!(["dir.list"]), &json!("pending-reapproval"))
    );
    world.run(&["node", "rename", &node.id()[..12], "the shed"]).exits(0);
    assert_eq!(world.json(&["node", "describe", &node.id(), "--json"])["displayName"], "the shed");

    let mut ws = ws;
    world.run(&["node", "remove", &node.id()]).exits(0);
    assert_eq!(ws.closed().1.code, 4001);
    assert_eq!(code(&node.connect_node(&world, &["dir.list"], token).1), "AUTH_DEVICE_TOKEN_MISMATCH");
    assert_eq!(world.json(&["node", "list", "--json"])["nodes"], json!([]));
}

#[test]
fn the_operators_own_device_is_paired_at_once_and_another_users_waits() {
    let world = World::running(User::Root);
    let stranger = World::new(User::Ordinary);
    let url = format!("ws://127.0.0.1:{}", world.port());
    // Without a token in the variables the command line is a device; the gateway still wants a credential first.
    world.run(&["--url", &url, "status"]).fails(1, "token missing");
    let (_, hello) = Device::new(1).connect(&world, &["operator.read"], json!({"token": world.token()}));
    assert_eq!(code(&hello), "let in");
    assert_eq!(world.json(&["devices", "list", "--json"])["paired"][0]["approvedVia"], "silent");
    let invited = world.json(&["devices", "invite", "--public-url", &url, "--scope", "operator.read", "--json"]);
    let setup = invited["setupCode"].as_str().unwrap();
    let join = |code: &str| stranger.run_with_input(&["devices", "join"], code.as_bytes());
    join(setup).exits(0);
    stranger.run(&["--url", &url, "status"]).exits(0);
    stranger.run(&["--url", &url, "exec", "--", "true"]).fails(126, "scope mismatch");
    join(setup).fails(1, "setup code invalid");
    join("nonsense").fails(2, "no setup code");
    assert_eq!(world.json(&["devices", "list", "--json"])["pending"].as_array().unwrap().len(), 1);
    // What the stranger keeps is its own, and nobody else's to read.
    let modes = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(stranger.state().join("client").join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((modes("state.sqlite"), modes("salt")), (0o600, 0o600));
}

#[test]
fn ten_wrong_guesses_lock_the_port_and_never_the_unix_socket() {
    let world = World::running(User::Ordinary);
    let right = world.token();
    let attempt = |token: &str| world.socket().hello(token, json!({}));
    for _ in 0..10 {
        assert_eq!(code(&attempt("wrong")), "AUTH_TOKEN_MISMATCH");
    }
    let locked = attempt(&right);
    assert_eq!((code(&locked), &locked["error"]["retryable"]), ("AUTH_RATE_LIMITED", &json!(true)));
    assert!(locked["error"]["retryAfterMs"].as_u64().unwrap() > 200_000);
    // The same guesser at the other door.
    let request = format!(
        "POST /rpc/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {right}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let (status, head, _) = http(world.port(), &request);
    assert_eq!(status, 429, "{head}");
    assert!(head.contains("retry-after:"), "{head}");
    world.run(&["health"]).exits(0);
    let refused = world.events("auth.refused");
    assert!(refused.iter().any(|e| e["rule"] == "AUTH_RATE_LIMITED"));
}

#[test]
fn a_password_is_set_before_it_opens_and_every_byte_of_it_counts() {
    let world = World::new(User::Ordinary).config("[gateway.auth]\nmode = \"password\"\n");
    world.run(&["gateway", "--port", "0"]).fails(1, "there is no password");
    world.run_with_input(&["password", "set"], b"short\n").fails(2, "fewer than 12");
    let long = format!("{}X", "a".repeat(72));
    world.run_with_input(&["password", "set"], format!("{long}\n").as_bytes()).exits(0);
    let world = world.start();
    let attempt = |auth: Value| world.socket().hello("", json!({"auth": auth}));

    assert_eq!(code(&attempt(json!({}))), "AUTH_PASSWORD_MISSING");
    assert_eq!(code(&attempt(json!({"password": format!("{}Y", "a".repeat(72))}))), "AUTH_PASSWORD_MISMATCH", "TOK-06");
    assert_eq!(code(&attempt(json!({"password": "a".repeat(72)}))), "AUTH_PASSWORD_MISMATCH");
    let mut ws = world.socket();
    let hello = ws.hello("", json!({"auth": {"password": long}}));
    assert_eq!(hello["payload"]["auth"]["method"], "password", "{hello}");

    world.run_with_input(&["password", "set"], b"another password\n").exits(0);
    assert_eq!(ws.closed().1, Closed { code: 4001, reason: "gateway auth changed".into() });
    assert_eq!(code(&attempt(json!({"password": long}))), "AUTH_PASSWORD_MISMATCH");
    assert_eq!(code(&attempt(json!({"token": "another password"}))), "let in");
    let told = serde_json::to_string(&world.journal()).unwrap() + &world.log();
    assert!(!told.contains("another password") && !told.contains(&long) && !told.contains("$2b$"));
}

#[test]
fn many_wrong_passwords_at_once_are_told_to_come_back_and_the_gateway_answers_on() {
    let world = World::new(User::Ordinary).config("[gateway.auth]\nmode = \"password\"\n");
    world.run_with_input(&["password", "set"], b"correct horse battery\n").exits(0);
    let world = world.start();
    let codes: Vec<String> = std::thread::scope(|threads| {
        let tries: Vec<_> = (0..24)
            .map(|n| {
                let world = &world;
                threads.spawn(move || {
                    let auth = json!({"auth": {"password": format!("wrong password {n}")}});
                    code(&world.socket().hello("", auth)).to_owned()
                })
            })
            .collect();
        tries.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let count = |wanted: &str| codes.iter().filter(|code| *code == wanted).count();
    assert_eq!(count("AUTH_PASSWORD_MISMATCH") + count("AUTH_RATE_LIMITED"), 24, "{codes:?}");
    assert!(count("AUTH_PASSWORD_MISMATCH") <= 10, "{codes:?}");
    world.run(&["health"]).exits(0);
}

#[test]
fn without_any_secret_loopback_is_open_and_scopes_are_the_operators_alone() {
    let world = World::new(User::Ordinary).config("[gateway.auth]\nmode = \"none\"\n").start();
    let url = format!("ws://127.0.0.1:{}", world.port());
    world.run(&["--url", &url, "status"]).exits(0);
    // Root's sockets may be a tunnel's: they are let in, and hold nothing.
    let mut ws = world.socket();
    ws.challenge();
    let hello = connect_with(&mut ws, "", json!({"scopes": ["operator.read"], "auth": {}}));
    assert_eq!(
        (&hello["payload"]["auth"]["method"], &hello["payload"]["auth"]["scopes"]),
        (&json!("none"), &json!([]))
    );
    World::new(User::Root)
        .config("[gateway]\nbind = \"0.0.0.0\"\n[gateway.auth]\nmode = \"none\"\n[gateway.tls]\nenabled = true\n")
        .run(&["gateway", "--port", "0"])
        .fails(1, "gateway.auth.mode");
}

#[test]
fn a_request_whose_sender_is_gone_is_nobodys() {
    // The kernel says uid 0 of a socket that was closed, whoever held it.
    let world = World::running(User::Root);
    let script = "import socket,sys\n\
        body=b'{\"command\":[\"touch\",\"/workspace/stolen\"]}'.ljust(6000)\n\
        for n in range(60):\n\
        \x20s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n\
        \x20s.send(b'POST /rpc/exec.run HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\nContent-Length: 6000\\r\\nAuthorization: Bearer '+sys.argv[2].encode()+b'\\r\\n\\r\\n'+body, socket.MSG_MORE)\n\
        \x20s.close()\n";
    let stranger = World::new(User::Ordinary);
    let port = world.port().to_string();
    finish(stranger.bare_command("python3").args(["-c", script, &port, &world.token()])).exits(0);
    world.exec(&["true"]).exits(0);
    assert!(!world.workspace().join("stolen").exists());
    assert!(world.events("exec.permitted").iter().all(|e| e["command"][0] == "true"));
}

#[test]
fn local_trust_same_user_takes_the_operators_word_from_the_kernel_and_never_roots() {
    if !am_root() {
        panic!("this test needs root: run `make test` as root");
    }
    let world = World::new(User::Ordinary).config("[gateway.auth]\nlocal_trust = \"same-user\"\n").start();
    let url = format!("ws://127.0.0.1:{}", world.port());
    world.run(&["--url", &url, "status"]).exits(0);
    // Root's socket may be a tunnel's.
    World::new(User::Root).run(&["--url", &url, "status"]).fails(1, "token missing");
}

#[test]
fn a_state_file_of_somebody_else_or_a_damaged_one_keeps_the_gateway_from_starting() {
    let mut world = strict();
    pair(&world, &Device::new(1), &["operator.read"]);
    world.stop(nix::sys::signal::Signal::SIGTERM);
    let path = world.state().join("state.sqlite");
    let whole = std::fs::read(&path).unwrap();
    for bytes in [b"not a database, not even nearly one, but long enough".to_vec(), {
        let mut bytes = whole.clone();
        let at = bytes.len() / 2;
        bytes[at..].fill(0xa5);
        bytes
    }] {
        std::fs::write(&path, bytes).unwrap();
        world.run(&["gateway", "--port", "0"]).fails(1, "state.sqlite");
    }
    std::fs::write(&path, whole).unwrap();
    world.start_again();
    assert_eq!(world.json(&["devices", "list", "--json"])["paired"].as_array().unwrap().len(), 1);
}

#[test]
fn a_revocation_by_somebody_who_does_not_wait_for_the_answer_is_whole() {
    use std::io::Write;
    let world = strict();
    for seed in 1..=6 {
        let device = Device::new(seed);
        let token = pair(&world, &device, &["operator.read"]);
        let (mut ws, _) = device.connect(&world, &["operator.read"], token);
        let body = json!({"deviceId": device.id(), "role": "operator"}).to_string();
        let mut socket = std::os::unix::net::UnixStream::connect(world.state().join("run/gateway.sock")).unwrap();
        let head = "POST /rpc/device.token.revoke HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        socket.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        // Whoever leaves before it has begun has asked for nothing. Once it is recorded it is done whole.
        let begun = |text: String| text.contains("device.token.revoked") && text.contains(&device.id());
        let lines = || std::fs::read_dir(world.state().join("journal")).unwrap().flatten().map(|e| e.path());
        eventually("it is begun", || {
            lines().any(|path| std::fs::read_to_string(path).unwrap().lines().any(|line| begun(line.to_owned())))
        });
        drop(socket);
        assert_eq!(ws.closed().1, Closed { code: 4001, reason: "device removed".into() });
    }
}

#[test]
fn what_is_denied_again_and_again_is_counted_and_does_not_fill_the_disk() {
    let world = strict();
    let agent = Device::new(1);
    let (_, refused) = agent.connect(&world, &["agent.exec"], json!({"token": world.token()}));
    let request = refused["error"]["details"]["requestId"].as_str().unwrap().to_owned();
    world.run(&["devices", "approve", &request, "--agent", "builder"]).exits(0);
    let (mut ws, _) = agent.connect(&world, &["agent.exec"], json!({"token": world.token()}));
    for _ in 0..500 {
        assert_eq!(ws.call("status", json!({}))["ok"], false);
    }
    // Sixty a minute, and a minute may end in between.
    let recorded = world.events("request.denied").len();
    assert!((60..=120).contains(&recorded), "{recorded}");
}

#[test]
fn a_setup_code_is_worth_no_more_than_its_maker() {
    let world = strict();
    let admin = Device::new(1);
    let token = pair(&world, &admin, &["operator.admin"]);
    let (mut ws, _) = admin.connect(&world, &["operator.admin"], token);
    let params = json!({"publicUrl": "ws://127.0.0.1:1", "role": "operator", "scopes": ["operator.admin"]});
    let made = ws.call("device.pair.setupCode", params);
    let auth = json!({"bootstrapToken": base64_json(made["payload"]["setupCode"].as_str().unwrap())["bootstrapToken"]});

    world.run(&["devices", "remove", &admin.id()]).exits(0);

    assert_eq!(code(&admin.connect(&world, &[], auth.clone()).1), "AUTH_BOOTSTRAP_TOKEN_INVALID");
    assert_eq!(code(&Device::new(2).connect(&world, &[], auth).1), "AUTH_BOOTSTRAP_TOKEN_INVALID");
}

#[test]
fn a_rotated_token_ends_what_was_begun_by_it_over_http() {
    let world = World::running(User::Root);
    let body = format!("{{\"command\":[\"sleep\",\"{}\"]}}", mark(7501));
    let request = format!(
        "POST /rpc/exec.run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        world.token(),
        body.len()
    );
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| http(world.port(), &request));
        eventually("it sleeps", || processes_with(&format!("sleep\0{}", mark(7501))).len() == 1);
        world.run(&["token", "rotate"]).exits(0);
        let (status, _, answer) = asking.join().unwrap();
        assert!(status == 200 && answer.contains("cancelled"), "{status} {answer}");
    });
}
