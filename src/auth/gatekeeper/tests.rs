//! Who gets in, by which credential, from which place, and with which scopes.

use super::*;
use crate::auth::proxy::{AllowedUsers, Proxied};
use crate::auth::registry::RegistryParts;
use crate::auth::testing::{Held, journal};
use crate::crypto::{self, KeyPair};
use crate::model::DeviceId;
use crate::store::Store;
use crate::wire::signed_payload;
use serde_json::json;
use std::net::SocketAddr;

const OPERATOR: u32 = 1000;
const RIGHT: &str = "right token of this test";
const CLI: (&str, &str) = ("cli", "cli");

struct Stage {
    keeper: Gatekeeper,
    clock: Arc<Held>,
    _journal: crate::auth::testing::Folder,
}

fn stage(mode: Mode, trust: LocalTrust) -> Stage {
    let (journal, folder) = journal();
    let clock = Arc::new(Held::default());
    let parts = RegistryParts {
        store: Arc::new(Store::in_memory()),
        journal,
        clock: clock.clone(),
        random: crate::os::host::random,
    };
    let registry =
        Arc::new(Registry::open(parts, crate::os::memory::Locked::new(Secret::new([7; 32])).unwrap()).unwrap());
    let key = [1; 32];
    let secret = (mode == Mode::Token).then(|| Gatekeeper::token_digest(&key, &Secret::new(RIGHT.to_owned())));
    let keeper = Gatekeeper::new(
        key,
        Rules { mode, local_trust: trust, operators: vec![0, OPERATOR] },
        secret,
        registry,
        clock.clone(),
    );
    Stage { keeper, clock, _journal: folder }
}

fn params(client: (&str, &str), scopes: &[&str], auth: serde_json::Value) -> ConnectParams {
    serde_json::from_value(json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": client.0, "mode": client.1, "version": "1", "platform": "linux"},
        "scopes": scopes, "auth": auth,
    }))
    .unwrap()
}

fn token(text: &str) -> serde_json::Value {
    json!({"token": text})
}

/// The same, signed by the device of this seed.
fn signed(mut params: ConnectParams, seed: u8, role: &str) -> ConnectParams {
    let pair = KeyPair::from_seed(&[seed; 32]);
    let id = crypto::hex(&crypto::sha256(&[&pair.public()]));
    params.role = Some(role.into());
    let payload = signed_payload(3, &params, &DeviceId(id.clone()), 0, "nonce");
    params.device = serde_json::from_value(json!({
        "id": id, "publicKey": crypto::base64url(&pair.public()), "signedAt": 0, "nonce": "nonce",
        "signature": crypto::base64url(&pair.sign(payload.as_bytes())),
    }))
    .ok();
    params
}

fn tcp(local_uid: Option<u32>, has_origin: bool) -> Peer {
    let address: SocketAddr = "127.0.0.1:5".parse().unwrap();
    Peer::Tcp { address, is_direct: local_uid.is_some(), is_local: true, local_uid, has_origin, via: None }
}

fn remote(ip: &str) -> Peer {
    let address = SocketAddr::new(ip.parse().unwrap(), 5);
    Peer::Tcp { address, is_direct: false, is_local: false, local_uid: None, has_origin: false, via: None }
}

impl Stage {
    fn admit(&self, peer: &Peer, params: &ConnectParams) -> Result<Admitted, Refusal> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.keeper.admit(ConnId(1), peer, "nonce", params, 0))
    }

    fn scopes(&self, peer: &Peer, params: &ConnectParams) -> ScopeSet {
        self.admit(peer, params).unwrap().session.principal.scopes
    }

    fn code(&self, peer: &Peer, params: &ConnectParams) -> &'static str {
        self.admit(peer, params).map_or_else(|refusal| refusal.code(), |_| "let in")
    }
}

/// A proxy at 10.0.0.1 that may name ada, who may read.
fn reading_proxy() -> Mode {
    Mode::TrustedProxy(ProxyRules {
        networks: vec!["10.0.0.1/32".parse().unwrap()],
        uids: vec![],
        shows_certificate: false,
        user_header: "x-forwarded-user".into(),
        users: AllowedUsers::parse(&["ada@example.org".into()]).unwrap(),
        scopes: [crate::model::Scope::Read].into_iter().collect(),
    })
}

/// Somebody who comes through it, named or not.
fn through_proxy(user: Option<&str>) -> Peer {
    Peer::Tcp {
        address: "10.0.0.1:9".parse().unwrap(),
        is_direct: false,
        is_local: false,
        local_uid: None,
        has_origin: false,
        via: Some(Proxied { client: "203.0.113.9".parse().unwrap(), user: user.map(ToOwned::to_owned) }),
    }
}

#[test]
fn a_right_token_opens_and_every_other_answers_alike() {
    for wrong in ["x", "right token of this tes", "right token of this test2", "undefined"] {
        let stage = stage(Mode::Token, LocalTrust::Socket);
        assert_eq!(stage.code(&tcp(None, false), &params(CLI, &[], token(wrong))), "AUTH_TOKEN_MISMATCH", "{wrong}");
        assert_eq!(stage.code(&tcp(None, false), &params(CLI, &[], token(RIGHT))), "let in");
    }
    let stage = stage(Mode::Token, LocalTrust::Socket);
    for blank in [json!({}), token(""), token("   "), json!({"password": ""})] {
        assert_eq!(stage.code(&tcp(None, false), &params(CLI, &[], blank)), "AUTH_TOKEN_MISSING");
    }
    assert_eq!(stage.code(&tcp(None, false), &params(CLI, &[], json!({"password": RIGHT}))), "let in");
}

#[test]
fn scopes_in_the_frame_are_claims_and_the_kernel_decides_who_is_local() {
    let stage = stage(Mode::Token, LocalTrust::Socket);
    let asks = |client| params(client, &["operator.admin"], token(RIGHT));
    assert_eq!(stage.scopes(&tcp(Some(OPERATOR), false), &asks(CLI)).names(), ["operator.admin"]);
    for (peer, client) in [
        (tcp(None, false), CLI),                        // remote, or forwarded
        (tcp(Some(4711), false), CLI),                  // another user of this host
        (tcp(Some(OPERATOR), true), CLI),               // a browser
        (tcp(Some(OPERATOR), false), ("test", "test")), // not the original's command line
    ] {
        assert_eq!(stage.scopes(&peer, &asks(client)), ScopeSet::EMPTY, "{peer:?} {client:?}");
    }
    let unknown = params(CLI, &["operator.zzz"], token(RIGHT));
    assert_eq!(stage.code(&tcp(Some(OPERATOR), false), &unknown), "AUTH_UNAUTHORIZED");
}

#[test]
fn the_unix_socket_admits_operators_without_a_token_and_nobody_else() {
    let open = params(CLI, &["operator.admin"], json!({}));
    let socket = |uid| Peer::Unix { uid, via: None };
    let stage_on = stage(Mode::Token, LocalTrust::Socket);
    for uid in [0, OPERATOR] {
        let admitted = stage_on.admit(&socket(uid), &open).unwrap();
        assert_eq!(admitted.session.principal.credential, Credential::PeerUid(uid));
    }
    assert_eq!(stage_on.code(&socket(4711), &open), "AUTH_TOKEN_MISSING");
    let off = stage(Mode::Token, LocalTrust::Off);
    assert_eq!(off.code(&socket(OPERATOR), &open), "AUTH_TOKEN_MISSING");
    assert_eq!(off.code(&socket(0), &open), "let in");
    let by_token = params(CLI, &["operator.admin"], token(RIGHT));
    assert_eq!(off.scopes(&tcp(Some(OPERATOR), false), &by_token), ScopeSet::EMPTY);
    let proxied = Proxied { client: "203.0.113.9".parse().unwrap(), user: None };
    assert_eq!(stage_on.code(&Peer::Unix { uid: 0, via: Some(proxied) }, &open), "AUTH_TOKEN_MISSING");
}

#[test]
fn local_trust_opens_loopback_as_far_as_it_says_and_never_for_roots_sockets() {
    let open = params(CLI, &["operator.admin"], json!({}));
    let same = stage(Mode::Token, LocalTrust::SameUser);
    assert_eq!(same.scopes(&tcp(Some(OPERATOR), false), &open).names(), ["operator.admin"]);
    for peer in [tcp(Some(0), false), tcp(Some(4711), false), tcp(None, false), tcp(Some(OPERATOR), true)] {
        assert_eq!(same.code(&peer, &open), "AUTH_TOKEN_MISSING", "{peer:?}");
    }
    let loopback = stage(Mode::Token, LocalTrust::Loopback);
    assert_eq!(loopback.code(&tcp(Some(4711), false), &open), "let in");
    assert_eq!(loopback.code(&tcp(Some(4711), true), &open), "AUTH_TOKEN_MISSING", "a browser");
    assert_eq!(loopback.code(&remote("203.0.113.9"), &open), "AUTH_TOKEN_MISSING");
}

#[test]
fn mode_none_asks_for_nothing_and_still_gives_scopes_to_the_operators_own_alone() {
    let stage = stage(Mode::None, LocalTrust::Socket);
    let open = params(CLI, &["operator.admin"], json!({}));
    assert_eq!(stage.scopes(&tcp(Some(OPERATOR), false), &open).names(), ["operator.admin"]);
    assert_eq!(stage.scopes(&tcp(Some(4711), false), &open), ScopeSet::EMPTY);
    assert_eq!(stage.scopes(&tcp(Some(0), false), &open), ScopeSet::EMPTY, "a tunnel's socket may be root's");
    let device = signed(params(CLI, &["operator.admin"], json!({})), 3, "operator");
    assert_eq!(stage.code(&tcp(Some(0), false), &device), "PAIRING_REQUIRED");
}

#[test]
fn a_forwarder_of_the_operators_widens_nobody() {
    let stage = stage(Mode::Token, LocalTrust::Socket);
    let asks = |scopes: &[&str], auth| signed(params(CLI, scopes, auth), 3, "operator");
    let paired = stage.admit(&tcp(Some(OPERATOR), false), &asks(&["operator.read"], token(RIGHT))).unwrap();
    let (own, _) = paired.device_token.unwrap();
    // The device is elsewhere and comes through ssh -L, whose socket is the operator's.
    let asked = asks(&["operator.admin"], json!({"deviceToken": own.expose()}));
    assert_eq!(stage.code(&tcp(Some(OPERATOR), false), &asked), "AUTH_SCOPE_MISMATCH");
    // In the field of the shared token it is the same token, and no guess at that one.
    for _ in 0..30 {
        assert_eq!(stage.code(&remote("192.0.2.7"), &asks(&["operator.read"], token(own.expose()))), "let in");
    }
}

#[test]
fn a_device_under_ever_new_names_does_not_fill_the_journal() {
    let stage = stage(Mode::Token, LocalTrust::Socket);
    let mut codes = Vec::new();
    for n in 0..40 {
        let mut asks = params(CLI, &["operator.read"], token(RIGHT));
        asks.client.display_name = Some(format!("name {n}"));
        codes.push(stage.code(&remote("192.0.2.7"), &signed(asks, 9, "operator")));
    }
    assert!(codes.iter().filter(|c| **c == "PAIRING_REQUIRED").count() <= 10, "{codes:?}");
}

#[test]
fn wrong_guesses_lock_over_every_kind_of_credential_and_both_families() {
    let stage = stage(Mode::Token, LocalTrust::Socket);
    for n in 0..10 {
        let ip = if n % 2 == 0 { "192.0.2.9" } else { "::ffff:192.0.2.9" };
        let guess = match n % 3 {
            0 => json!({"password": format!("guess-{n}"), "deviceToken": "bogus"}),
            1 => token("wrong"),
            _ => json!({"deviceToken": "bogus"}),
        };
        let _ = stage.code(&remote(ip), &params(CLI, &[], guess));
    }
    assert_eq!(stage.code(&remote("192.0.2.9"), &params(CLI, &[], token(RIGHT))), "AUTH_RATE_LIMITED");
    assert_eq!(stage.code(&remote("192.0.2.10"), &params(CLI, &[], token(RIGHT))), "let in");
    stage.clock.advance(300_001);
    assert_eq!(stage.code(&remote("192.0.2.9"), &params(CLI, &[], token(RIGHT))), "let in");
}

#[test]
fn a_proxys_user_is_let_in_by_name_and_its_scopes_are_the_configurations() {
    let stage = stage(reading_proxy(), LocalTrust::Socket);
    let via = through_proxy;
    let asks = params(CLI, &["operator.admin", "operator.read"], json!({}));
    assert_eq!(stage.scopes(&via(Some("Ada@example.org")), &asks).names(), ["operator.read"]);
    assert_eq!(stage.code(&via(Some("eve@example.org")), &asks), "AUTH_VERIFIED_USER_REQUIRED");
    assert_eq!(stage.code(&via(None), &asks), "AUTH_IDENTITY_HEADER_REQUIRED");
    assert_eq!(stage.code(&remote("203.0.113.9"), &asks), "AUTH_REQUIRED");
    let shared = params(CLI, &[], token(RIGHT));
    assert_eq!(stage.code(&remote("203.0.113.9"), &shared), "AUTH_TOKEN_NOT_CONFIGURED", "PRX-08");
    let password = params(CLI, &[], json!({"password": RIGHT}));
    assert_eq!(stage.code(&remote("203.0.113.9"), &password), "AUTH_PASSWORD_NOT_CONFIGURED");
}

#[test]
fn a_rotated_token_is_refused_at_once_and_its_sessions_fall() {
    let stage = stage(Mode::Token, LocalTrust::Socket);
    let session = stage.admit(&tcp(None, false), &params(CLI, &[], token(RIGHT))).unwrap().session;
    assert!(stage.keeper.stands(&session));
    stage.keeper.replace_token(&Secret::new("another token of this test".into()));
    assert!(!stage.keeper.stands(&session));
    assert_eq!(stage.code(&tcp(None, false), &params(CLI, &[], token(RIGHT))), "AUTH_TOKEN_MISMATCH");
}

#[test]
fn only_protocol_four_is_spoken_but_a_probe_may_offer_three() {
    let stage = stage(Mode::Token, LocalTrust::Socket);
    let with = |least: u32, most: u32, mode: &str| {
        let mut p = params(("cli", mode), &[], token(RIGHT));
        (p.min_protocol, p.max_protocol) = (least, most);
        stage.code(&tcp(None, false), &p)
    };
    assert_eq!([with(3, 4, "cli"), with(4, 9, "cli"), with(3, 3, "probe")], ["let in"; 3]);
    assert_eq!([with(3, 3, "cli"), with(5, 6, "probe")], ["PROTOCOL_MISMATCH"; 2]);
}

#[test]
fn a_device_of_the_operator_is_paired_at_once_and_every_other_waits() {
    let stage = stage(Mode::Token, LocalTrust::Socket);
    let asks = |scopes: &[&str], auth| signed(params(CLI, scopes, auth), 3, "operator");
    let own = stage.admit(&tcp(Some(OPERATOR), false), &asks(&["operator.read"], token(RIGHT))).unwrap();
    let (device_token, _) = own.device_token.unwrap();
    // From elsewhere it comes in by its own token, for what it was paired and no more.
    let auth = json!({"deviceToken": device_token.expose()});
    assert_eq!(stage.scopes(&remote("192.0.2.1"), &asks(&["operator.read"], auth.clone())).names(), ["operator.read"]);
    assert_eq!(stage.code(&remote("192.0.2.1"), &asks(&["operator.admin"], auth.clone())), "AUTH_SCOPE_MISMATCH");
    // Another device with that token, an unknown one, and one without a signature all look alike.
    let other = signed(params(CLI, &[], auth.clone()), 4, "operator");
    assert_eq!(stage.code(&remote("192.0.2.1"), &other), "AUTH_DEVICE_TOKEN_MISMATCH");
    assert_eq!(stage.code(&remote("192.0.2.1"), &params(CLI, &[], auth)), "AUTH_DEVICE_TOKEN_MISMATCH");
    let stranger = signed(params(CLI, &["operator.read"], token(RIGHT)), 5, "operator");
    assert_eq!(stage.code(&remote("192.0.2.1"), &stranger), "PAIRING_REQUIRED");
    assert_eq!(stage.code(&tcp(Some(4711), false), &stranger), "PAIRING_REQUIRED");
    assert_eq!(stage.code(&tcp(Some(OPERATOR), true), &stranger), "PAIRING_REQUIRED", "a browser");
    // A further role is never given silently.
    let node = signed(params(("node-host", "node"), &[], token(RIGHT)), 3, "node");
    assert_eq!(stage.code(&tcp(Some(OPERATOR), false), &node), "PAIRING_REQUIRED");
    let bare = params(("node-host", "node"), &[], token(RIGHT));
    let bare = ConnectParams { role: Some("node".into()), ..bare };
    assert_eq!(stage.code(&tcp(Some(OPERATOR), false), &bare), "DEVICE_IDENTITY_REQUIRED");
    let ui = params(("openclaw-control-ui", "ui"), &[], token(RIGHT));
    assert_eq!(stage.code(&tcp(Some(OPERATOR), false), &ui), "CONTROL_UI_DEVICE_IDENTITY_REQUIRED");
}

#[test]
fn what_a_proxys_users_may_hold_bounds_the_devices_that_come_through_it() {
    use crate::auth::registry::{Answer, Voucher, Wish};
    let stage = stage(reading_proxy(), LocalTrust::Socket);
    let asks = |auth| signed(params(CLI, &["operator.write", "operator.read"], auth), 3, "operator");
    let probe = asks(json!({}));
    let proven = device::verify(probe.device.as_ref().unwrap(), &probe, "nonce", 0).unwrap();
    let client = label(&probe);
    let wish = Wish {
        proven: &proven,
        role: Role::Operator,
        scopes: probe.scopes().unwrap(),
        client: &client,
        from: "x",
        source: "x",
    };
    let Ok(Answer::Entered(entered)) = stage.keeper.registry.admit(&wish, Voucher::Operator) else { panic!() };
    let own = asks(json!({"deviceToken": entered.token.expose()}));
    let via = through_proxy;
    assert_eq!(stage.scopes(&remote("192.0.2.1"), &own).names().len(), 2, "not through the proxy");
    assert_eq!(stage.scopes(&via(None), &own).names(), ["operator.read"]);
    assert_eq!(stage.scopes(&via(Some("ada@example.org")), &own).names(), ["operator.read"]);
    assert_eq!(stage.code(&via(Some("eve@example.org")), &own), "AUTH_VERIFIED_USER_REQUIRED");
}
