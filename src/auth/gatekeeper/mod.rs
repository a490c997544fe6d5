//! Decides who gets in: finds the credential, then what its record holds.
//!
//! A credential says who; it opens nothing by itself. Scopes come from the kernel's word that the other end is
//! the operator's own, from a device's pairing, or from what the configuration gives a user whom a proxy or
//! the tailnet vouches for.

mod requests;
mod shown;

use super::device::{self, Proven};
use super::proxy::ProxyRules;
use super::registry::{Answer, Entered, PairingFault, Registry, Voucher, Wish};
use super::secret::{Keyhole, Shared};
use super::tailnet::TailnetRules;
use super::throttle::{Guessed, Throttle};
use super::{ClientLabel, LocalTrust, Peer, Refusal, Session, Surface, label};
use crate::model::{Clock, ConnId, Credential, Principal, Role, ScopeSet, Secret, UnixMillis};
use crate::wire::{ConnectParams, LEAST_PROBE_PROTOCOL, PROTOCOL};
use shown::{Guess, Shown, limited};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

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

/// What the configuration says of who gets in; may be replaced while others come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) mode: Mode,
    pub(crate) local_trust: LocalTrust,
    /// Root, our own uid, and those the operator named.
    pub(crate) operators: Vec<u32>,
}

impl Rules {
    fn admits_uid(&self, uid: u32) -> bool {
        uid == 0 || (self.local_trust != LocalTrust::Off && self.operators.contains(&uid))
    }

    /// Whether somebody who came in by this would still do so.
    fn admit_still(&self, credential: &Credential) -> bool {
        match (credential, &self.mode) {
            (Credential::PeerUid(uid), _) => self.admits_uid(*uid),
            (Credential::Local(uid), _) => match self.local_trust {
                LocalTrust::Loopback => true,
                LocalTrust::SameUser => uid.is_some_and(|uid| self.operators.contains(&uid)),
                LocalTrust::Socket | LocalTrust::Off => false,
            },
            (Credential::Proxy(user), Mode::TrustedProxy(rules)) => rules.users.admit(user).is_some(),
            (Credential::Tailnet(user), Mode::Tailnet(rules)) => rules.users.admit(user).is_some(),
            _ => true,
        }
    }
}

/// Decides who gets in. Shared by all connections.
pub(crate) struct Gatekeeper {
    rules: RwLock<Arc<Rules>>,
    keyhole: Keyhole,
    throttle: Arc<Throttle>,
    pub(in crate::auth) registry: Arc<Registry>,
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

impl Gatekeeper {
    /// `key` is random for this process; digests of secrets are made with it.
    pub(crate) fn new(
        key: [u8; 32],
        rules: Rules,
        secret: Option<Shared>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let keyhole = Keyhole::new(key, secret);
        let (throttle, epoch) = (Arc::default(), AtomicU64::new(0));
        Gatekeeper { rules: RwLock::new(Arc::new(rules)), keyhole, throttle, registry, clock, epoch }
    }

    /// The rules as they are now.
    pub(in crate::auth) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these hold. Of the same kind of mode: the secret of another is not at hand.
    /// Says whether they are others than before.
    pub(crate) fn replace_rules(&self, rules: Rules) -> bool {
        debug_assert_eq!(std::mem::discriminant(&rules.mode), std::mem::discriminant(&self.rules().mode));
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let changed = **current != rules;
        *current = Arc::new(rules);
        changed
    }

    /// Who is paired.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// Whether somebody of this uid is an operator or a proxy, for whom the unix socket is.
    pub(crate) fn expects(&self, uid: u32) -> bool {
        self.rules().operators.contains(&uid) || self.proxy_rules().is_some_and(|rules| rules.uids.contains(&uid))
    }

    /// How a proxy is told from anybody else, where there may be one.
    pub(crate) fn proxy_rules(&self) -> Option<ProxyRules> {
        match &self.rules().mode {
            Mode::TrustedProxy(rules) => Some(rules.clone()),
            _ => None,
        }
    }

    /// From now on this is the token; the old one opens nothing any more.
    pub(crate) fn replace_token(&self, token: &Secret<String>) {
        if self.rules().mode == Mode::Token {
            self.keyhole.replace(Shared::Token(self.keyhole.digest(token.expose())));
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on the password is the one with this hash.
    pub(crate) fn replace_password(&self, hash: String) {
        if self.rules().mode == Mode::Password {
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
        self.rules().admit_still(&session.principal.credential)
            && session.grant.as_ref().is_none_or(|grant| self.registry.stands(grant))
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
            Some(entered) => entered.scopes.within(self.most(peer, &credential)),
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

    fn admits_uid(&self, uid: u32) -> bool {
        self.rules().admits_uid(uid)
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
        let answer = match self.write(move |registry| registry.admit(&owned.lend(), voucher)).await {
            Ok(answer) => answer,
            Err(why) => {
                guess.give_back();
                return Err(why);
            }
        };
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
            Credential::Proxy(_) | Credential::Tailnet(_) => return Ok(self.most(peer, credential)),
            _ => {}
        }
        if proven.is_none() && matches!(params.client.id.as_str(), "openclaw-control-ui" | "openclaw-tui") {
            return Err(Refusal::UiDeviceRequired);
        }
        // Without a device only the original's own command line keeps its scopes (protocol 3.4).
        let own = self.is_own(peer, credential) && is_command_line(params);
        Ok(if own { ScopeSet::operator() } else { ScopeSet::EMPTY })
    }

    /// The most that anybody may hold who comes this way, whatever a pairing says. Agents are bounded by their name.
    pub(in crate::auth) fn most(&self, peer: &Peer, credential: &Credential) -> ScopeSet {
        let agents = ScopeSet::agent();
        match &self.rules().mode {
            Mode::TrustedProxy(rules) if peer.via().is_some() => rules.scopes.union(agents),
            Mode::Tailnet(rules) if matches!(credential, Credential::Tailnet(_)) || self.is_on_tailnet(peer) => {
                rules.scopes.union(agents)
            }
            _ => ScopeSet::all(),
        }
    }

    fn is_on_tailnet(&self, peer: &Peer) -> bool {
        matches!(peer, Peer::Tcp { address, is_local: false, .. } if super::is_tailnet(address.ip()))
    }

    /// Whether what a credential leaves open is given by the kernel's word. Without any credential never for root's
    /// sockets: tunnels and agents of clouds run as root.
    fn is_own(&self, peer: &Peer, credential: &Credential) -> bool {
        self.is_operators_own(peer) && !(*credential == Credential::Nobody && peer.own_uid() == Some(0))
    }

    /// Whether the kernel says that the other end is the operator's own process, speaking for itself.
    pub(crate) fn is_operators_own(&self, peer: &Peer) -> bool {
        let rules = self.rules();
        rules.local_trust != LocalTrust::Off && peer.own_uid().is_some_and(|uid| rules.operators.contains(&uid))
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
mod tests;
