//! Signed HTTP requests, made by docs/signed-request.sh itself: what it sends works, and nothing near it does.

use crate::neighbours::{Answer, ask, tool};
use crate::world::{Ran, User, World, finish};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const NAMED: &str = "[gateway]\nhosts = [\"gateway.example.org\"]\n[gateway.tls]\nenabled = true\n";

/// A client of another user than the gateway's, paired by a setup code.
struct Guest {
    world: World,
    /// `https://…` as it calls the gateway.
    url: String,
    device: String,
    key: String,
}

impl Guest {
    fn join(gateway: &World, scope: &str) -> Self {
        let world = World::new(User::Ordinary);
        let url = format!("wss://127.0.0.1:{}", gateway.port());
        let invite = ["devices", "invite", "--scope", scope, "--public-url", &url, "--json"];
        let code = gateway.json(&invite)["setupCode"].as_str().unwrap().to_owned();
        world.run_with_input(&["devices", "join"], code.as_bytes()).exits(0);
        let identity = world.json(&["--url", &url, "devices", "identity", "--signing-key", "--json"]);
        let text = |name: &str| identity[name].as_str().unwrap().to_owned();
        let (device, key) = (text("deviceId"), text("signingKey"));
        let guest = Guest { world, url: url.replace("wss", "https"), device, key };
        guest.meet(gateway, "");
        guest
    }

    /// Tells curl where the gateway is and which certificate it has.
    fn meet(&self, gateway: &World, more: &str) {
        let certificate = self.world.write("gateway.pem", &std::fs::read(gateway.certificate()).unwrap());
        let settings = format!("cacert = \"{}\"\n{more}", certificate.display());
        self.world.write("home/.curlrc", settings.as_bytes());
    }

    /// Runs the script, with this standard input.
    fn script(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.world.bare_command("bash");
        command.arg(script(&self.world)).args(arguments);
        command.env("VAMBRACE_DEVICE", &self.device).env("VAMBRACE_SIGNING_KEY", &self.key);
        let path = self.world.write("input", input);
        finish(command.stdin(Stdio::from(std::fs::File::open(path).unwrap())))
    }

    /// The headers of one signed request, not sent.
    fn headers(&self, method: &str, parameters: &str) -> Vec<String> {
        let printed = self.script(&["-n", &self.url, method, parameters], b"").exits(0);
        printed.lines().map(str::to_owned).collect()
    }

    /// Sends what is given as it is.
    fn send(&self, path: &str, headers: &[String], body: &str, more: &[&str]) -> Answer {
        let mut curl = self.world.bare_command("curl");
        for header in headers {
            curl.args(["-H", header]);
        }
        ask(curl.args(["--data-binary", body]).args(more), &[&format!("{}{path}", self.url)])
    }

    /// The headers of a request signed over what the caller likes.
    fn signed_by_hand(&self, method: &str, path: &str, parameters: &str, body: &str) -> Vec<String> {
        let authority = self.url.strip_prefix("https://").unwrap();
        let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
        let parameters = format!("(\"@method\" \"@authority\" \"@path\" \"content-digest\"){parameters}");
        let base = format!(
            "\"@method\": {method}\n\"@authority\": {authority}\n\"@path\": {path}\n\
             \"content-digest\": {digest}\n\"@signature-params\": {parameters}"
        );
        let key: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&self.key[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(base.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        vec![
            "Content-Type: application/json".into(),
            format!("Content-Digest: {digest}"),
            format!("Signature-Input: s={parameters}"),
            format!("Signature: s=:{signature}:"),
        ]
    }

    /// Parameters of a signature made so many seconds from now.
    fn made(&self, seconds: i64, nonce: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        format!(";created={};keyid=\"{}\"{nonce}", now + seconds, self.device)
    }
}

/// The very script of the documentation, where every user can read it.
fn script(world: &World) -> PathBuf {
    tool("bash", "bash");
    tool("curl", "curl");
    tool("openssl", "openssl");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/signed-request.sh");
    world.write("signed-request.sh", &std::fs::read(source).unwrap())
}

fn payload(ran: Ran) -> Value {
    serde_json::from_str(&ran.exits(0)).unwrap()
}

#[test]
fn the_script_of_the_documentation_calls_what_its_device_may_and_nothing_else() {
    let gateway = World::new(User::Root).config(NAMED).start();
    let reader = Guest::join(&gateway, "operator.read");
    let writer = Guest::join(&gateway, "operator.write");
    let run = r#"{"command": ["echo", "hello"]}"#;

    let status = payload(reader.script(&[&reader.url, "status"], b""));
    let same = payload(reader.script(&[&format!("{}/", reader.url), "status", "-"], b"{}\n"));
    let refused = reader.script(&[&reader.url, "exec.run", run], b"");
    let ran = payload(writer.script(&[&writer.url, "exec.run", run], b""));

    assert_eq!((&status["ok"], &same["ok"]), (&Value::Bool(true), &Value::Bool(true)), "{status}");
    assert!(refused.code == 22 && refused.stdout.contains("MISSING_SCOPE"), "{refused:?}");
    assert!(refused.stderr.contains("403"), "{refused:?}");
    assert_eq!(ran["payload"]["exitCode"], 0, "{ran}");
    assert_eq!(ran["events"][1]["payload"]["data"], STANDARD.encode("hello\n"), "{ran}");
    let permitted = gateway.events("exec.permitted");
    assert_eq!(permitted.len(), 1, "{permitted:?}");
    assert_eq!(permitted[0]["principal"], format!("device:{}", writer.device));
}

#[test]
fn a_signed_request_is_good_once_also_after_a_restart() {
    let mut gateway = World::new(User::Root).config(NAMED).start();
    let mut guest = Guest::join(&gateway, "operator.read");
    guest.url = "https://gateway.example.org".into();
    let leads = |gateway: &World| format!("connect-to = \"::127.0.0.1:{}\"\n", gateway.port());
    guest.meet(&gateway, &leads(&gateway));
    let (once, later) = (guest.headers("status", "{}"), guest.headers("status", "{}"));
    let send = |guest: &Guest, headers: &[String]| guest.send("/rpc/status", headers, "{}", &[]);

    send(&guest, &once).is(200);
    send(&guest, &once).is(401);

    gateway.stop(Signal::SIGTERM);
    gateway.start_again();
    guest.meet(&gateway, &leads(&gateway));
    send(&guest, &once).is(401);
    send(&guest, &later).is(200);

    // Also where the gateway had no time for anything.
    gateway.stop(Signal::SIGKILL);
    gateway.start_again();
    guest.meet(&gateway, &leads(&gateway));
    send(&guest, &later).is(401);
    payload(guest.script(&[&guest.url, "status"], b""));
}

#[test]
fn nothing_about_a_signed_request_can_be_changed() {
    let gateway = World::new(User::Root).config(NAMED).start();
    let guest = Guest::join(&gateway, "operator.read");
    let long = r#"{"includeChannelSummary":true}"#;
    let of = |headers: Vec<String>, from: &str, to: &str| {
        let changed: Vec<String> = headers.iter().map(|header| header.replace(from, to)).collect();
        assert_ne!(headers, changed, "{from}");
        changed
    };

    // The body, the digest with it, the path, the host.
    guest.send("/rpc/status", &guest.headers("status", "{}"), long, &[]).is(401);
    let digest = |body: &str| STANDARD.encode(Sha256::digest(body));
    let both = of(guest.headers("status", "{}"), &digest("{}"), &digest(long));
    guest.send("/rpc/status", &both, long, &[]).is(401);
    guest.send("/rpc/journal.list", &guest.headers("status", "{}"), "{}", &[]).is(401);
    guest.send("/rpc/status", &guest.headers("status", "{}"), "{}", &["-H", "Host: gateway.example.org"]).is(401);
    // What was signed for another method than POST.
    let nonce = ";nonce=\"0123456789abcdef\"";
    let as_put = guest.signed_by_hand("PUT", "/rpc/status", &guest.made(0, nonce), "{}");
    guest.send("/rpc/status", &as_put, "{}", &[]).is(401);
    guest.send("/rpc/status", &as_put, "{}", &["-X", "PUT"]).is(405);
    // Another's signature under this name.
    let other = Guest::join(&gateway, "operator.read");
    guest.send("/rpc/status", &of(other.headers("status", "{}"), &other.device, &guest.device), "{}", &[]).is(401);
    // And unchanged all of it is well.
    guest.send("/rpc/status", &guest.headers("status", long), long, &[]).is(200);
    let by_hand = guest.signed_by_hand("POST", "/rpc/status", &guest.made(0, nonce), "{}");
    guest.send("/rpc/status", &by_hand, "{}", &[]).is(200);
}

#[test]
fn a_signature_says_when_it_was_made_and_bears_a_nonce() {
    let gateway = World::new(User::Root).config(NAMED).start();
    let guest = Guest::join(&gateway, "operator.read");
    let nonce = |number: u32| format!(";nonce=\"nonce-of-a-test-{number:04}\"");
    let send = |parameters: &str| {
        let headers = guest.signed_by_hand("POST", "/rpc/status", parameters, "{}");
        guest.send("/rpc/status", &headers, "{}", &[])
    };

    send(&guest.made(-200, &nonce(1))).is(200);
    send(&guest.made(-600, &nonce(2))).is(401);
    send(&guest.made(30, &nonce(3))).is(200);
    send(&guest.made(600, &nonce(4))).is(401);
    send(&guest.made(0, "")).is(401);
    send(&guest.made(0, ";nonce=\"short\"")).is(401);
    send(&format!(";keyid=\"{}\"{}", guest.device, nonce(5))).is(401);
    send(&format!("{};expires=1000000000", guest.made(0, &nonce(6)))).is(401);
    send(&format!("{};alg=\"hmac-sha256\"", guest.made(0, &nonce(7)))).is(200);
}

#[test]
fn from_another_user_only_a_signature_opens_and_only_in_one_shape() {
    let gateway = World::new(User::Root).config(NAMED).start();
    let guest = Guest::join(&gateway, "operator.read");
    let json = vec!["Content-Type: application/json".to_owned()];
    let right = format!("Authorization: Bearer {}", gateway.token());

    // The right token opens to the operator's own process and to no other.
    guest.send("/rpc/status", &json, "{}", &[]).is(401);
    guest.send("/rpc/status", &json, "{}", &["-H", &right]).is(401);
    let certificate = gateway.certificate();
    let mut own = gateway.bare_command("curl");
    own.arg("--cacert").arg(certificate).args(["-H", &right, "-H", &json[0], "-d", "{}"]);
    ask(&mut own, &[&format!("{}/rpc/status", guest.url)]).is(200);

    let signed = || guest.headers("status", "{}");
    guest.send("/rpc/status", &signed(), "{}", &["-X", "GET"]).is(405);
    guest.send("/rpc/status?agent=x", &signed(), "{}", &[]).is(400);
    let form: Vec<String> =
        signed().iter().map(|h| h.replace("application/json", "application/x-www-form-urlencoded")).collect();
    guest.send("/rpc/status", &form, "{}", &[]).is(415);
    for site in ["cross-site", "same-site"] {
        guest.send("/rpc/status", &signed(), "{}", &["-H", &format!("Sec-Fetch-Site: {site}")]).is(403);
    }
    guest.send("/rpc/status", &signed(), "{}", &["-H", "Origin: https://evil.example"]).is(403);
    guest.send("/rpc/status", &signed(), "{}", &["-H", "X-Forwarded-For: 203.0.113.9"]).is(403);
    guest.send("/rpc/status", &signed(), "{}", &["-H", "Sec-Fetch-Site: none"]).is(200);
}

#[test]
fn a_body_beyond_its_bound_is_refused_and_one_within_it_is_read() {
    let gateway = World::new(User::Root).config(NAMED).start();
    let guest = Guest::join(&gateway, "operator.read");
    let padded = |size: usize| format!("{{{}}}", " ".repeat(size - 2)).into_bytes();

    let within = guest.script(&[&guest.url, "status", "-"], &padded(1 << 20));
    assert_eq!(payload(within)["ok"], true);

    // Also who does not wait for leave to send hears why, each time.
    for settings in ["", "header = \"Expect:\"\n"] {
        guest.meet(&gateway, settings);
        for _ in 0..10 {
            let beyond = guest.script(&[&guest.url, "status", "-"], &padded(2 << 20));
            assert!(beyond.code == 22 && beyond.stdout.contains("payload_too_large"), "{beyond:?}");
            assert!(beyond.stderr.contains("413"), "{beyond:?}");
        }
    }
}

#[test]
fn wrong_signatures_are_counted_and_their_maker_is_locked_out() {
    let gateway = World::new(User::Root).config(NAMED).start();
    let guest = Guest::join(&gateway, "operator.read");
    let right = guest.headers("status", "{}");
    let wrong: Vec<String> =
        right.iter().map(|header| header.replace("Signature: vambrace=:", "Signature: vambrace=:AAAA")).collect();
    assert_ne!(right, wrong);

    let mut answer = guest.send("/rpc/status", &wrong, "{}", &[]);
    let mut refused = 0;
    while answer.status == 401 && refused < 100 {
        refused += 1;
        answer = guest.send("/rpc/status", &wrong, "{}", &[]);
    }

    assert!(refused >= 10, "what is mistyped now and then locks nobody out: {refused}");
    let told = answer.is(429).to_ascii_lowercase();
    assert!(told.contains("retry-after: 300"), "{told}");
    // A right signature is nobody's guess: neighbours behind one address do not lock each other out.
    guest.send("/rpc/status", &right, "{}", &[]).is(200);
    guest.send("/rpc/status", &right, "{}", &[]).is(401);
}

#[test]
fn a_revocation_ends_what_a_signed_request_runs() {
    use crate::world::{eventually, mark, processes_with};
    let gateway = World::new(User::Root).config(NAMED).start();
    let guest = Guest::join(&gateway, "operator.write");
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| {
            let parameters = format!("{{\"command\":[\"sleep\",\"{}\"]}}", mark(7401));
            guest.script(&[&guest.url, "exec.run", &parameters], b"")
        });
        eventually("it sleeps", || processes_with(&format!("sleep\0{}", mark(7401))).len() == 1);

        gateway.run(&["devices", "revoke", &guest.device]).exits(0);

        eventually("it ends", || processes_with(&format!("sleep\0{}", mark(7401))).is_empty());
        assert!(asking.join().unwrap().stdout.contains("cancelled"));
    });
    guest.script(&[&guest.url, "status"], b"").exits(22);
}
