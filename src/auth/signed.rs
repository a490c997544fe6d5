//! Signed HTTP requests: HTTP Message Signatures (RFC 9421) with hmac-sha256 and Content-Digest (RFC 9530).
//!
//! A paired device signs method, authority, path and body with a key derived from its token. Each nonce is good
//! once, also after a restart and after the clock was set back: a nonce that is forgotten leaves a floor behind,
//! and nothing made at or before the floor is taken any more.

use super::gatekeeper::Gatekeeper;
use super::registry::{Grant, PairingFault, Registry};
use super::{Needed, Peer, Refusal, Session};
use crate::crypto;
use crate::model::{ConnId, Credential, DeviceId, Role, Secret};
use crate::store::{Changes, NonceRecord, ReplayFloor, Store, StoreFault};
use sfv::{BareItem, Dictionary, FieldType, InnerList, ListEntry, Parser};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Seconds that a request may be old, and that a clock may be ahead.
const OLDEST: u64 = 300;
const AHEAD: u64 = 60;

/// Nonces of one key in one window.
const MOST_NONCES: usize = 4096;

/// What every signature covers, in this order.
const COVERED: [&str; 4] = ["@method", "@authority", "@path", "content-digest"];

/// The key for signatures: derived from the device's token, so that neither stands for the other (TOK-10).
pub(crate) fn signing_key(token: &str) -> Secret<[u8; 32]> {
    Secret::new(crypto::hmac_sha256(token.as_bytes(), &[b"vambrace-http-signature"]))
}

/// The parts of a request's head that a signature is about. Each header once, or the request is not read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedHead<'h> {
    pub(crate) method: &'h str,
    /// The Host header, in lower case.
    pub(crate) authority: &'h str,
    /// Without a query; a request with one is not signed.
    pub(crate) path: &'h str,
    pub(crate) signature_input: &'h str,
    pub(crate) signature: &'h str,
    pub(crate) content_digest: &'h str,
}

/// A head whose signature is right; its body is still to come.
#[derive(Debug)]
pub(crate) struct SignedRequest {
    key: String,
    nonce: String,
    created: u64,
    digest: Vec<u8>,
    grant: Grant,
}

/// Whether a request claims to be signed.
pub(crate) fn is_signed(has: &dyn Fn(&str) -> bool) -> bool {
    has("signature") || has("signature-input")
}

/// What a signature's parameters say.
#[derive(Debug, PartialEq, Eq)]
struct Parameters {
    label: String,
    /// The parameters as they stand, which is how they are signed.
    text: String,
    created: u64,
    expires: Option<u64>,
    device: String,
    nonce: String,
}

/// Reads a field in its one canonical spelling: a duplicate or an oddity would be written otherwise.
fn dictionary(text: &str) -> Option<Dictionary> {
    let read: Dictionary = Parser::new(text).parse().ok()?;
    (read.serialize().as_deref() == Some(text)).then_some(read)
}

fn parameters(text: &str) -> Option<Parameters> {
    let fields = dictionary(text).filter(|fields| fields.len() == 1)?;
    let (label, entry) = fields.iter().next()?;
    let ListEntry::InnerList(list) = entry else { return None };
    covers_all(list).then_some(())?;
    let mut found = Parameters {
        label: label.as_str().to_owned(),
        text: text.split_once('=')?.1.to_owned(),
        created: 0,
        expires: None,
        device: String::new(),
        nonce: String::new(),
    };
    let number = |item: &BareItem| u64::try_from(i64::from(item.as_integer()?)).ok();
    for (name, item) in &list.params {
        let text = || item.as_string().map(|s| s.as_str().to_owned());
        match name.as_str() {
            "created" => found.created = number(item)?,
            "expires" => found.expires = Some(number(item)?),
            "keyid" => found.device = text()?,
            "nonce" => found.nonce = text().filter(|n| (16..=64).contains(&n.len()) && !n.contains(' '))?,
            "alg" => text().filter(|alg| alg == "hmac-sha256").map(drop)?,
            _ => return None,
        }
    }
    (found.created > 0 && !found.nonce.is_empty()).then_some(found)
}

fn covers_all(list: &InnerList) -> bool {
    let names: Vec<_> = list
        .items
        .iter()
        .map(|item| if item.params.is_empty() { item.bare_item.as_string().map(|s| s.as_str()) } else { None })
        .collect();
    names == COVERED.map(Some)
}

fn bytes_of(fields: &Dictionary, name: &str) -> Option<Vec<u8>> {
    match fields.get(name)? {
        ListEntry::Item(item) if item.params.is_empty() => item.bare_item.as_byte_sequence().map(<[u8]>::to_vec),
        _ => None,
    }
}

/// The text that is signed (RFC 9421, section 2.5).
pub(crate) fn base_of(head: &SignedHead<'_>, parameters: &str) -> String {
    format!(
        "\"@method\": {}\n\"@authority\": {}\n\"@path\": {}\n\"content-digest\": {}\n\"@signature-params\": {parameters}",
        head.method, head.authority, head.path, head.content_digest
    )
}

impl Gatekeeper {
    /// Judges the head of a signed request, before its body is read.
    ///
    /// # Errors
    /// One reason for everything that is not right about it.
    pub(crate) fn check_signature(&self, peer: &Peer, head: &SignedHead<'_>) -> Result<SignedRequest, Refusal> {
        let clock = &self.registry.parts.clock;
        if let Some(signed) = self.registry.verify(head, clock.now() / 1000) {
            return Ok(signed);
        }
        // Only what is wrong is a guess: neighbours behind one address do not lock each other out.
        let limited = |retry_after_ms| Refusal::RateLimited { retry_after_ms };
        self.throttle().charge_client(&peer.client(), clock.ticks()).map_err(limited)?;
        Err(Refusal::Mismatch(Needed::Anything))
    }

    /// Takes the body that belongs to a head: its digest must be the signed one, and the nonce unused.
    ///
    /// # Errors
    /// The same one reason; or that nothing can be kept.
    pub(crate) async fn accept_body(
        &self,
        conn: ConnId,
        peer: &Peer,
        signed: SignedRequest,
        body: &[u8],
    ) -> Result<Session, Refusal> {
        let wrong = Refusal::Mismatch(Needed::Anything);
        if !crypto::same(&crypto::sha256(&[body]), &signed.digest) {
            return Err(wrong);
        }
        let registry = self.registry.clone();
        let (key, nonce, created) = (signed.key, signed.nonce, signed.created);
        let used = tokio::task::spawn_blocking(move || registry.use_nonce(&key, &nonce, created)).await;
        match used {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Err(wrong),
            Ok(Err(PairingFault::Full)) => return Err(Refusal::RateLimited { retry_after_ms: OLDEST * 1000 }),
            Ok(Err(error)) => {
                tracing::error!(%error, "a nonce could not be kept");
                return Err(Refusal::Unavailable);
            }
            Err(_) => return Err(Refusal::Unavailable),
        }
        // The body took its time: what the head rested on must still stand.
        if !self.registry.stands(&signed.grant) {
            return Err(wrong);
        }
        let device = self.registry.device(&signed.grant.device).ok_or(wrong.clone())?;
        // A user whom the proxy or the tailnet names and the configuration does not let in is kept out at this door too.
        self.vouched(peer).await?;
        let held = super::registry::live_token(&device, signed.grant.role).ok_or(wrong)?.scopes;
        let scopes = held.within(self.most(peer, &Credential::DeviceToken));
        Ok(self.session_of(conn, peer, signed.grant, scopes, device.agent.clone()))
    }
}

impl Registry {
    /// The request, if everything about its head is right at this second.
    fn verify(&self, head: &SignedHead<'_>, now: u64) -> Option<SignedRequest> {
        let parameters = parameters(head.signature_input)?;
        let fresh = parameters.created <= now + AHEAD
            && now.saturating_sub(parameters.created) <= OLDEST
            && parameters.expires.is_none_or(|until| until >= now);
        fresh.then_some(())?;
        let signatures = dictionary(head.signature).filter(|fields| fields.len() == 1)?;
        let signature = bytes_of(&signatures, &parameters.label)?;
        let digest = bytes_of(&dictionary(head.content_digest)?, "sha-256")?;
        let (name, key, grant) = self.signing_key(&DeviceId(parameters.device), Role::Operator)?;
        let right = crypto::hmac_sha256(key.expose(), &[base_of(head, &parameters.text).as_bytes()]);
        crypto::same(&right, &signature).then_some(SignedRequest {
            key: name,
            nonce: parameters.nonce,
            created: parameters.created,
            digest,
            grant,
        })
    }

    /// Uses a nonce up; false where it was used before, or is so old that nobody knows. Waits for the disk.
    fn use_nonce(&self, key: &str, nonce: &str, created: u64) -> Result<bool, PairingFault> {
        let now = self.parts.clock.now() / 1000;
        self.replay.take(&self.parts.store, key, nonce, created, now)
    }
}

/// Every nonce that could still be repeated.
#[derive(Default)]
pub(super) struct Replay(Mutex<HashMap<String, Window>>);

#[derive(Default)]
struct Window {
    floor: u64,
    nonces: HashMap<String, u64>,
}

impl Replay {
    /// Reads what is kept; nonces of keys that are no more are dropped.
    pub(super) fn open(store: &Store, is_key: &dyn Fn(&str) -> bool) -> Result<Self, StoreFault> {
        let mut windows: HashMap<String, Window> = HashMap::new();
        let mut gone = Changes::default();
        for record in store.all::<ReplayFloor>()? {
            match is_key(&record.key) {
                true => windows.entry(record.key).or_default().floor = record.created,
                false => gone = gone.remove::<ReplayFloor>(&record.key),
            }
        }
        for record in store.all::<NonceRecord>()? {
            match is_key(&record.key) {
                true => drop(windows.entry(record.key).or_default().nonces.insert(record.nonce, record.created)),
                false => gone = gone.remove::<NonceRecord>(&format!("{} {}", record.key, record.nonce)),
            }
        }
        if !gone.is_empty() {
            store.apply(&gone)?;
        }
        Ok(Replay(Mutex::new(windows)))
    }

    fn take(&self, store: &Store, key: &str, nonce: &str, created: u64, now: u64) -> Result<bool, PairingFault> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(key.to_owned()).or_default();
        if created <= window.floor || window.nonces.contains_key(nonce) {
            return Ok(false);
        }
        let is_old = |made: &u64| made + OLDEST + AHEAD < now;
        let old: Vec<(String, u64)> =
            window.nonces.iter().filter(|(_, made)| is_old(made)).map(|(n, made)| (n.clone(), *made)).collect();
        if window.nonces.len() - old.len() >= MOST_NONCES {
            return Err(PairingFault::Full);
        }
        let record = |nonce: &str, created| NonceRecord { key: key.to_owned(), nonce: nonce.to_owned(), created };
        let mut changes = Changes::default().put(&record(nonce, created));
        let floor = old.iter().map(|(_, made)| *made).max().unwrap_or(0).max(window.floor);
        for (nonce, _) in &old {
            changes = changes.remove::<NonceRecord>(&format!("{key} {nonce}"));
        }
        if floor > window.floor {
            changes = changes.put(&ReplayFloor { key: key.to_owned(), created: floor });
        }
        store.apply(&changes)?;
        window.floor = floor;
        for (nonce, _) in &old {
            window.nonces.remove(nonce);
        }
        window.nonces.insert(nonce.to_owned(), created);
        Ok(true)
    }
}

/// What is read is written back as it stood.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    if let Some(read) = parameters(text) {
        assert_eq!(format!("{}={}", read.label, read.text), text);
    }
    let _ = dictionary(text).map(|fields| bytes_of(&fields, "sha-256"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str =
        r#"s=("@method" "@authority" "@path" "content-digest");created=1700000000;keyid="ab";nonce="0123456789abcdef""#;

    #[test]
    fn parameters_have_one_spelling_and_cover_everything() {
        let read = parameters(INPUT).unwrap();
        assert_eq!(
            (read.created, read.device.as_str(), read.nonce.as_str()),
            (1_700_000_000, "ab", "0123456789abcdef")
        );
        assert!(INPUT.ends_with(&read.text));
        assert!(parameters(&format!("{INPUT};alg=\"hmac-sha256\"")).is_some());
        for bad in [
            INPUT.replace(" \"@path\"", ""),
            INPUT.replace("\"@path\"", "\"@path\";req"),
            INPUT.replace("\"@method\" \"@authority\"", "\"@authority\" \"@method\""),
            INPUT.replace(";created=1700000000", ""),
            INPUT.replace("1700000000", "-1"),
            INPUT.replace("1700000000", "1700000000.5"),
            INPUT.replace("1700000000", "1700000000;created=1"),
            INPUT.replace("nonce=\"0123456789abcdef\"", "nonce=\"short\""),
            INPUT.replace(";nonce=\"0123456789abcdef\"", ""),
            format!("{INPUT};alg=\"none\""),
            format!("{INPUT};tag=\"x\""),
            format!("{INPUT}, t=()"),
            format!(" {INPUT}"),
            String::new(),
        ] {
            assert_eq!(parameters(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_nonce_is_good_once_also_after_a_restart_and_with_the_clock_set_back() {
        let store = Store::in_memory();
        let replay = Replay::default();
        let take = |replay: &Replay, nonce: &str, created, now| replay.take(&store, "k", nonce, created, now).unwrap();
        assert!(take(&replay, "a", 1000, 1000));
        assert!(!take(&replay, "a", 1000, 1001));
        let again = Replay::open(&store, &|_| true).unwrap();
        assert!(!take(&again, "a", 1000, 1002), "a restart forgets nothing");
        // Long after, the nonce is forgotten, and the clock is set back to when it was made.
        assert!(take(&again, "b", 2000, 2000));
        assert!(!take(&again, "a", 1000, 1000));
        let once_more = Replay::open(&store, &|_| true).unwrap();
        assert!(!take(&once_more, "a", 1000, 1000));
        assert!(take(&once_more, "c", 1001, 1000));
        // A key that is no more leaves nothing behind.
        drop(Replay::open(&store, &|_| false).unwrap());
        assert!(store.all::<NonceRecord>().unwrap().is_empty() && store.all::<ReplayFloor>().unwrap().is_empty());
    }

    #[test]
    fn one_key_fills_its_own_window_only() {
        let (store, replay) = (Store::in_memory(), Replay::default());
        for n in 0..MOST_NONCES {
            assert!(replay.take(&store, "k", &n.to_string(), 1000, 1000).unwrap());
        }
        assert!(matches!(replay.take(&store, "k", "more", 1000, 1000), Err(PairingFault::Full)));
        assert!(replay.take(&store, "other", "more", 1000, 1000).unwrap());
        assert!(replay.take(&store, "k", "more", 1500, 1500).unwrap());
    }
}
