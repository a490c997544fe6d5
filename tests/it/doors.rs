//! The doors beyond the unix socket: TLS, wider binds, a real proxy, a tailnet, signed requests.

use crate::device::Device;
use crate::neighbours::{Certificate, Network, Nginx, Tailscaled, ask, curl, fingerprint, openssl};
use crate::world::{PATIENCE, Ran, User, World, Ws, eventually, finish, program, tls};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::SocketAddrV4;
use std::process::Command;

const TLS: &str = "[gateway.tls]\nenabled = true\n";

/// What `openssl s_client` says of a port.
fn s_client(port: u16, options: &[&str]) -> Ran {
    let at = format!("127.0.0.1:{port}");
    openssl(&[&["s_client", "-connect", &at, "-showcerts"], options].concat())
}

/// The fingerprint of the certificate that a new connection to this port is shown.
fn shown(world: &World) -> String {
    let said = s_client(world.port(), &[]).exits(0);
    let (from, to) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let pem = &said[said.find(from).unwrap()..said.find(to).unwrap() + to.len()];
    fingerprint(&world.write("shown.pem", pem.as_bytes()))
}

fn hang_up(world: &World) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(world.gateway_pid()), Signal::SIGHUP).unwrap();
}

/// `vambrace --url …` of root with the right token, in a state folder of its own.
fn remote(world: &World, folder: &str, url: &str, arguments: &[&str]) -> Command {
    let mut command = world.bare_command(program().to_str().unwrap());
    command.arg("--state-dir").arg(world.dir.join(folder)).args(["--url", url]).args(arguments);
    command.env("VAMBRACE_TOKEN", world.token());
    command
}

/// A gateway with the operator's own certificate, not yet started, and that certificate.
fn with_files() -> (World, Certificate) {
    let world = World::new(User::Root)
        .config("[gateway.tls]\nenabled = true\ncertificate = \"@/used.pem\"\nkey = \"@/used.key\"\n");
    let used = Certificate::new(&world, "used", None);
    (world, used)
}

#[test]
fn tls_shows_the_certificate_whose_fingerprint_status_tells_and_speaks_no_old_version() {
    let world = World::new(User::Ordinary).config(TLS).start();

    let told = world.status()["tls"]["fingerprint"].as_str().unwrap().to_owned();

    assert_eq!(shown(&world), told);
    assert_eq!(fingerprint(&world.certificate()), told);
    for version in ["-tls1_2", "-tls1_3"] {
        s_client(world.port(), &[version]).exits(0);
    }
    let old = s_client(world.port(), &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(old.code != 0 && old.stderr.contains("SSL alert"), "the gateway's own refusal: {old:?}");
}

#[test]
fn https_is_served_to_who_trusts_the_certificate_and_plain_http_to_nobody() {
    let world = World::new(User::Ordinary).config(TLS).start();
    let health = format!("https://localhost:{}/health", world.port());
    let certificate = world.certificate();

    let trusting = ask(&mut curl(), &["--cacert", certificate.to_str().unwrap(), &health]);
    let careful = ask(&mut curl(), &[&health]);
    let plain = ask(&mut curl(), &[&health.replace("https", "http")]);

    assert!(trusting.is(200).contains("\"ok\":true"));
    assert!(careful.is(0).contains("certificate"));
    plain.is(0);
    assert!(Ws::try_open(world.port(), &[]).is_err());
    assert_eq!(world.tls_socket(&certificate).hello(&world.token(), json!({}))["ok"], true);
}

#[test]
fn the_command_line_knows_a_gateway_by_its_certificate_and_remembers_it() {
    let (world, used) = with_files();
    let world = world.start();
    let url = format!("wss://127.0.0.1:{}", world.port());
    let (right, wrong) = (used.fingerprint(), format!("sha256:{}", "0".repeat(64)));
    let status = |folder: &str, more: &[&str]| finish(&mut remote(&world, folder, &url, &[more, &["status"]].concat()));

    status("nobody", &[]).fails(1, "certificate");
    status("wrong", &["--fingerprint", &wrong]).fails(1, "does not show the certificate that was expected");
    status("friend", &["--fingerprint", &right]).exits(0);
    status("friend", &[]).exits(0);

    Certificate::new(&world, "other", None).replace(&used);
    hang_up(&world);
    eventually("the other certificate is shown", || shown(&world) == used.fingerprint());

    status("friend", &[]).fails(1, "does not show the certificate that was expected");
    status("friend", &["--fingerprint", &used.fingerprint()]).fails(1, "certificate");
    status("newcomer", &["--fingerprint", &used.fingerprint()]).exits(0);
}

#[test]
fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let (world, used) = with_files();
    let world = world.start();
    let first = used.fingerprint();
    assert_eq!((shown(&world), world.status()["tls"]["fingerprint"].as_str()), (first.clone(), Some(first.as_str())));
    let mut open = world.tls_socket(&used.pem);
    assert_eq!(open.hello(&world.token(), json!({}))["ok"], true);

    Certificate::new(&world, "second", None).replace(&used);
    hang_up(&world);

    let second = used.fingerprint();
    assert_ne!(first, second);
    eventually("the second certificate is shown", || shown(&world) == second);
    assert_eq!(world.status()["tls"]["fingerprint"], second);
    assert_eq!(open.call("health", json!({}))["payload"]["ok"], true);

    // A key that does not belong to the certificate, no PEM at all, and no file.
    let breakings: [&dyn Fn(); 3] = [
        &|| std::fs::write(&used.key, std::fs::read(Certificate::new(&world, "third", None).key).unwrap()).unwrap(),
        &|| std::fs::write(&used.key, "nothing").unwrap(),
        &|| std::fs::remove_file(&used.key).unwrap(),
    ];
    for (count, breaking) in breakings.iter().enumerate() {
        breaking();
        hang_up(&world);
        let complaints = || world.log().matches("the certificate was not replaced").count();
        eventually("the gateway says that it keeps the old one", || complaints() == count + 1);
        assert_eq!(shown(&world), second);
    }
    assert_eq!(open.call("health", json!({}))["payload"]["ok"], true);
    Certificate::new(&world, "fourth", None).replace(&used);
    hang_up(&world);
    eventually("a sound certificate is taken again", || shown(&world) == used.fingerprint());
}

#[test]
fn a_wider_door_without_tls_does_not_open() {
    let world = World::new(User::Ordinary);

    for bind in ["lan", "0.0.0.0", "::", "0", "localhost.", "::ffff:0.0.0.0", "192.0.2.1", "*", "localhost"] {
        world.run(&["gateway", "--port", "0", "--bind", bind]).fails(1, "gateway.bind");
    }

    let loopback = World::new(User::Ordinary).config("[gateway]\nbind = \"127.0.0.1\"\n").start();
    assert_eq!(loopback.exec(&["true"]).code, 0);
}

#[test]
fn a_wider_door_with_tls_opens_and_asks_everybody_for_a_credential() {
    let network = Network::new(&["10.77.0.1"]);
    let config = format!("[gateway]\nbind = \"lan\"\n{TLS}");
    let world = World::new(User::Root).config(&config).within(&network.path()).start();
    let inside = |host: &str, path: &str, more: &[&str]| {
        let url = format!("https://{host}:{}{path}", world.port());
        let mut curl = network.command("curl", "curl");
        ask(curl.arg("--cacert").arg(world.certificate()).args(more), &[&url])
    };

    assert!(world.status()["addresses"][0].as_str().unwrap().starts_with("[::]:"));
    inside("127.0.0.1", "/health", &[]).is(200);
    // Its own certificate names loopback alone; by its address in that network it is known by its fingerprint.
    inside("10.77.0.1", "/health", &[]).is(0);
    inside("10.77.0.1", "/health", &["-k"]).is(200);
    let right = format!("Authorization: Bearer {}", world.token());
    let request = ["-k", "-H", "Content-Type: application/json", "-d", "{}"];
    inside("10.77.0.1", "/rpc/status", &request).is(401);
    // From beyond loopback the right token alone opens nothing, whoever's process it is.
    inside("10.77.0.1", "/rpc/status", &[&request[..], &["-H", &right]].concat()).is(401);
    inside("127.0.0.1", "/rpc/status", &[&request[..], &["-H", &right]].concat()).is(200);
}

#[test]
fn a_gateway_that_asks_for_nothing_stays_on_loopback_even_with_tls() {
    let none = "[gateway.auth]\nmode = \"none\"\n";
    for bind in ["lan", "0.0.0.0", "192.0.2.1"] {
        let world = World::new(User::Ordinary).config(&format!("[gateway]\nbind = \"{bind}\"\n{TLS}{none}"));
        world.run(&["gateway", "--port", "0"]).fails(1, "gateway.auth.mode");
    }

    let world = World::new(User::Ordinary).config(none).start();
    world.run(&["gateway", "--port", "0", "--bind", "lan"]).fails(1, "gateway.auth.mode");

    // The operator's own process gets its scopes as ever; another user's comes in and may do nothing, and so does
    // root's, which may be a tunnel's.
    let url = format!("ws://127.0.0.1:{}", world.port());
    finish(world.command(&["--url", &url, "status"]).env("VAMBRACE_TOKEN", "any")).exits(0);
    let hello = world.socket().hello("", json!({"auth": {}}));
    assert_eq!(hello["payload"]["auth"]["scopes"], json!([]));
    let root = World::new(User::Root);
    finish(root.command(&["--url", &url, "status"]).env("VAMBRACE_TOKEN", "any")).fails(1, "missing scope");
    finish(&mut root.command(&["--url", &url, "status"])).fails(1, "pairing required");
}

/// What nginx is to say of a client, which it would see if it were not on this host.
const ADDRESS: &str = "203.0.113.9";

/// Lines by which nginx passes everything on to this address, upgrades as well.
fn passing(to: &str, more: &str) -> String {
    format!(
        "proxy_pass {to}; proxy_set_header Host $http_host;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgraded;\n{more}"
    )
}

/// A proxy that asks for names and passwords and passes the name on; on `/unnamed/` it lets everybody pass without one.
fn naming_proxy(world: &World, to: &str, more: &str) -> Nginx {
    let passwords = "ada@example.org:{PLAIN}ada\neve@example.org:{PLAIN}eve\n";
    Nginx::own(&world.write("passwords", passwords.as_bytes()));
    let named = format!(
        "proxy_set_header X-Forwarded-For \"$http_x_forwarded_for, {ADDRESS}\"; \
         proxy_set_header X-Forwarded-User $remote_user; {more}"
    );
    let unnamed = format!("proxy_set_header X-Forwarded-For {ADDRESS}; proxy_set_header X-Forwarded-User \"\"; {more}");
    let separator = if to.contains("unix:") { ":" } else { "" };
    let lines = format!(
        "location / {{ auth_basic users; auth_basic_user_file @/passwords; {} }}\n\
         location /unnamed/ {{ {} }}",
        passing(to, &named),
        passing(&format!("{to}{separator}/"), &unnamed)
    );
    Nginx::start(world, None, &lines)
}

/// The code and the scopes that somebody gets who comes through this port: `None` where it is no WebSocket at all.
fn comes_in(port: u16, path: &str, headers: &[(&str, &str)], auth: Value) -> Result<(String, Vec<String>), String> {
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ws = Ws::over_path(stream, &format!("127.0.0.1:{port}"), path, headers)
        .map_err(|(status, body)| format!("{status} {body}"))?;
    let hello = ws.hello("", json!({"auth": auth}));
    let scopes = hello["payload"]["auth"]["scopes"].as_array().cloned().unwrap_or_default();
    let code = hello["error"]["details"]["code"].as_str().unwrap_or("let in").to_owned();
    Ok((code, scopes.iter().map(|scope| scope.as_str().unwrap().to_owned()).collect()))
}

fn basic(user: &str) -> String {
    use base64::Engine as _;
    let name = user.split('@').next().unwrap();
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{name}")))
}

#[test]
fn a_proxy_that_the_gateway_does_not_know_opens_nothing() {
    let world = World::running(User::Root);
    let to = format!("http://127.0.0.1:{}", world.port());
    let token = json!({"token": world.token()});
    let telling = Nginx::start(
        &world,
        None,
        &format!("location / {{ {} }}", passing(&to, "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;")),
    );
    let certificate = Certificate::new(&world, "proxy", None);
    let silent = Nginx::start(&world, None, &format!("location / {{ {} }}", passing(&to, "")));
    let encrypting = Nginx::start(&world, Some(&certificate), &format!("location / {{ {} }}", passing(&to, "")));

    // Without a proxy the same process with the same token is the operator's.
    assert_eq!(comes_in(world.port(), "/", &[], token.clone()).unwrap().1.len(), 3);

    let told = comes_in(telling.port, "/", &[], token.clone()).unwrap_err();
    assert!(told.starts_with("403") && told.contains("proxy_attribution_required"), "{told}");
    // Even when it says nothing: the kernel says that the peer is the web server, not the operator.
    assert_eq!(comes_in(silent.port, "/", &[], token).unwrap(), ("let in".into(), vec![]));
    let status = |url: &str, more: &[&str]| finish(&mut remote(&world, "far", url, &[more, &["status"]].concat()));
    status(&silent.url("ws", ""), &[]).fails(1, "missing scope");
    status(&encrypting.url("wss", ""), &["--fingerprint", &certificate.fingerprint()]).fails(1, "pairing required");
    assert_eq!(world.json(&["devices", "list", "--json"])["paired"], json!([]));
    assert_eq!(world.json(&["devices", "list", "--json"])["pending"].as_array().unwrap().len(), 1);
    let right = format!("Authorization: Bearer {}", world.token());
    let call = ["-H", "Content-Type: application/json", "-H", &right, "-d", "{}"];
    ask(curl().args(call), &[&silent.url("http", "/rpc/status")]).is(401);
    ask(curl().args(call), &[&format!("{to}/rpc/status")]).is(200);
}

const TRUSTED: &str = "[gateway.auth]\nmode = \"trusted-proxy\"\n[gateway.auth.trusted_proxy]\n\
    user_header = \"x-forwarded-user\"\nallow_users = [\"ada\\u0040example.org\"]\n";

/// What holds for every proxy whose word is taken.
fn names_users(nginx: &Nginx) {
    let (ada, eve) = (basic("ada@example.org"), basic("eve@example.org"));
    let through = |path: &str, headers: &[(&str, &str)]| comes_in(nginx.port, path, headers, json!({}));
    let code = |path: &str, headers: &[(&str, &str)]| through(path, headers).unwrap().0;
    let refused = |code: &str| code == "AUTH_VERIFIED_USER_REQUIRED";

    let (welcome, scopes) = through("/", &[("Authorization", &ada)]).unwrap();
    assert_eq!((welcome.as_str(), scopes.len()), ("let in", 3));
    assert!(refused(&code("/", &[("Authorization", &eve)])));
    assert_eq!(code("/unnamed/", &[]), "AUTH_IDENTITY_HEADER_REQUIRED");
    assert!(through("/", &[]).unwrap_err().starts_with("401"), "nginx itself asks for a password");

    // What a client writes of itself does not reach the gateway, or is not what it reads.
    let forged = ("X-Forwarded-User", "ada@example.org");
    assert!(refused(&code("/", &[("Authorization", &eve), forged])));
    assert_eq!(code("/unnamed/", &[forged]), "AUTH_IDENTITY_HEADER_REQUIRED");
    assert_eq!(code("/unnamed/", &[("X_Forwarded_User", "ada@example.org")]), "AUTH_IDENTITY_HEADER_REQUIRED");
    let near = ("X-Forwarded-For", "127.0.0.1");
    assert!(refused(&code("/", &[("Authorization", &eve), near])));
}

#[test]
fn a_trusted_proxy_names_users_and_nobody_else_on_the_host_can() {
    let config = format!("{TRUSTED}users = [\"www-data\"]\n");
    let world = World::new(User::Root).config(&config).start();
    let to = format!("http://127.0.0.1:{}", world.port());

    names_users(&naming_proxy(&world, &to, ""));

    let stranger = World::new(User::Ordinary);
    let forged = ["-H", "X-Forwarded-User: ada@example.org", "-H", "X-Forwarded-For: 203.0.113.9"];
    let upgrade = [
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    for who in [&world, &stranger] {
        let mut curl = who.bare_command("curl");
        let refused = ask(curl.args(forged).args(upgrade), &[&format!("{to}/")]).is(403);
        assert!(refused.contains("proxy_attribution_required"), "{refused}");
        let mut curl = who.bare_command("curl");
        let call = ["-H", "Content-Type: application/json", "-d", "{}"];
        ask(curl.args(forged).args(call), &[&format!("{to}/rpc/status")]).is(403);
    }
    let journal = serde_json::to_string(&world.journal()).unwrap();
    assert!(journal.contains("203.0.113.9 via 127.0.0.1:"), "who came is recorded: {journal}");
    // Nor is there a token in this mode.
    assert_eq!(comes_in(world.port(), "/", &[], json!({"token": "any"})).unwrap().0, "AUTH_TOKEN_NOT_CONFIGURED");
}

#[test]
fn a_trusted_proxy_may_come_by_the_unix_socket() {
    let config = format!("{TRUSTED}users = [\"www-data\"]\n");
    let world = World::new(User::Root).under_systemd().config(&config).start();

    names_users(&naming_proxy(&world, "http://unix:@/run/vambrace/gateway.sock", ""));

    // The operator is the operator there, and a user who is neither gets no further for a header.
    assert_eq!(world.exec(&["true"]).code, 0);
    let socket = world.dir.join("run/vambrace/gateway.sock").display().to_string();
    let call = ["--unix-socket", &socket, "-H", "Content-Type: application/json", "-d", "{}"];
    let stranger = World::new(User::Ordinary);
    let asks = |who: &World, more: &[&str]| {
        let url = "http://localhost/rpc/status";
        ask(who.bare_command("curl").args(call).args(more), &[url])
    };
    asks(&world, &[]).is(200);
    asks(&stranger, &[]).is(401);
    asks(&stranger, &["-H", "X-Forwarded-User: ada@example.org", "-H", "X-Forwarded-For: 203.0.113.9"]).is(403);
}

#[test]
fn the_unix_socket_is_out_of_reach_where_nobody_is_named_who_may_come_to_it() {
    let stranger = World::new(User::Ordinary);
    let reaches = |world: &World| {
        let socket = world.dir.join("run/vambrace/gateway.sock").display().to_string();
        ask(&mut stranger.bare_command("curl"), &["--unix-socket", &socket, "http://localhost/health"]).status
    };

    let alone = World::new(User::Root).under_systemd().start();
    let shared = World::new(User::Root).under_systemd().config("[gateway.auth]\noperators = [\"www-data\"]\n").start();

    assert_eq!(reaches(&alone), 0);
    assert_eq!(reaches(&shared), 200);
}

#[test]
fn a_proxy_with_a_certificate_of_the_authority_names_users_and_one_without_does_not() {
    let config = format!("{TLS}{TRUSTED}proxies = [\"127.0.0.1\"]\nclient_ca = \"@/authority.pem\"\n");
    let world = World::new(User::Root).config(&config);
    let authority = Certificate::authority(&world, "authority");
    let world = world.start();
    let to = format!("https://127.0.0.1:{}", world.port());
    let sure = |issuer: &Certificate, name: &str| {
        let certificate = Certificate::new(&world, name, Some(issuer));
        Nginx::own(&certificate.pem);
        Nginx::own(&certificate.key);
        format!("proxy_ssl_certificate @/{name}.pem; proxy_ssl_certificate_key @/{name}.key;")
    };
    world.write("gateway.pem", &std::fs::read(world.certificate()).unwrap());
    let verified = "proxy_ssl_trusted_certificate @/gateway.pem; proxy_ssl_verify on; proxy_ssl_name localhost;";

    names_users(&naming_proxy(&world, &to, &format!("{verified} {}", sure(&authority, "member"))));

    let ada = basic("ada@example.org");
    let asks = |nginx: &Nginx| comes_in(nginx.port, "/", &[("Authorization", &ada)], json!({})).unwrap_err();
    let bare = asks(&naming_proxy(&world, &to, verified));
    assert!(bare.starts_with("403") && bare.contains("proxy_attribution_required"), "{bare}");
    let foreign = Certificate::authority(&world, "foreign");
    let outsider = asks(&naming_proxy(&world, &to, &format!("{verified} {}", sure(&foreign, "outsider"))));
    assert!(outsider.starts_with("502"), "the gateway ends the handshake: {outsider}");
}

#[test]
fn on_a_tailnet_a_user_is_who_tailscaled_says() {
    let network = Network::new(&[]);
    let others = ["100.64.0.2", "100.64.0.3", "100.64.0.4", "100.64.0.5", "10.77.0.1"];
    let far = network.joined(&["100.64.0.1"], &others);
    let config = format!(
        "[gateway]\nbind = \"tailnet\"\n{TLS}[gateway.auth]\nmode = \"tailnet\"\n\
         [gateway.auth.tailnet]\nsocket = \"@/tailscaled.sock\"\nallow_users = [\"ada\\u0040example.org\"]\n"
    );
    let world = World::new(User::Root).config(&config).within(&network.path());
    let tailscaled = Tailscaled::start(
        &world.dir.join("tailscaled.sock"),
        &[
            ("100.64.0.1", r#"{"Node":{"Name":"own"},"UserProfile":{"LoginName":"ada@example.org"}}"#),
            ("100.64.0.2", r#"{"Node":{"Name":"a"},"UserProfile":{"LoginName":"Ada@example.org"},"CapMap":null}"#),
            ("100.64.0.3", r#"{"Node":{"Name":"e"},"UserProfile":{"LoginName":"eve@example.org"}}"#),
            ("100.64.0.5", r#"{"Node":{"Tags":["tag:ci"]},"UserProfile":{"LoginName":"ada@example.org"}}"#),
        ],
    );
    let world = world.start();
    let at: SocketAddrV4 = world.status()["addresses"][0].as_str().unwrap().parse().unwrap();
    let open = |from: &str, headers: &[(&str, &str)]| {
        let stream = if from == "100.64.0.1" { network.connect(from, at) } else { far.connect(from, at) };
        let own = stream.local_addr().unwrap().to_string();
        Ws::over(tls(stream, &at.ip().to_string(), &world.certificate()), &at.to_string(), headers).map(|ws| (ws, own))
    };
    let code = |from: &str| {
        let (mut ws, own) = open(from, &[]).unwrap();
        let hello = ws.hello("", json!({"auth": {"token": "any"}}));
        (hello["error"]["details"]["code"].as_str().unwrap_or("let in").to_owned(), own)
    };

    let (mut ada, own) = open("100.64.0.2", &[]).unwrap();
    let welcome = ada.hello("", json!({"auth": {}}));
    assert_eq!(welcome["payload"]["auth"]["scopes"].as_array().unwrap().len(), 3, "{welcome}");
    assert_eq!(ada.call("status", json!({}))["payload"]["authMode"], "tailnet");
    assert_eq!(tailscaled.asked(), [own], "asked of the connection's own address, once");

    for (from, refusal) in [
        ("100.64.0.3", "AUTH_VERIFIED_USER_REQUIRED"),
        ("100.64.0.4", "AUTH_TAILSCALE_IDENTITY_MISSING"),
        ("100.64.0.5", "AUTH_TAILSCALE_IDENTITY_MISSING"),
    ] {
        let (code, own) = code(from);
        assert_eq!((code.as_str(), tailscaled.asked()), (refusal, vec![own]), "{from}");
    }
    // Any process of this host can take its address: tailscaled would name whose the host is, and is not asked.
    assert_eq!(code("100.64.0.1").0, "AUTH_TOKEN_NOT_CONFIGURED");
    // Who comes from elsewhere is not on the tailnet, and tailscaled is not troubled.
    assert_eq!(code("10.77.0.1").0, "AUTH_TOKEN_NOT_CONFIGURED");
    let forged = ("Tailscale-User-Login", "ada@example.org");
    for from in ["10.77.0.1", "100.64.0.3"] {
        let (status, body) = open(from, &[forged]).map(|_| ()).unwrap_err();
        assert!(status == 403 && body.contains("proxy_attribution_required"), "{body}");
    }
    assert!(tailscaled.asked().is_empty());

    drop(tailscaled);
    assert_eq!(code("100.64.0.2").0, "AUTH_TAILSCALE_WHOIS_FAILED");
    assert_eq!(ada.call("health", json!({}))["ok"], true, "who is in stays in");
}

#[test]
fn without_a_tailnet_address_there_is_no_tailnet_door() {
    let network = Network::new(&["10.77.0.1", "100.128.0.1"]);
    let config = format!("[gateway]\nbind = \"tailnet\"\n{TLS}");
    let world = World::new(User::Root).config(&config).within(&network.path());

    let ran = finish(&mut world.within_network(world.command(&["gateway", "--port", "0"])));

    ran.fails(1, "no interface has a tailnet address");
}

#[test]
fn whichever_address_of_the_host_a_process_takes_it_is_no_proxy_by_that() {
    let network = Network::new(&["10.77.0.1", "10.77.0.5"]);
    let config = format!(
        "[gateway]\nbind = \"10.77.0.5\"\n{TLS}[gateway.auth]\nmode = \"trusted-proxy\"\n\
         [gateway.auth.trusted_proxy]\nproxies = [\"10.77.0.0/24\"]\nallow_users = [\"*\"]\n"
    );
    let world = World::new(User::Root).config(&config).within(&network.path()).start();
    let at: SocketAddrV4 = world.status()["addresses"][0].as_str().unwrap().parse().unwrap();
    let forged = [("X-Forwarded-User", "ada@example.org"), ("X-Forwarded-For", "203.0.113.9")];

    for from in ["10.77.0.1", "10.77.0.5"] {
        let stream = tls(network.connect(from, at), &at.ip().to_string(), &world.certificate());
        let (status, body) = Ws::over(stream, &at.to_string(), &forged).map(|_| ()).unwrap_err();
        assert!(status == 403 && body.contains("proxy_attribution_required"), "{from}: {status} {body}");
    }
}

#[test]
fn an_agent_has_so_many_connections_and_no_more_and_its_neighbours_come_in() {
    let world = World::new(User::Root).config("[gateway.auth]\nlocal_trust = \"off\"\n").start();
    let shared = json!({"token": world.token()});
    let agent = |seed: u8, name: &str| {
        let device = Device::new(seed);
        let (_, refused) = device.connect(&world, &["agent.exec"], shared.clone());
        let request = refused["error"]["details"]["requestId"].as_str().unwrap().to_owned();
        world.run(&["devices", "approve", &request, "--agent", name]).exits(0);
        device
    };
    let (greedy, modest) = (agent(1, "greedy"), agent(2, "modest"));
    let knock = |device: &Device| device.connect(&world, &["agent.exec"], shared.clone());

    let mut held = Vec::new();
    let (mut last, refused) = loop {
        let (ws, answer) = knock(&greedy);
        if answer["ok"] != true {
            break (ws, answer);
        }
        held.push(ws);
        assert!(held.len() < 2000, "nothing bounds them");
    };

    assert_eq!(held.len(), 256);
    assert_eq!(refused["error"]["details"]["code"], "TOO_MANY_CONNECTIONS", "{refused}");
    assert_eq!((&refused["error"]["code"], &refused["error"]["retryable"]), (&json!("UNAVAILABLE"), &json!(true)));
    assert_eq!(last.closed().1.code, 1008);
    assert_eq!(world.events("auth.refused").last().unwrap()["rule"], "TOO_MANY_CONNECTIONS");
    // Those it has work, its neighbour comes in, and so does the operator.
    assert_eq!(held[200].call("exec.run", json!({"command": ["true"], "agent": "greedy"}))["payload"]["exitCode"], 0);
    assert_eq!(knock(&modest).1["ok"], true);
    assert_eq!(world.exec(&["echo", "operator"]).exits(0), "operator\n");
    // One that is closed makes room for one.
    held.truncate(255);
    eventually("there is room again", || knock(&greedy).1["ok"] == true);
}
