//! The doors beyond the unix socket: TLS, wider binds, a real proxy, a tailnet, signed requests.

use crate::neighbours::{Certificate, Network, ask, curl, fingerprint, openssl};
use crate::world::{Ran, User, World, Ws, eventually, finish, program};
use nix::sys::signal::Signal;
use serde_json::json;
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

    let world = World::new(User::Root).config(none).start();
    world.run(&["gateway", "--port", "0", "--bind", "lan"]).fails(1, "gateway.auth.mode");

    // The operator's own process gets its scopes as ever; another user's comes in, and may do nothing.
    let scopes = |hello: serde_json::Value| hello["payload"]["auth"]["scopes"].clone();
    assert_eq!(scopes(world.socket().hello("", json!({"auth": {}}))).as_array().unwrap().len(), 3);
    let url = format!("ws://127.0.0.1:{}", world.port());
    let stranger = World::new(User::Ordinary);
    finish(stranger.command(&["--url", &url, "status"]).env("VAMBRACE_TOKEN", "any")).fails(1, "missing scope");
    finish(&mut stranger.command(&["--url", &url, "status"])).fails(1, "pairing required");
}
