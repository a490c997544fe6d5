//! Certificates: our own where the operator has none, and the fingerprint by which clients know one.

use super::{hex, sha256};
use crate::model::Secret;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

/// The SHA-256 of a certificate in DER, as `sha256:` and lowercase hex.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    format!("sha256:{}", hex(&sha256(&[der])))
}

/// Reads a fingerprint as people write it: hex with or without colons and `sha256:`.
pub(crate) fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let digits: Vec<u8> = lower.strip_prefix("sha256:").unwrap_or(&lower).bytes().filter(|b| *b != b':').collect();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let digit = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Some(bytes)
}

/// A new self-signed certificate for these names and addresses, with its key, both PEM.
///
/// # Errors
/// A name that cannot stand in a certificate.
pub(crate) fn self_signed(names: &[String]) -> Result<(String, Secret<String>), String> {
    let plain = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(names).map_err(plain)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "vambrace gateway");
    let key = KeyPair::generate().map_err(plain)?;
    let certificate = params.self_signed(&key).map_err(plain)?;
    Ok((certificate.pem(), Secret::new(key.serialize_pem())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_in_every_spelling() {
        let shown = fingerprint(b"certificate");
        let bytes = parse_fingerprint(&shown).unwrap();
        assert_eq!(bytes, sha256(&[b"certificate"]));
        let plain = shown.strip_prefix("sha256:").unwrap().to_uppercase();
        assert_eq!(parse_fingerprint(&plain), Some(bytes));
        let colons: Vec<&str> = plain.as_bytes().chunks(2).map(|c| std::str::from_utf8(c).unwrap()).collect();
        assert_eq!(parse_fingerprint(&colons.join(":")), Some(bytes));
        for bad in ["", "sha256:", "zz", &plain[1..], "sha1:00"] {
            assert_eq!(parse_fingerprint(bad), None, "{bad}");
        }
    }
}
