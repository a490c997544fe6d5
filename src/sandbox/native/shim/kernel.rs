//! The six system calls of the shim, and memory that it may write to.

use core::arch::asm;
use core::ops::Range;

pub(crate) const READ: usize = 1;
pub(crate) const WRITE: usize = 2;
pub(crate) const EXECUTE: usize = 4;

const PRIVATE: usize = 0x02;
const FIXED: usize = 0x10;
const ANONYMOUS: usize = 0x20;
const NO_RESERVE: usize = 0x4000;

const WORKING_FOLDER: usize = -100_isize as usize;
const NO_FILE: usize = -1_isize as usize;
const CLOSE_ON_EXEC: usize = 0o2_000_000;
const STANDARD_ERROR: usize = 2;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const WRITE: usize = 1;
    pub(super) const CLOSE: usize = 3;
    pub(super) const MMAP: usize = 9;
    pub(super) const PREAD64: usize = 17;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const OPENAT: usize = 257;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const OPENAT: usize = 56;
    pub(super) const CLOSE: usize = 57;
    pub(super) const WRITE: usize = 64;
    pub(super) const PREAD64: usize = 67;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const MMAP: usize = 222;
}

// SAFETY: pointers that the kernel reads or writes through must be good for that, and what it maps over, unused.
unsafe fn call(number: usize, arguments: [usize; 6]) -> Option<usize> {
    let [a, b, c, d, e, f] = arguments;
    let mut result: usize;
    // SAFETY: the caller's; the kernel changes no registers but the named ones.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: the caller's; the kernel changes no registers but the named one.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, in("x5") f, options(nostack));
    }
    // The last page of addresses is error numbers.
    (result < -4095_isize as usize).then_some(result)
}

/// An open file; closed by `close` alone, for everything else ends in an exit.
pub(crate) struct File(usize);

/// Opens for reading; the path ends with a zero.
pub(crate) fn open(path: &[u8]) -> Option<File> {
    if path.last() != Some(&0) {
        return None;
    }
    // SAFETY: a string with its end, only read.
    unsafe { call(number::OPENAT, [WORKING_FOLDER, path.as_ptr() as usize, CLOSE_ON_EXEC, 0, 0, 0]) }.map(File)
}

impl File {
    /// Reads up to so many bytes from an offset on.
    pub(crate) fn read(&self, to: *mut u8, length: usize, offset: usize) -> Option<usize> {
        // SAFETY: both callers hand in a buffer of that length of their own.
        unsafe { call(number::PREAD64, [self.0, to as usize, length, offset, 0, 0]) }
    }

    pub(crate) fn close(self) {
        // SAFETY: it is ours, and not used afterwards.
        let _ = unsafe { call(number::CLOSE, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// A range of addresses that nothing else uses, to be mapped piece by piece.
pub(crate) struct Room(Range<usize>);

impl Room {
    /// At an address of the kernel's choice. What is not mapped over cannot be touched.
    pub(crate) fn reserve(length: usize) -> Option<Self> {
        // SAFETY: without MAP_FIXED nothing is replaced.
        let start = unsafe { call(number::MMAP, [0, length, 0, PRIVATE | ANONYMOUS | NO_RESERVE, NO_FILE, 0]) }?;
        Some(Self(start..start.checked_add(length)?))
    }

    pub(crate) fn start(&self) -> usize {
        self.0.start
    }

    fn holds(&self, part: &Range<usize>) -> bool {
        self.0.start <= part.start && part.start <= part.end && part.end <= self.0.end
    }

    /// Maps a file there, from this offset on.
    pub(crate) fn map_file(&self, at: Range<usize>, protection: usize, file: &File, offset: usize) -> Option<()> {
        self.map(at, protection, PRIVATE | FIXED, file.0, offset)
    }

    /// Maps zeros there.
    pub(crate) fn map_zeros(&self, at: Range<usize>, protection: usize) -> Option<()> {
        self.map(at, protection, PRIVATE | FIXED | ANONYMOUS, NO_FILE, 0)
    }

    fn map(&self, at: Range<usize>, protection: usize, flags: usize, file: usize, offset: usize) -> Option<()> {
        if !self.holds(&at) {
            return None;
        }
        // SAFETY: replaces a part of our own range, whose memory nobody has been given.
        unsafe { call(number::MMAP, [at.start, at.end - at.start, protection, flags, file, offset]) }.map(drop)
    }

    /// Makes the rest of a page zero that was mapped writable.
    pub(crate) fn clear(&self, part: Range<usize>) -> Option<()> {
        if !self.holds(&part) {
            return None;
        }
        for byte in part {
            // SAFETY: in our own range, mapped writable; nobody has been given this memory.
            unsafe { (byte as *mut u8).write(0) };
        }
        Some(())
    }
}

/// One line on standard error; nobody could be told that it did not get there.
pub(crate) fn complain(line: &str) {
    // SAFETY: only read.
    let _ = unsafe { call(number::WRITE, [STANDARD_ERROR, line.as_ptr() as usize, line.len(), 0, 0, 0]) };
}

pub(crate) fn exit(code: usize) -> ! {
    loop {
        // SAFETY: takes a number.
        let _ = unsafe { call(number::EXIT_GROUP, [code, 0, 0, 0, 0, 0]) };
    }
}
