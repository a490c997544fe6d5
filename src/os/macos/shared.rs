//! A value in memory that nobody can change any more, handed on as a descriptor: shm_open(2), in the place of a sealed memfd.
//!
//! There are no seals. But what has no name any more cannot be opened, and what was opened for reading cannot be written to
//! (mmap(2), EACCES): so only descriptors for reading are left when it is handed on. Its length stands in its first bytes,
//! because the kernel counts pages.

use rustix::fs::{Mode, OFlags, fcntl_getfl, fstat, ftruncate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::shm;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;

/// Bytes of the length.
const HEAD: usize = size_of::<u64>();

/// Such a value: there is no other way to one than making it or having looked at its descriptor.
#[derive(Debug)]
pub(crate) struct Sealed {
    memory: OwnedFd,
    length: usize,
}

impl Sealed {
    /// Puts these bytes into a new one.
    pub(crate) fn new(bytes: &[u8]) -> io::Result<Self> {
        // At most 31 bytes, and nobody's for the moment that it is there.
        let name: String = crate::os::host::random::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("/vambrace-{name}");
        let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
        let writable = shm::open(&name, flags, Mode::RUSR | Mode::WUSR)?;
        let readable = shm::open(&name, shm::OFlags::RDONLY, Mode::empty());
        shm::unlink(&name)?;
        let whole = HEAD + bytes.len();
        ftruncate(&writable, whole as u64)?;
        let mapped = Mapped::new(&writable, whole, ProtFlags::READ | ProtFlags::WRITE)?;
        let head = (bytes.len() as u64).to_le_bytes();
        // SAFETY: the mapping is writable and so long, nobody else has it, and what is copied does not lie in it.
        unsafe {
            ptr::copy_nonoverlapping(head.as_ptr(), mapped.start, HEAD);
            ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.start.add(HEAD), bytes.len());
        }
        Ok(Sealed { memory: readable?, length: bytes.len() })
    }

    /// Takes a descriptor that came from elsewhere.
    ///
    /// # Errors
    /// Where it is no shared memory for reading alone, or holds more than `at_most` bytes: what it says could change after it
    /// was looked at, or never end.
    pub(crate) fn check(descriptor: OwnedFd, at_most: usize) -> io::Result<Self> {
        if fcntl_getfl(&descriptor)? & OFlags::RWMODE != OFlags::RDONLY {
            return Err(io::Error::other("it can be written to"));
        }
        let stat = fstat(&descriptor)?;
        // Shared memory alone is of no kind: files, pipes and sockets say what they are.
        if stat.st_mode & libc::S_IFMT != 0 {
            return Err(io::Error::other("it is no shared memory"));
        }
        let size = usize::try_from(stat.st_size).unwrap_or(0);
        if size < HEAD {
            return Err(io::Error::other("it holds no length"));
        }
        let mut head = [0; HEAD];
        Mapped::new(&descriptor, HEAD, ProtFlags::READ)?.copy(0, &mut head);
        match usize::try_from(u64::from_le_bytes(head)) {
            Ok(length) if length <= at_most && length <= size - HEAD => Ok(Sealed { memory: descriptor, length }),
            _ => Err(io::Error::other(format!("it holds more than {at_most} bytes, or fewer than it says"))),
        }
    }

    /// How many bytes it holds.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Fills this buffer, as long as the value, with it.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len() > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Mapped::new(&self.memory, HEAD + self.length, ProtFlags::READ)?.copy(HEAD, buffer);
        Ok(())
    }
}

/// A view of such memory, for as long as it is needed.
struct Mapped {
    start: *mut u8,
    length: usize,
}

impl Mapped {
    fn new(memory: &OwnedFd, length: usize, rights: ProtFlags) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe { mmap(ptr::null_mut(), length, rights, MapFlags::SHARED, memory, 0) }?;
        Ok(Mapped { start: start.cast(), length })
    }

    /// Copies what stands there from this byte on. It lies within: both callers have looked at the length.
    fn copy(&self, from: usize, into: &mut [u8]) {
        assert!(from + into.len() <= self.length, "a view is as long as what is read by it");
        // SAFETY: the mapping can be read and is so long, and the buffer lies elsewhere. Who could still write to it wrote all
        // before it was handed on; plain bytes are valid whatever they are.
        unsafe { ptr::copy_nonoverlapping(self.start.add(from), into.as_mut_ptr(), into.len()) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

impl From<Sealed> for OwnedFd {
    fn from(sealed: Sealed) -> Self {
        sealed.memory
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
