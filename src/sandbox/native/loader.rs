//! The guarded loader: only listed programs run, also through the ELF loader.
//!
//! Landlock gives EXECUTE to the listed files. The kernel wants it for a program's loader as well, and a loader that may
//! be executed runs any file it is given (`ld.so /usr/bin/id`). So a shim lies over the loader's own path, with EXECUTE,
//! and the loader itself is shown in `FOLDER` (`listed.rs`), without. The shim loads it for the kernel and refuses to be executed
//! itself (`shim/main.rs`, built by `build.rs`). Nobody checks a path here: the kernel decides on the inode.
//!
//! What that asks of the rest: that folder read-only and without `noexec`, readable for Landlock; the shim over the path
//! that a loader's links end at; no writable mount without `noexec`, for a listed program maps libraries as it likes. And
//! no memfd that can be executed: it lies on no mount, so Landlock lets it pass (`is_nouser_or_private`, kernel 6.18) and
//! a listed python makes any program of it. `vm.memfd_noexec` = 2 in the pid namespace (kernel 6.3) closes that.
//!
//! Linkers read the loader for its symbols and find none in the shim: a dynamic program is linked inside only with
//! `-Wl,--allow-shlib-undefined`. `ldd` says "not a dynamic executable", for it executes the loader.

use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Sizes of elf(5), 64 bits.
const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// As the kernel's `load_elf_phdrs`: a program with more is not executed.
const MAX_SEGMENTS_BYTES: usize = 65536;
/// PATH_MAX, with the zero.
const MAX_PATH_BYTES: u64 = 4096;

const PT_INTERP: u32 = 3;
const KINDS: [u16; 2] = [2, 3]; // ET_EXEC, ET_DYN
const MACHINE: Option<u16> = if cfg!(target_arch = "x86_64") {
    Some(62)
} else if cfg!(target_arch = "aarch64") {
    Some(183)
} else {
    None
};

/// The loader that a program names (PT_INTERP); `None` for what the kernel runs without one: static programs, scripts,
/// and anything that is no ELF program of this machine.
///
/// # Errors
/// `InvalidData` and `UnexpectedEof` for a program whose headers the kernel would not accept either.
pub(super) fn interpreter(mut file: impl Read + Seek) -> io::Result<Option<PathBuf>> {
    file.rewind()?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    let is_program = header.len() == HEADER_BYTES
        && header.starts_with(b"\x7fELF\x02\x01")
        && KINDS.contains(&u16_at(&header, 16))
        && MACHINE == Some(u16_at(&header, 18));
    if !is_program {
        return Ok(None);
    }
    let (size, count) = (usize::from(u16_at(&header, 54)), usize::from(u16_at(&header, 56)));
    if size != SEGMENT_BYTES || count == 0 || count * SEGMENT_BYTES > MAX_SEGMENTS_BYTES {
        return Err(damaged("the program headers have no size that the kernel accepts"));
    }
    let mut segments = vec![0; count * SEGMENT_BYTES];
    file.seek(SeekFrom::Start(u64_at(&header, 32)))?;
    file.read_exact(&mut segments)?;
    // The first one counts (the kernel's `load_elf_binary`).
    let Some(named) = segments.chunks_exact(SEGMENT_BYTES).find(|s| u32_at(s, 0) == PT_INTERP) else {
        return Ok(None);
    };
    let length = u64_at(named, 32);
    if !(2..=MAX_PATH_BYTES).contains(&length) {
        return Err(damaged("the loader's path has no length that the kernel accepts"));
    }
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(u64_at(named, 8)))?;
    file.take(length).read_to_end(&mut text)?;
    if text.len() as u64 != length || text.last() != Some(&0) {
        return Err(damaged("the loader's path has no end"));
    }
    match text.split(|byte| *byte == 0).next() {
        None | Some([]) => Err(damaged("the loader's path is empty")),
        Some(path) => Ok(Some(PathBuf::from(OsStr::from_bytes(path)))),
    }
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Zeros beyond the end; the callers hand in whole headers.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::listed::{FOLDER, SHIM};
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Cursor;

    const PATH: &[u8] = b"/lib/ld-test.so.1\0";

    /// A program of this machine with one PT_INTERP behind its headers.
    fn program() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES + SEGMENT_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &3u16.to_le_bytes());
        put(18, &MACHINE.unwrap().to_le_bytes());
        put(32, &(HEADER_BYTES as u64).to_le_bytes());
        put(54, &(SEGMENT_BYTES as u16).to_le_bytes());
        put(56, &1u16.to_le_bytes());
        put(HEADER_BYTES, &PT_INTERP.to_le_bytes());
        put(HEADER_BYTES + 8, &((HEADER_BYTES + SEGMENT_BYTES) as u64).to_le_bytes());
        put(HEADER_BYTES + 32, &(PATH.len() as u64).to_le_bytes());
        bytes.extend(PATH);
        bytes
    }

    fn asked(bytes: &[u8]) -> Result<Option<String>, io::ErrorKind> {
        let found = interpreter(Cursor::new(bytes)).map_err(|e| e.kind())?;
        Ok(found.map(|path| path.to_str().unwrap().to_owned()))
    }

    #[test]
    fn the_loader_is_read_from_a_program_of_this_machine() {
        assert_eq!(asked(&program()), Ok(Some("/lib/ld-test.so.1".into())));
        let own = interpreter(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(own.is_none_or(|path| path.is_absolute() && path.exists()));
    }

    #[test]
    fn what_needs_no_loader_has_none() {
        let changed = |at: usize, to: u8| {
            let mut bytes = program();
            bytes[at] = to;
            bytes
        };
        let mut none: Vec<Vec<u8>> = vec![vec![], b"#!/bin/sh\n".to_vec(), vec![0x7f; 4000], SHIM.to_vec()];
        // Another class, byte order, kind (a relocatable file), machine; a static program.
        none.extend([(4, 1), (5, 2), (16, 1), (18, 0), (HEADER_BYTES, 1)].map(|(at, to)| changed(at, to)));
        for bytes in none {
            assert_eq!(asked(&bytes), Ok(None));
        }
    }

    #[test]
    fn damaged_headers_are_an_error_and_no_loader() {
        let whole = program();
        for length in HEADER_BYTES..whole.len() {
            assert!(asked(&whole[..length]).is_err(), "{length} bytes");
        }
        let path = HEADER_BYTES + SEGMENT_BYTES;
        let changes: [(usize, &[u8]); 10] = [
            (32, &u64::MAX.to_le_bytes()),
            (32, &(1u64 << 40).to_le_bytes()),
            (54, &[55]),
            (56, &[0]),
            (56, &[0xff, 0xff]),
            (HEADER_BYTES + 8, &u64::MAX.to_le_bytes()),
            (HEADER_BYTES + 32, &[1]),
            (HEADER_BYTES + 32, &u64::MAX.to_le_bytes()),
            (path, &[0]),
            (path + PATH.len() - 1, b"x"),
        ];
        for (at, to) in changes {
            let mut bytes = program();
            bytes[at..at + to.len()].copy_from_slice(to);
            assert!(asked(&bytes).is_err(), "{to:?} at {at}");
        }
    }

    #[test]
    fn the_shim_is_small_needs_no_loader_and_nothing_of_it_is_writable() {
        assert!((HEADER_BYTES..8192).contains(&SHIM.len()), "{} bytes", SHIM.len());
        assert_eq!(u16_at(SHIM, 16), 3, "not position-independent");
        let count = usize::from(u16_at(SHIM, 56));
        let segments = || SHIM[HEADER_BYTES..].chunks_exact(SEGMENT_BYTES).take(count);
        let loads: Vec<u32> = segments().filter(|s| u32_at(s, 0) == 1).map(|s| u32_at(s, 4)).collect();
        assert_eq!(loads, [5], "one segment, to be read and executed");
        assert!(include_str!("shim/main.rs").contains(&format!("b\"{FOLDER}/\"")), "it looks elsewhere");
        // DT_RELA, DT_REL, DT_JMPREL, DT_NEEDED: nobody would see to them.
        let dynamic = segments().find(|s| u32_at(s, 0) == 2).unwrap();
        let (at, length) = (u64_at(dynamic, 8) as usize, u64_at(dynamic, 32) as usize);
        let tags: Vec<u64> = SHIM[at..at + length].chunks_exact(16).map(|entry| u64_at(entry, 0)).collect();
        assert!(![7, 17, 23, 1].iter().any(|tag| tags.contains(tag)), "{tags:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            changes in proptest::collection::vec((0..138usize, any::<u8>()), 0..8),
        ) {
            let _ = interpreter(Cursor::new(&bytes));
            bytes.splice(0..0, program());
            for (at, to) in changes {
                bytes[at] = to;
            }
            let _ = interpreter(Cursor::new(&bytes));
        }
    }
}
