//! The certificate: the operator's files, or one of our own in the store. Read at the start and on SIGHUP.

use super::DaemonFault;
use crate::config::{Places, Settings, TlsSource};
use crate::crypto;
use crate::model::Secret;
use crate::os;
use crate::server::{Pem, Tls};
use crate::store::{Name, Store, StoreFault};
use std::path::Path;

/// TLS as the settings want it; `None` where they want none.
pub(super) fn open(settings: &Settings, places: &Places, store: &Store) -> Result<Option<Tls>, DaemonFault> {
    let Some(source) = &settings.doors.tls else { return Ok(None) };
    let client_ca = settings.doors.client_ca.as_deref().map(read).transpose()?;
    let tls = Tls::new(&load(source, settings, places, store)?, client_ca.as_deref()).map_err(DaemonFault::Tls)?;
    Ok(Some(tls))
}

/// Reads the operator's files again; a certificate of our own stays.
pub(super) fn reload(settings: &Settings, places: &Places, tls: &Tls, store: &Store) -> Result<(), DaemonFault> {
    let Some(source) = &settings.doors.tls else { return Ok(()) };
    tls.replace(&load(source, settings, places, store)?).map_err(DaemonFault::Tls)
}

fn load(source: &TlsSource, settings: &Settings, places: &Places, store: &Store) -> Result<Pem, DaemonFault> {
    match source {
        TlsSource::Files { certificate, key } => Ok(Pem { certificate: read(certificate)?, key: read(key)?.into() }),
        TlsSource::Own => {
            let pem = own(settings, store)?;
            // For whoever is to trust it, `curl --cacert` for one. It is never read back.
            let copy = places.state.join("tls-certificate.pem");
            let written = os::fs::write_private(&copy, &pem.certificate);
            written.map_err(|cause| StoreFault::Write { path: copy, cause })?;
            Ok(pem)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DaemonFault> {
    const MOST: u64 = 1 << 20;
    let fault = |cause| DaemonFault::Tls(format!("cannot read {}: {cause}", path.display()));
    let size = std::fs::metadata(path).map_err(fault)?.len();
    if size > MOST {
        return Err(DaemonFault::Tls(format!("{} has more than 1 MiB", path.display())));
    }
    std::fs::read(path).map_err(fault)
}

/// The one in the store, made where there is none. Clients know it by its fingerprint, so it stays for ever.
fn own(settings: &Settings, store: &Store) -> Result<Pem, DaemonFault> {
    if let (Some(certificate), Some(key)) = (store.load(Name::TlsCertificate)?, store.load(Name::TlsKey)?) {
        return Ok(Pem { certificate: certificate.expose().clone(), key: key.expose().clone().into() });
    }
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(settings.doors.hosts.iter().cloned());
    let address = settings.doors.address.ip();
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    let (certificate, key) = crypto::self_signed(&names).map_err(DaemonFault::Tls)?;
    // The key first: a certificate without its key would never be replaced.
    store.save(Name::TlsKey, key.expose().as_bytes())?;
    store.save(Name::TlsCertificate, certificate.as_bytes())?;
    Ok(Pem { certificate: certificate.into_bytes(), key: key.expose().clone().into_bytes().into() })
}

/// The key that device tokens are derived with, made at the first start.
pub(super) fn device_key(store: &Store) -> Result<Secret<[u8; 32]>, StoreFault> {
    if let Some(key) = store.load(Name::DeviceKey)? {
        let key = <[u8; 32]>::try_from(key.expose().as_slice()).map(Secret::new);
        return key.map_err(|_| super::torn("device-key"));
    }
    let key = Secret::new(os::host::random());
    store.save(Name::DeviceKey, key.expose())?;
    Ok(key)
}
