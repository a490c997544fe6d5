//! A device's proof: its id is the hash of its key, and its signature covers this connection's nonce.

use super::Refusal;
use crate::crypto::{self, PublicKey};
use crate::model::{DeviceId, UnixMillis};
use crate::wire::{ConnectParams, DeviceParams, signed_payload};

/// How far a device's clock may be off; freshness itself rests on the nonce.
const SKEW_MS: i64 = 120_000;

/// A device that has proved itself on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) id: DeviceId,
    pub(crate) key: [u8; 32],
}

/// Verifies in the protocol's order: id, time, nonce, key, signature (v3, then v2).
pub(super) fn verify(
    device: &DeviceParams,
    params: &ConnectParams,
    nonce: &str,
    now: UnixMillis,
) -> Result<Proven, Refusal> {
    let raw = public_key(&device.public_key).ok_or(Refusal::DeviceKeyInvalid)?;
    let id = DeviceId(crypto::hex(&crypto::sha256(&[&raw])));
    if id.0 != device.id {
        return Err(Refusal::DeviceIdMismatch);
    }
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now.saturating_sub(device.signed_at).saturating_abs() > SKEW_MS {
        return Err(Refusal::DeviceSignatureExpired);
    }
    if device.nonce.is_empty() {
        return Err(Refusal::DeviceNonceRequired);
    }
    if device.nonce != nonce {
        return Err(Refusal::DeviceNonceMismatch);
    }
    let key = PublicKey::parse(&raw).ok_or(Refusal::DeviceKeyInvalid)?;
    let signature = crypto::from_base64url(&device.signature).ok_or(Refusal::DeviceSignatureInvalid)?;
    let holds = [3, 2].into_iter().any(|version| {
        key.verify(signed_payload(version, params, &id, device.signed_at, nonce).as_bytes(), &signature)
    });
    if holds { Ok(Proven { id, key: raw }) } else { Err(Refusal::DeviceSignatureInvalid) }
}

/// The raw 32 bytes, from base64url, base64 or PEM (SubjectPublicKeyInfo, RFC 8410).
fn public_key(text: &str) -> Option<[u8; 32]> {
    const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    if text.len() > 1024 {
        return None;
    }
    let text = text.trim();
    if let Some(pem) = text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
        let body: String = pem.split("-----END").next()?.split_whitespace().collect();
        return crypto::from_base64(&body)?.strip_prefix(&SPKI)?.try_into().ok();
    }
    crypto::from_base64url(text).or_else(|| crypto::from_base64(text))?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyPair;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    const NOW: u64 = 1_000_000_000_000;

    fn signed(pair: &KeyPair, version: u8, nonce: &str, signed_at: i64) -> ConnectParams {
        let id = crypto::hex(&crypto::sha256(&[&pair.public()]));
        let mut params: ConnectParams = serde_json::from_value(json!({
            "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"],
            "client": {"id": "test", "mode": "test", "version": "1", "platform": "Linux", "deviceFamily": "Linux"},
            "auth": {"token": "T"},
            "device": {"id": id, "publicKey": crypto::base64url(&pair.public()), "signature": "", "signedAt": signed_at, "nonce": nonce},
        }))
        .unwrap();
        let payload = signed_payload(version, &params, &DeviceId(id), signed_at, nonce);
        if let Some(device) = &mut params.device {
            device.signature = crypto::base64url(&pair.sign(payload.as_bytes()));
        }
        params
    }

    fn check(params: &ConnectParams, nonce: &str) -> Result<DeviceId, Refusal> {
        verify(params.device.as_ref().unwrap(), params, nonce, NOW).map(|proven| proven.id)
    }

    #[test]
    fn a_signature_of_version_three_or_two_proves_the_device() {
        let pair = KeyPair::from_seed(&[3; 32]);
        for version in [3, 2] {
            let params = signed(&pair, version, "N", NOW as i64);
            assert_eq!(check(&params, "N").unwrap().0, params.device.unwrap().id);
        }
        assert_eq!(check(&signed(&pair, 1, "N", NOW as i64), "N"), Err(Refusal::DeviceSignatureInvalid));
    }

    #[test]
    fn a_signature_is_good_for_one_connection() {
        let params = signed(&KeyPair::from_seed(&[3; 32]), 3, "N", NOW as i64);
        assert_eq!(check(&params, "another nonce"), Err(Refusal::DeviceNonceMismatch));
        let blank = signed(&KeyPair::from_seed(&[3; 32]), 3, "", NOW as i64);
        assert_eq!(check(&blank, ""), Err(Refusal::DeviceNonceRequired));
    }

    #[test]
    fn an_id_is_derived_from_the_key_and_never_accepted() {
        let mut params = signed(&KeyPair::from_seed(&[3; 32]), 3, "N", NOW as i64);
        let victim = crypto::hex(&crypto::sha256(&[&KeyPair::from_seed(&[4; 32]).public()]));
        params.device.as_mut().unwrap().id = victim;
        assert_eq!(check(&params, "N"), Err(Refusal::DeviceIdMismatch));
    }

    #[test]
    fn a_signature_covers_role_scopes_and_token() {
        for change in ["role", "scopes", "token"] {
            let mut params = signed(&KeyPair::from_seed(&[3; 32]), 3, "N", NOW as i64);
            match change {
                "role" => params.role = Some("node".into()),
                "scopes" => params.scopes.push("operator.admin".into()),
                _ => params.auth.as_mut().unwrap().token = Some("U".into()),
            }
            assert_eq!(check(&params, "N"), Err(Refusal::DeviceSignatureInvalid), "{change}");
        }
    }

    #[test]
    fn times_at_the_edges_are_stale_and_never_overflow() {
        let pair = KeyPair::from_seed(&[3; 32]);
        for signed_at in [-1, 0, i64::MIN, i64::MAX, (1 << 53) + 1, NOW as i64 + SKEW_MS + 1, NOW as i64 - SKEW_MS - 1]
        {
            assert_eq!(
                check(&signed(&pair, 3, "N", signed_at), "N"),
                Err(Refusal::DeviceSignatureExpired),
                "{signed_at}"
            );
        }
        assert!(check(&signed(&pair, 3, "N", NOW as i64 - SKEW_MS), "N").is_ok());
    }

    #[test]
    fn a_key_may_come_as_pem_or_plain_base64_and_nothing_else() {
        let raw = KeyPair::from_seed(&[3; 32]).public();
        let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        spki.extend(raw);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&spki));
        for text in [pem, STANDARD.encode(raw), crypto::base64url(&raw)] {
            assert_eq!(public_key(&text), Some(raw), "{text}");
        }
        for text in ["", "AA", "-----BEGIN PUBLIC KEY-----", &"A".repeat(2000)] {
            assert_eq!(public_key(text), None);
        }
    }
}
