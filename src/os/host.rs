//! Facts about the host and its users.

use std::io;

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

/// Fills a buffer from the kernel's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel's random generator does not fail after boot (getrandom(2))");
    bytes
}
