//! TLS at the door: rustls, the operator's certificate or our own, replaced without touching open connections.

use crate::crypto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// A certificate and its key as PEM, read from wherever they are.
pub(crate) struct Pem {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: zeroize::Zeroizing<Vec<u8>>,
}

/// TLS of one gateway. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
}

/// The certificate that new connections get.
struct Current(RwLock<Arc<CertifiedKey>>);

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current(…)")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// With this certificate; and where `client_ca` is given, asking clients for one of that authority, which no
    /// client has to show.
    ///
    /// # Errors
    /// What of it cannot be used, in words.
    pub(crate) fn new(pem: &Pem, client_ca: Option<&[u8]>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let current = Arc::new(Current(RwLock::new(Arc::new(certified(pem)?))));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| format!("the authority of clients: {e}"))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&current) as _;
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), current })
    }

    /// Gives new connections this certificate; open ones keep theirs.
    ///
    /// # Errors
    /// What of it cannot be used; the one in force stays.
    pub(crate) fn replace(&self, pem: &Pem) -> Result<(), String> {
        let next = Arc::new(certified(pem)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The fingerprint of the certificate in force.
    pub(crate) fn fingerprint(&self) -> String {
        let current = self.current.0.read().unwrap_or_else(PoisonError::into_inner);
        current.cert.first().map(|der| crypto::fingerprint(der)).unwrap_or_default()
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

fn certified(pem: &Pem) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem.certificate)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the certificate is no PEM: {e}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in the file".into());
    }
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|e| format!("the key is no PEM: {e}"))?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map_err(|e| format!("certificate and key do not fit: {e}"))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("the authority of clients is no PEM: {e}"))?;
        roots.add(certificate).map_err(|e| format!("the authority of clients: {e}"))?;
    }
    if roots.is_empty() { Err("the file of the clients' authority holds no certificate".into()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Pem {
        let (certificate, key) = crypto::self_signed(&["localhost".into()]).unwrap();
        Pem { certificate: certificate.into_bytes(), key: key.expose().clone().into_bytes().into() }
    }

    #[test]
    fn a_certificate_is_replaced_by_one_that_fits_its_key_and_by_nothing_else() {
        let (first, second) = (own(), own());
        let tls = Tls::new(&first, None).unwrap();
        let before = tls.fingerprint();
        let torn = Pem { certificate: second.certificate.clone(), key: first.key.clone() };
        let empty = Pem { certificate: Vec::new(), key: first.key.clone() };
        for bad in [torn, empty] {
            assert!(tls.replace(&bad).is_err());
            assert_eq!(tls.fingerprint(), before);
        }
        tls.replace(&second).unwrap();
        assert_ne!(tls.fingerprint(), before);
        assert!(Tls::new(&first, Some(b"nothing")).is_err());
    }
}
