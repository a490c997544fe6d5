//! A value in memory that nobody can change any more, handed on as a descriptor: memfd_create(2), file seals.
//!
//! Whoever passes it on never needs to look into it. Its pages are shared memory, which the kernel may swap; they live
//! for as long as somebody holds a descriptor.

use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Neither content nor length can change, nor can a seal be taken off or added (fcntl(2), F_ADD_SEALS).
const ALL: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// A sealed memfd: there is no other way to one than making it or having looked at its seals.
#[derive(Debug)]
pub(crate) struct Sealed {
    file: File,
    length: usize,
}

impl Sealed {
    /// Puts these bytes into a new one. Its name in /proc is the same for all: it tells nothing.
    pub(crate) fn new(bytes: &[u8]) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Nothing is executed from it. Kernels before 6.3 do not know the flag.
        let made = match rustix::fs::memfd_create("secret", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("secret", flags),
            made => made,
        };
        let mut file = File::from(made?);
        file.write_all(bytes)?;
        rustix::fs::fcntl_add_seals(&file, ALL)?;
        Ok(Sealed { file, length: bytes.len() })
    }

    /// Takes a descriptor that came from elsewhere.
    ///
    /// # Errors
    /// Where it is no memfd with every seal, or holds more than `at_most` bytes: what it says could change after it was
    /// looked at, or never end.
    pub(crate) fn check(descriptor: OwnedFd, at_most: usize) -> io::Result<Self> {
        let file = File::from(descriptor);
        // EINVAL for what cannot be sealed: an ordinary file, a pipe, a socket. A file of a tmpfs has one seal only.
        let seals = rustix::fs::fcntl_get_seals(&file)
            .map_err(|e| io::Error::other(format!("it is no sealed memfd: {}", io::Error::from(e))))?;
        if !seals.contains(ALL) {
            return Err(io::Error::other("it is not sealed"));
        }
        let length = file.metadata()?.len();
        match usize::try_from(length) {
            Ok(length) if length <= at_most => Ok(Sealed { file, length }),
            _ => Err(io::Error::other(format!("it holds {length} bytes, more than {at_most}"))),
        }
    }

    /// How many bytes it holds.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Fills this buffer, as long as the value, with it.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, 0)
    }

    /// Copies it into a file within the kernel: it comes into no memory of this process.
    pub(crate) fn copy_to(&self, file: &impl AsFd) -> io::Result<()> {
        let mut at = 0;
        while at < self.length as u64 {
            let left = self.length - at as usize;
            if rustix::fs::sendfile(file, &self.file, Some(&mut at), left)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(())
    }
}

impl From<Sealed> for OwnedFd {
    fn from(sealed: Sealed) -> Self {
        sealed.file.into()
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_as_it_was_and_can_be_changed_by_nobody() {
        let value = Sealed::new(b"some value").unwrap();
        let mut file = File::from(value.as_fd().try_clone_to_owned().unwrap());

        assert!(file.write_all(b"x").is_err() && file.set_len(3).is_err() && file.set_len(300).is_err());
        let value = Sealed::check(file.into(), 10).unwrap();

        let mut read = [0; 10];
        value.read(&mut read).unwrap();
        assert_eq!((&read, value.length()), (b"some value", 10));
        let copy = rustix::fs::memfd_create("copy", MemfdFlags::CLOEXEC).unwrap();
        value.copy_to(&copy).unwrap();
        let mut copied = [0; 10];
        File::from(copy).read_exact_at(&mut copied, 0).unwrap();
        assert_eq!(&copied, b"some value");
    }

    #[test]
    fn what_could_still_change_or_is_no_memfd_or_too_long_is_not_taken() {
        let with = |seals: SealFlags| {
            let made = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::fs::fcntl_add_seals(&made, seals).unwrap();
            made
        };
        assert!(Sealed::check(with(ALL), 0).is_ok());
        for missing in ALL {
            assert!(Sealed::check(with(ALL - missing), 0).is_err(), "{missing:?}");
        }
        assert!(Sealed::check(rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap(), 0).is_err());
        assert!(Sealed::check(File::open("/dev/null").unwrap().into(), 0).is_err());
        assert!(Sealed::check(io::pipe().unwrap().0.into(), 0).is_err());
        assert!(Sealed::check(Sealed::new(b"12").unwrap().file.into(), 1).is_err());
    }
}
