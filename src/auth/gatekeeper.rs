//! Decides who gets in: finds the credential, then what its record holds.
//!
//! A credential says who; it opens nothing by itself. Scopes come from the kernel's word that the other end is
//! the operator's own, from a device's pairing, or from what the configuration gives a user whom a proxy or
//! the tailnet vouches for.

use super::device::{self, Proven};
use super::proxy::ProxyRules;
use super::registry::{Answer, Entered, Grant, PairingFault, Registry, Voucher, Wish};
use super::secret::{Fit, Keyhole, Shared};
use super::tailnet::{TailnetRules, is_tailnet};
use super::throttle::{Guessed, Throttle};
use super::{ClientLabel, LocalTrust, Needed, Peer, Refusal, Session, Surface, label};
use crate::model::{Clock, ConnId, Credential, Principal, Role, ScopeSet, Secret, UnixMillis};
use crate::wire::{AuthParams, ConnectParams, LEAST_PROBE_PROTOCOL, PROTOCOL};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What somebody beyond the unix socket must show (`gateway.auth.mode`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Token,
    Password,
    TrustedProxy(ProxyRules),
    Tailnet(TailnetRules),
    /// Nothing; on loopback alone.
    None,
}

/// Decides who gets in. Shared by all connections.
pub(crate) struct Gatekeeper {
    mode: Mode,
    keyhole: Keyhole,
    local_trust: LocalTrust,
    /// Root, our own uid, and those the operator named.
    operators: Vec<u32>,
    throttle: Arc<Throttle>,
    pub(super) registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    /// Counts replacements of the shared secret.
    epoch: AtomicU64,
}

/// A session, and what a paired device is told with its greeting.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) session: Session,
    pub(crate) device_token: Option<(Secret<String>, UnixMillis)>,
}

/// What a connection has shown.
enum Shown {
    Credential(Credential),
    /// A setup code has paired it on the spot.
    Redeemed(Entered),
}

impl Gatekeeper {
    /// `key` is random for this process; digests of secrets are made with it.
    pub(crate) fn new(
        key: [u8; 32],
        mode: Mode,
        secret: Option<Shared>,
        local: (LocalTrust, Vec<u32>),
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (local_trust, operators) = local;
        let keyhole = Keyhole::new(key, secret);
        let (throttle, epoch) = (Arc::default(), AtomicU64::new(0));
        Gatekeeper { mode, keyhole, local_trust, operators, throttle, registry, clock, epoch }
    }

    /// Who is paired.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// How a proxy is told from anybody else, where there may be one.
    pub(crate) fn proxy_rules(&self) -> Option<&ProxyRules> {
        match &self.mode {
            Mode::TrustedProxy(rules) => Some(rules),
            _ => None,
        }
    }

    /// From now on this is the token; the old one opens nothing any more.
    pub(crate) fn replace_token(&self, token: &Secret<String>) {
        if self.mode == Mode::Token {
            self.keyhole.replace(Shared::Token(self.keyhole.digest(token.expose())));
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on the password is the one with this hash.
    pub(crate) fn replace_password(&self, hash: String) {
        if self.mode == Mode::Password {
            self.keyhole.replace(Shared::Password(hash, None));
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The digest of a token, as the keyhole keeps it.
    pub(crate) fn token_digest(key: &[u8; 32], token: &Secret<String>) -> Shared {
        Shared::Token(crate::crypto::SecretDigest::of(key, token.expose()))
    }

    /// Whether what a session rests on still holds. Looked at once more after it has joined the others, so that a
    /// revocation in between is not missed.
    pub(crate) fn stands(&self, session: &Session) -> bool {
        let shared = matches!(session.principal.credential, Credential::SharedToken | Credential::Password);
        if shared && session.epoch != self.epoch.load(Ordering::Acquire) {
            return false;
        }
        session.grant.as_ref().is_none_or(|grant| self.registry.stands(grant))
    }

    /// Judges a `connect`.
    ///
    /// # Errors
    /// Why not; the connection ends with it.
    pub(crate) async fn admit(
        &self,
        conn: ConnId,
        peer: &Peer,
        nonce: &str,
        params: &ConnectParams,
        now: UnixMillis,
    ) -> Result<Admitted, Refusal> {
        let role = params.role().ok_or(Refusal::UnknownRole)?;
        check_protocol(params, role)?;
        let asked = params.scopes().map_err(|unknown| Refusal::UnknownScope(unknown.to_owned()))?;
        if role == Role::Node && asked != ScopeSet::EMPTY {
            return Err(Refusal::UnknownScope("for a node".into()));
        }
        // Read before the secret is looked at: one that is replaced meanwhile makes the session fall.
        let epoch = self.epoch.load(Ordering::Acquire);
        let proven = params.device.as_ref().map(|d| device::verify(d, params, nonce, now)).transpose()?;
        let client = label(params);
        let source = proven_source(peer);
        let from = peer.label();
        let wish = proven.as_ref().map(|proven| Wish {
            proven,
            role,
            scopes: asked,
            client: &client,
            from: &from,
            source: &source,
        });
        let shown = self.shown(peer, params.auth.as_ref(), wish.as_ref()).await?;
        let (credential, entered) = match shown {
            Shown::Redeemed(entered) => (Credential::SetupCode, Some(entered)),
            Shown::Credential(credential) => {
                let entered = self.entered(peer, &credential, wish.as_ref(), role).await?;
                (credential, entered)
            }
        };
        let record = match &entered {
            Some(entered) => entered.scopes.within(self.most(&credential)),
            None => self.scopes_without_pairing(peer, &credential, params, proven.as_ref())?,
        };
        let surface =
            (role == Role::Node).then(|| Surface::of(&params.caps, params.commands.as_deref().unwrap_or_default()));
        if let (Some(surface), Some(proven)) = (&surface, &proven) {
            self.declare(proven, &client, surface).await?;
        }
        let principal = Principal {
            role,
            // With a setup code a device gets what the code grants, whatever it asked for.
            scopes: if credential == Credential::SetupCode { record } else { asked.within(record) },
            credential,
            device: proven.map(|p| p.id),
            agent: entered.as_ref().and_then(|e| e.agent.clone()),
        };
        let (grant, device_token) = match entered {
            Some(entered) => (Some(entered.grant), Some((entered.token, entered.issued))),
            None => (None, None),
        };
        let session = Session { conn, principal, peer: peer.clone(), client, since: now, grant, surface, epoch };
        Ok(Admitted { session, device_token })
    }

    /// What proves the principal, in the protocol's order (section 3.1).
    async fn shown(&self, peer: &Peer, auth: Option<&AuthParams>, wish: Option<&Wish<'_>>) -> Result<Shown, Refusal> {
        if let Peer::Unix { uid, via: None } = peer
            && self.admits_uid(*uid)
        {
            return Ok(Shown::Credential(Credential::PeerUid(*uid)));
        }
        if let Some(credential) = self.vouched(peer).await? {
            return Ok(Shown::Credential(credential));
        }
        let text = |secret: &Option<String>| {
            secret.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned()))
        };
        // The shared secret is taken from either field, as the original does.
        let as_token = auth.and_then(|a| text(&a.token));
        let field = if as_token.is_some() { Needed::Token } else { Needed::Password };
        let shared = as_token.or_else(|| auth.and_then(|a| text(&a.password)));
        let code = auth.and_then(|a| text(&a.bootstrap_token));
        let token = auth.and_then(|a| text(&a.device_token));
        if shared.is_none() && code.is_none() && token.is_none() {
            return self.unshown(peer).map(Shown::Credential);
        }
        let mut refusal = None;
        let mut guessed = Guess::of(self, peer);
        if let Some(shared) = &shared {
            match self.try_shared(&mut guessed, shared, field).await {
                Ok(credential) => return Ok(Shown::Credential(credential)),
                Err(why) => refusal = Some(why),
            }
        }
        if let Some(code) = &code {
            match self.redeem(peer, wish, code).await {
                Ok(entered) => return Ok(Shown::Redeemed(entered)),
                Err(why) => refusal = Some(first(refusal, why)),
            }
        }
        // A device may present its own token as the shared one; of anybody else that was one guess, not two.
        let is_paired = wish.is_some_and(|w| self.registry.device(&w.proven.id).is_some());
        if let Some(presented) = token.as_ref().or(shared.as_ref().filter(|_| is_paired)) {
            match self.try_device_token(peer, wish, presented).await {
                Ok(credential) => {
                    // It was no guess at the shared secret, but a device's token in that field.
                    if token.is_none() {
                        guessed.give_back();
                    }
                    return Ok(Shown::Credential(credential));
                }
                // Whoever presented it as the shared secret is told about that one.
                Err(why) if token.is_some() => refusal = Some(first(refusal, why)),
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or(Refusal::Missing(Needed::Anything)))
    }

    fn admits_uid(&self, uid: u32) -> bool {
        uid == 0 || (self.local_trust != LocalTrust::Off && self.operators.contains(&uid))
    }

    /// A user whom a trusted proxy or the tailnet names.
    async fn vouched(&self, peer: &Peer) -> Result<Option<Credential>, Refusal> {
        match (&self.mode, peer) {
            (Mode::TrustedProxy(rules), _) => match peer.via().map(|via| via.user.as_deref()) {
                Some(Some(user)) => {
                    rules.users.admit(user).map(Credential::Proxy).ok_or(Refusal::UserRefused).map(Some)
                }
                _ => Ok(None),
            },
            (Mode::Tailnet(rules), Peer::Tcp { address, .. }) if is_tailnet(address.ip()) => {
                let login = rules.whois(*address).await.map_err(|error| {
                    tracing::warn!(%error, "tailscaled cannot be asked who a peer is");
                    Refusal::TailnetWhoisFailed
                })?;
                match login.filter(|login| !login.is_empty()) {
                    None => Err(Refusal::TailnetIdentityMissing),
                    Some(login) => {
                        rules.users.admit(&login).map(Credential::Tailnet).ok_or(Refusal::UserRefused).map(Some)
                    }
                }
            }
            _ => Ok(None),
        }
    }

    /// Somebody who shows nothing.
    fn unshown(&self, peer: &Peer) -> Result<Credential, Refusal> {
        if let Peer::Tcp { is_direct: true, local_uid, has_origin: false, via: None, .. } = peer {
            match self.local_trust {
                // Never root's sockets: tunnels and agents of clouds run as root.
                LocalTrust::SameUser if local_uid.is_some_and(|u| u != 0 && self.operators.contains(&u)) => {
                    return Ok(Credential::Local(*local_uid));
                }
                LocalTrust::Loopback => return Ok(Credential::Local(*local_uid)),
                _ => {}
            }
        }
        match &self.mode {
            Mode::None => Ok(Credential::Nobody),
            Mode::Token => Err(Refusal::Missing(Needed::Token)),
            Mode::Password => Err(Refusal::Missing(Needed::Password)),
            Mode::TrustedProxy(_) if peer.via().is_some() => Err(Refusal::IdentityHeaderRequired),
            Mode::Tailnet(_) => Err(Refusal::TailnetIdentityMissing),
            Mode::TrustedProxy(_) => Err(Refusal::Missing(Needed::Anything)),
        }
    }

    async fn try_shared(
        &self,
        guess: &mut Guess<'_>,
        presented: &Secret<String>,
        field: Needed,
    ) -> Result<Credential, Refusal> {
        let (needed, credential, guessed) = match self.keyhole.is_password() {
            Some(true) => (Needed::Password, Credential::Password, Guessed::Password),
            Some(false) => (Needed::Token, Credential::SharedToken, Guessed::Random),
            // In mode "none" there is nothing to be wrong about.
            None if self.mode == Mode::None => return Ok(Credential::Nobody),
            None => return Err(Refusal::NotConfigured(field)),
        };
        guess.charge(guessed)?;
        match self.keyhole.fits(presented.expose()).await {
            Fit::Right => {
                guess.give_back();
                Ok(credential)
            }
            Fit::Wrong => Err(Refusal::Mismatch(needed)),
            Fit::Busy => {
                guess.give_back();
                Err(Refusal::RateLimited { retry_after_ms: 1_000 })
            }
        }
    }

    async fn redeem(
        &self,
        peer: &Peer,
        wish: Option<&Wish<'_>>,
        presented: &Secret<String>,
    ) -> Result<Entered, Refusal> {
        let wish = wish.ok_or(Refusal::DeviceIdentityRequired)?;
        let mut guess = Guess::of(self, peer);
        guess.charge(Guessed::Random)?;
        let (wish, code) = (Owned::of(wish), presented.expose().clone());
        match self.write(move |registry| registry.redeem(&wish.lend(), &code)).await? {
            Some(Answer::Entered(entered)) => {
                guess.give_back();
                Ok(entered)
            }
            _ => Err(Refusal::Mismatch(Needed::SetupCode)),
        }
    }

    /// A paired device's own token: only with the signature of that device.
    async fn try_device_token(
        &self,
        peer: &Peer,
        wish: Option<&Wish<'_>>,
        presented: &Secret<String>,
    ) -> Result<Credential, Refusal> {
        let wrong = Refusal::Mismatch(Needed::DeviceToken);
        let ticks = self.clock.ticks();
        // Who has proved a paired key is known by it: its neighbours' guesses are not its own.
        let paired = wish.filter(|w| self.registry.device(&w.proven.id).is_some());
        let client = paired.map_or_else(|| peer.client(), |w| super::throttle::Client::Device(w.proven.id.clone()));
        self.throttle.charge_client(&client, ticks).map_err(limited)?;
        let Some(wish) = paired else { return Err(wrong) };
        let (device, role) = (&wish.proven.id, wish.role);
        if !self.registry.is_token(device, role, presented.expose()) {
            return Err(wrong);
        }
        self.throttle.give_back_client(&client, ticks);
        if self.registry.ends_overlap(device, role, presented.expose()) {
            let (device, presented) = (device.clone(), Secret::new(presented.expose().clone()));
            self.write(move |registry| registry.end_overlap(&device, role, presented.expose())).await?;
        }
        Ok(Credential::DeviceToken)
    }

    /// What pairing gives, where this principal comes in by it.
    async fn entered(
        &self,
        peer: &Peer,
        credential: &Credential,
        wish: Option<&Wish<'_>>,
        role: Role,
    ) -> Result<Option<Entered>, Refusal> {
        let Some(wish) = wish else {
            return if role == Role::Node { Err(Refusal::DeviceIdentityRequired) } else { Ok(None) };
        };
        // The operator on the unix socket, or trusted by the operator's word, needs no pairing; a node always does.
        if role == Role::Operator && matches!(credential, Credential::PeerUid(_) | Credential::Local(_)) {
            return Ok(None);
        }
        if let Some(entered) = self.registry.enter(wish) {
            return Ok(Some(entered));
        }
        let own = match credential {
            Credential::PeerUid(_) | Credential::Local(_) => true,
            // A device's own token says nothing of who carries it here: a forwarder's socket is the operator's too.
            Credential::DeviceToken | Credential::SetupCode => false,
            other => self.is_own(peer, other),
        };
        let asks_for_more = *credential == Credential::DeviceToken && self.registry.asks_for_more(wish);
        let owned = Owned::of(wish);
        let voucher = if own { Voucher::Operator } else { Voucher::Nobody };
        // A request that is new costs a record and a place: as many as guesses, and no more.
        let mut guess = Guess::of(self, peer);
        guess.charge(Guessed::Random)?;
        let answer = self.write(move |registry| registry.admit(&owned.lend(), voucher)).await?;
        if !matches!(&answer, Answer::Waiting(waiting) if waiting.is_new) {
            guess.give_back();
        }
        match answer {
            Answer::Entered(entered) => Ok(Some(entered)),
            Answer::Waiting(waiting) if asks_for_more => Err(Refusal::ScopeMismatch(Box::new(waiting))),
            Answer::Waiting(waiting) => Err(Refusal::PairingRequired(Box::new(waiting))),
        }
    }

    /// The scopes on record for a credential without a pairing, from this place.
    fn scopes_without_pairing(
        &self,
        peer: &Peer,
        credential: &Credential,
        params: &ConnectParams,
        proven: Option<&Proven>,
    ) -> Result<ScopeSet, Refusal> {
        match credential {
            Credential::PeerUid(_) | Credential::Local(_) => return Ok(ScopeSet::operator()),
            Credential::Proxy(_) | Credential::Tailnet(_) => return Ok(self.most(credential)),
            _ => {}
        }
        if proven.is_none() && matches!(params.client.id.as_str(), "openclaw-control-ui" | "openclaw-tui") {
            return Err(Refusal::UiDeviceRequired);
        }
        // Without a device only the original's own command line keeps its scopes (protocol 3.4).
        let own = self.is_own(peer, credential) && is_command_line(params);
        Ok(if own { ScopeSet::operator() } else { ScopeSet::EMPTY })
    }

    /// The most that this credential may carry, whatever a pairing says.
    fn most(&self, credential: &Credential) -> ScopeSet {
        match (credential, &self.mode) {
            (Credential::Proxy(_), Mode::TrustedProxy(rules)) => rules.scopes,
            (Credential::Tailnet(_), Mode::Tailnet(rules)) => rules.scopes,
            _ => ScopeSet::all(),
        }
    }

    /// Whether what a credential leaves open is given by the kernel's word. Without any credential never for root's
    /// sockets: tunnels and agents of clouds run as root.
    fn is_own(&self, peer: &Peer, credential: &Credential) -> bool {
        self.is_operators_own(peer) && !(*credential == Credential::Nobody && peer.own_uid() == Some(0))
    }

    /// Whether the kernel says that the other end is the operator's own process, speaking for itself.
    pub(crate) fn is_operators_own(&self, peer: &Peer) -> bool {
        self.local_trust != LocalTrust::Off && peer.own_uid().is_some_and(|uid| self.operators.contains(&uid))
    }

    async fn declare(&self, proven: &Proven, client: &ClientLabel, surface: &Surface) -> Result<(), Refusal> {
        let (device, client, surface) = (proven.id.clone(), client.clone(), surface.clone());
        let node = super::throttle::Client::Device(device.clone());
        self.throttle.charge_client(&node, self.clock.ticks()).map_err(limited)?;
        let is_new = self.write(move |registry| registry.declare(&device, &client, &surface)).await?;
        if !is_new {
            self.throttle.give_back_client(&node, self.clock.ticks());
        }
        Ok(())
    }

    /// Changes the registry off the async threads.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Registry) -> Result<T, PairingFault> + Send + 'static,
    ) -> Result<T, Refusal> {
        let registry = Arc::clone(&self.registry);
        match tokio::task::spawn_blocking(move || change(&registry)).await {
            Ok(Ok(changed)) => Ok(changed),
            Ok(Err(PairingFault::Full)) => Err(Refusal::RateLimited { retry_after_ms: 60_000 }),
            Ok(Err(error)) => {
                tracing::error!(%error, "a pairing could not be kept");
                Err(Refusal::Unavailable)
            }
            Err(_) => Err(Refusal::Unavailable),
        }
    }

    /// A session for one signed HTTP request of a paired device.
    pub(super) fn session_of(
        &self,
        conn: ConnId,
        peer: &Peer,
        grant: Grant,
        scopes: ScopeSet,
        agent: Option<crate::model::AgentId>,
    ) -> Session {
        let principal = Principal {
            role: grant.role,
            credential: Credential::DeviceToken,
            device: Some(grant.device.clone()),
            scopes,
            agent,
        };
        self.http_session(conn, peer, principal, Some(grant))
    }

    pub(super) fn http_session(
        &self,
        conn: ConnId,
        peer: &Peer,
        principal: Principal,
        grant: Option<Grant>,
    ) -> Session {
        let client = ClientLabel { id: "http".into(), mode: "http".into(), ..Default::default() };
        let epoch = self.epoch.load(Ordering::Acquire);
        let since = self.clock.now();
        Session { conn, principal, peer: peer.clone(), client, since, grant, surface: None, epoch }
    }

    /// A session for one HTTP request that is not signed: from this host alone, with what such a peer shows there.
    ///
    /// # Errors
    /// Why not. From beyond the host only a signature opens.
    pub(crate) async fn admit_bearer(
        &self,
        conn: ConnId,
        peer: &Peer,
        bearer: Option<&str>,
    ) -> Result<Session, Refusal> {
        let from_here = matches!(peer, Peer::Unix { via: None, .. }) || self.is_operators_own(peer);
        let trusted = matches!(peer, Peer::Tcp { is_direct: true, .. }) && self.local_trust == LocalTrust::Loopback;
        if !from_here && !trusted {
            return Err(Refusal::Mismatch(Needed::Anything));
        }
        let auth = AuthParams { token: bearer.map(ToOwned::to_owned), ..Default::default() };
        let Shown::Credential(credential) = self.shown(peer, Some(&auth), None).await? else {
            return Err(Refusal::Mismatch(Needed::Anything));
        };
        let full =
            matches!(credential, Credential::PeerUid(_) | Credential::Local(_)) || self.is_own(peer, &credential);
        let scopes = if full { ScopeSet::operator() } else { ScopeSet::EMPTY };
        let principal = Principal { role: Role::Operator, credential, device: None, scopes, agent: None };
        Ok(self.http_session(conn, peer, principal, None))
    }
}

/// One guess of one peer: charged once, whatever it is tried at, and given back when it was none.
struct Guess<'a> {
    keeper: &'a Gatekeeper,
    client: super::throttle::Client,
    is_own: bool,
    ticks: u64,
    charged: Option<Guessed>,
}

impl<'a> Guess<'a> {
    fn of(keeper: &'a Gatekeeper, peer: &Peer) -> Self {
        Guess {
            keeper,
            client: peer.client(),
            is_own: keeper.is_operators_own(peer),
            ticks: keeper.clock.ticks(),
            charged: None,
        }
    }

    fn charge(&mut self, guessed: Guessed) -> Result<(), Refusal> {
        self.keeper.throttle.charge(&self.client, guessed, self.is_own, self.ticks).map_err(limited)?;
        self.charged = Some(guessed);
        Ok(())
    }

    fn give_back(&mut self) {
        if let Some(guessed) = self.charged.take() {
            self.keeper.throttle.give_back(&self.client, guessed, self.is_own, self.ticks);
        }
    }
}

/// A wish that can be taken to another thread.
struct Owned {
    proven: Proven,
    role: Role,
    scopes: ScopeSet,
    client: ClientLabel,
    from: String,
    source: String,
}

impl Owned {
    fn of(wish: &Wish<'_>) -> Self {
        Owned {
            proven: wish.proven.clone(),
            role: wish.role,
            scopes: wish.scopes,
            client: wish.client.clone(),
            from: wish.from.to_owned(),
            source: wish.source.to_owned(),
        }
    }

    fn lend(&self) -> Wish<'_> {
        Wish {
            proven: &self.proven,
            role: self.role,
            scopes: self.scopes,
            client: &self.client,
            from: &self.from,
            source: &self.source,
        }
    }
}

/// Whose share of the waiting room a peer takes.
fn proven_source(peer: &Peer) -> String {
    format!("{:?}", peer.client())
}

fn limited(retry_after_ms: u64) -> Refusal {
    Refusal::RateLimited { retry_after_ms }
}

/// Of two refusals the one to tell: a lock before everything, else the later and more special one.
fn first(before: Option<Refusal>, why: Refusal) -> Refusal {
    match before {
        Some(locked @ Refusal::RateLimited { .. }) => locked,
        _ => why,
    }
}

fn is_command_line(params: &ConnectParams) -> bool {
    matches!((params.client.id.as_str(), params.client.mode.as_str()), ("cli", "cli") | ("gateway-client", "backend"))
}

fn check_protocol(params: &ConnectParams, role: Role) -> Result<(), Refusal> {
    let (least, most) = (params.min_protocol, params.max_protocol);
    let offered = |version| (least..=most).contains(&version);
    let lenient = params.client.mode == "probe" || (role == Role::Node && params.client.mode == "node");
    if offered(PROTOCOL) || (lenient && offered(LEAST_PROBE_PROTOCOL)) {
        return Ok(());
    }
    Err(Refusal::Protocol { least, most })
}

#[cfg(test)]
mod tests {
    use super::super::proxy::{AllowedUsers, Proxied};
    use super::super::registry::RegistryParts;
    use super::super::testing::{Held, journal};
    use super::*;
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
        _journal: super::super::testing::Folder,
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
        let registry = Arc::new(Registry::open(parts, Secret::new([7; 32])).unwrap());
        let key = [1; 32];
        let secret = (mode == Mode::Token).then(|| Gatekeeper::token_digest(&key, &Secret::new(RIGHT.to_owned())));
        let keeper = Gatekeeper::new(key, mode, secret, (trust, vec![0, OPERATOR]), registry, clock.clone());
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
        Peer::Tcp { address, is_direct: local_uid.is_some(), local_uid, has_origin, via: None }
    }

    fn remote(ip: &str) -> Peer {
        let address = SocketAddr::new(ip.parse().unwrap(), 5);
        Peer::Tcp { address, is_direct: false, local_uid: None, has_origin: false, via: None }
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

    #[test]
    fn a_right_token_opens_and_every_other_answers_alike() {
        for wrong in ["x", "right token of this tes", "right token of this test2", "undefined"] {
            let stage = stage(Mode::Token, LocalTrust::Socket);
            assert_eq!(
                stage.code(&tcp(None, false), &params(CLI, &[], token(wrong))),
                "AUTH_TOKEN_MISMATCH",
                "{wrong}"
            );
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
        let rules = ProxyRules {
            networks: vec!["10.0.0.1/32".parse().unwrap()],
            uids: vec![],
            shows_certificate: false,
            user_header: "x-forwarded-user".into(),
            users: AllowedUsers::parse(&["ada@example.org".into()]).unwrap(),
            scopes: [crate::model::Scope::Read].into_iter().collect(),
        };
        let stage = stage(Mode::TrustedProxy(rules), LocalTrust::Socket);
        let via = |user: Option<&str>| Peer::Tcp {
            address: "10.0.0.1:9".parse().unwrap(),
            is_direct: false,
            local_uid: None,
            has_origin: false,
            via: Some(Proxied { client: "203.0.113.9".parse().unwrap(), user: user.map(ToOwned::to_owned) }),
        };
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
        assert_eq!(
            stage.scopes(&remote("192.0.2.1"), &asks(&["operator.read"], auth.clone())).names(),
            ["operator.read"]
        );
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
}
