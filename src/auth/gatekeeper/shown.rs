//! What a connection shows: its credential, in the protocol's order (section 3.1), each guess charged once.

use super::{Gatekeeper, Mode, Owned};
use crate::auth::registry::{Answer, Entered, Wish};
use crate::auth::secret::Fit;
use crate::auth::tailnet::is_tailnet;
use crate::auth::throttle::{Client, Guessed};
use crate::auth::{LocalTrust, Needed, Peer, Refusal};
use crate::model::{Credential, Secret};
use crate::wire::AuthParams;

/// What a connection has shown.
pub(super) enum Shown {
    Credential(Credential),
    /// A setup code has paired it on the spot.
    Redeemed(Entered),
}

impl Gatekeeper {
    /// What proves the principal, in the protocol's order (section 3.1).
    pub(super) async fn shown(
        &self,
        peer: &Peer,
        auth: Option<&AuthParams>,
        wish: Option<&Wish<'_>>,
    ) -> Result<Shown, Refusal> {
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

    /// A user whom a trusted proxy or the tailnet names.
    pub(in crate::auth) async fn vouched(&self, peer: &Peer) -> Result<Option<Credential>, Refusal> {
        let ruled = self.rules();
        match (&ruled.mode, peer) {
            (Mode::TrustedProxy(rules), _) => match peer.via().map(|via| via.user.as_deref()) {
                Some(Some(user)) => {
                    rules.users.admit(user).map(Credential::Proxy).ok_or(Refusal::UserRefused).map(Some)
                }
                _ => Ok(None),
            },
            // Of this host's own addresses tailscaled says whose the host is, and not whose the process.
            (Mode::Tailnet(rules), Peer::Tcp { address, is_local: false, .. }) if is_tailnet(address.ip()) => {
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
    pub(super) fn unshown(&self, peer: &Peer) -> Result<Credential, Refusal> {
        let ruled = self.rules();
        if let Peer::Tcp { is_direct: true, local_uid, has_origin: false, via: None, .. } = peer {
            match ruled.local_trust {
                // Never root's sockets: tunnels and agents of clouds run as root.
                LocalTrust::SameUser if local_uid.is_some_and(|u| u != 0 && ruled.operators.contains(&u)) => {
                    return Ok(Credential::Local(*local_uid));
                }
                LocalTrust::Loopback => return Ok(Credential::Local(*local_uid)),
                _ => {}
            }
        }
        match &ruled.mode {
            Mode::None => Ok(Credential::Nobody),
            Mode::Token => Err(Refusal::Missing(Needed::Token)),
            Mode::Password => Err(Refusal::Missing(Needed::Password)),
            Mode::TrustedProxy(_) if peer.via().is_some() => Err(Refusal::IdentityHeaderRequired),
            Mode::Tailnet(_) => Err(Refusal::TailnetIdentityMissing),
            Mode::TrustedProxy(_) => Err(Refusal::Missing(Needed::Anything)),
        }
    }

    pub(super) async fn try_shared(
        &self,
        guess: &mut Guess<'_>,
        presented: &Secret<String>,
        field: Needed,
    ) -> Result<Credential, Refusal> {
        let (needed, credential, guessed) = match self.keyhole.is_password() {
            Some(true) => (Needed::Password, Credential::Password, Guessed::Password),
            Some(false) => (Needed::Token, Credential::SharedToken, Guessed::Random),
            // In mode "none" there is nothing to be wrong about.
            None if self.rules().mode == Mode::None => return Ok(Credential::Nobody),
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

    pub(super) async fn redeem(
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
    pub(super) async fn try_device_token(
        &self,
        peer: &Peer,
        wish: Option<&Wish<'_>>,
        presented: &Secret<String>,
    ) -> Result<Credential, Refusal> {
        let wrong = Refusal::Mismatch(Needed::DeviceToken);
        let ticks = self.clock.ticks();
        // Who has proved a paired key is known by it: its neighbours' guesses are not its own.
        let paired = wish.filter(|w| self.registry.device(&w.proven.id).is_some());
        let client = paired.map_or_else(|| peer.client(), |w| Client::Device(w.proven.id.clone()));
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
}

/// One guess of one peer: charged once, whatever it is tried at, and given back when it was none.
pub(super) struct Guess<'a> {
    keeper: &'a Gatekeeper,
    client: Client,
    is_own: bool,
    ticks: u64,
    charged: Option<Guessed>,
}

impl<'a> Guess<'a> {
    pub(super) fn of(keeper: &'a Gatekeeper, peer: &Peer) -> Self {
        Guess {
            keeper,
            client: peer.client(),
            is_own: keeper.is_operators_own(peer),
            ticks: keeper.clock.ticks(),
            charged: None,
        }
    }

    pub(super) fn charge(&mut self, guessed: Guessed) -> Result<(), Refusal> {
        self.keeper.throttle.charge(&self.client, guessed, self.is_own, self.ticks).map_err(limited)?;
        self.charged = Some(guessed);
        Ok(())
    }

    pub(super) fn give_back(&mut self) {
        if let Some(guessed) = self.charged.take() {
            self.keeper.throttle.give_back(&self.client, guessed, self.is_own, self.ticks);
        }
    }
}

pub(super) fn limited(retry_after_ms: u64) -> Refusal {
    Refusal::RateLimited { retry_after_ms }
}

/// Of two refusals the one to tell: a lock before everything, else the later and more special one.
pub(super) fn first(before: Option<Refusal>, why: Refusal) -> Refusal {
    match before {
        Some(locked @ Refusal::RateLimited { .. }) => locked,
        _ => why,
    }
}
