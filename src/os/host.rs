//! Facts about the host and its users.

use std::io;

pub(crate) use super::system::host::{MACHINE_ID, machine_id};

/// The host's name.
pub(crate) fn name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The uid of a user given by name or number.
pub(crate) fn uid_of(user: &str) -> io::Result<Option<u32>> {
    if let Ok(uid) = user.parse() {
        return Ok(Some(uid));
    }
    Ok(nix::unistd::User::from_name(user)?.map(|found| found.uid.as_raw()))
}

/// The name of a user.
pub(crate) fn name_of(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|found| found.name)
}

/// The addresses of this host's interfaces.
pub(crate) fn addresses() -> Vec<std::net::IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| std::net::IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| std::net::IpAddr::V6(a.ip())))
        })
        .collect()
}

/// Fills a buffer from the kernel's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel's random generator does not fail after boot (getrandom(2))");
    bytes
}
