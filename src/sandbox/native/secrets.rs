//! Secrets inside: files of a ramfs, or variables of the exec. Done by the init; the launcher never looks into one.
//!
//! Not the memfd itself at the path: the kernel refuses to bind-mount one (EINVAL), and a link to /proc/self/fd/N leads
//! nowhere once a program has closed what it inherited, as Python's subprocess does. Not a tmpfs: its pages may be
//! swapped to the disk, and `noswap` is not for user namespaces. A ramfs is never swapped, can be mounted in both
//! tiers, and is freed with the mount namespace. Where it cannot be mounted, the step fails and nothing runs.

use super::tree::{Owner, SEALED};
use crate::model::{Secret, SecretUse};
use crate::os::Sealed;
use crate::os::linux::mounts::{self, Attributes, Reach};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A secret with its value.
pub(super) type Held = (SecretUse, Sealed);

/// Sealed like everything else once the files are written.
const OPEN: Attributes = Attributes { read_only: false, ..SEALED };

/// A read-only mount, attached nowhere yet, that holds each value as a file which the command alone may read.
pub(super) fn folder(owner: &Owner, files: &[Held]) -> io::Result<OwnedFd> {
    let mount = mounts::new_filesystem(c"ramfs", &[(c"mode", "0500")], OPEN)?;
    let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    for (wanted, value) in files {
        let file = rustix::fs::openat(&mount, &*wanted.name, flags, Mode::RUSR)?;
        value.copy_to(&file)?;
        rustix::fs::fchown(&file, uid, gid)?;
    }
    rustix::fs::chownat(&mount, "", uid, gid, AtFlags::EMPTY_PATH)?;
    // The files are closed: the kernel makes no mount read-only that is being written to.
    mounts::set_attributes(mount.as_fd(), SEALED, Reach::ThisMount)?;
    Ok(mount)
}

/// The entries of the environment, `VARIABLE=value` with the NUL that ends them.
pub(super) fn entries(variables: &[Held]) -> io::Result<Vec<Secret<Vec<u8>>>> {
    variables.iter().filter_map(|(wanted, value)| Some(entry(wanted.variable()?, value))).collect()
}

fn entry(variable: &str, value: &Sealed) -> io::Result<Secret<Vec<u8>>> {
    let start = variable.len() + 1;
    // As long as it will be from the beginning: a vector that grows leaves copies behind.
    let mut bytes = vec![0; start + value.length() + 1];
    bytes[..start - 1].copy_from_slice(variable.as_bytes());
    bytes[start - 1] = b'=';
    let read = value.read(&mut bytes[start..start + value.length()]);
    let entry = Secret::new(bytes);
    read?;
    Ok(entry)
}

/// The whole environment as execve takes it.
pub(super) fn environment<'a>(plain: &'a [CString], entries: &'a [Secret<Vec<u8>>]) -> io::Result<Vec<&'a CStr>> {
    // One of each name: which of two a program takes is its own affair.
    let name = |entry: &[u8]| entry.iter().position(|b| *b == b'=').map(|at| entry[..at].to_vec());
    let taken: Vec<_> = entries.iter().map(|entry| name(entry.expose())).collect();
    let free = plain.iter().filter(|entry| !taken.contains(&name(entry.to_bytes())));
    let mut all: Vec<&CStr> = free.map(CString::as_c_str).collect();
    for entry in entries {
        all.push(CStr::from_bytes_with_nul(entry.expose()).map_err(|_| io::Error::other("a value holds a NUL byte"))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Delivery, SecretName};

    fn held(delivery: Delivery, value: &[u8]) -> Held {
        (SecretUse { name: SecretName::parse("API_KEY").unwrap(), delivery }, Sealed::new(value).unwrap())
    }

    #[test]
    fn a_variable_holds_the_value_as_it_is_and_none_holds_a_nul() {
        let variables = [held(Delivery::Variable("KEY".into()), b" a=b\n\xff")];
        let (plain, entries) = (vec![c"A=b".to_owned()], entries(&variables).unwrap());
        let all = environment(&plain, &entries).unwrap();
        assert_eq!(all.iter().map(|e| e.to_bytes()).collect::<Vec<_>>(), [&b"A=b"[..], b"KEY= a=b\n\xff"]);

        let plain = vec![c"KEY=old".to_owned(), c"KEYS=b".to_owned()];
        let all = environment(&plain, &entries).unwrap();
        assert_eq!(all.iter().map(|e| e.to_bytes()).collect::<Vec<_>>(), [&b"KEYS=b"[..], b"KEY= a=b\n\xff"]);

        let cut = super::entries(&[held(Delivery::Variable("KEY".into()), b"a\0b")]).unwrap();
        assert!(environment(&plain, &cut).is_err());
    }
}
