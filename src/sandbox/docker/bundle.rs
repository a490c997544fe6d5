//! This program, in a form that runs in any image: with its own loader and its own libraries.
//!
//! What it is made of is read from its own memory map, so that it is what runs and not what a package says. The loader
//! is started by name and told where the libraries lie, so the image's own are never looked at.

use crate::crypto;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where it lies inside a container.
pub(super) const FOLDER: &str = "/.vambrace";

/// The files of the program by their names below `FOLDER`.
pub(super) struct Bundle {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// SHA-256 in hex over names and contents.
    pub(super) digest: String,
    /// The words that start it, without its own arguments.
    pub(super) start: Vec<String>,
}

impl Bundle {
    /// Reads what this process runs.
    ///
    /// # Errors
    /// Where its map or one of the files cannot be read: after an upgrade they may be gone, until it is started again.
    pub(super) fn read() -> io::Result<Self> {
        let map = fs::read_to_string("/proc/self/maps")?;
        let own = fs::read_link("/proc/self/exe")?;
        let mut files = BTreeMap::from([("vambrace".to_owned(), fs::read("/proc/self/exe")?)]);
        let mut loader = None;
        for library in libraries(&map, &own) {
            let name = library.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name.starts_with("ld-") {
                loader = Some(name.clone());
            }
            let place = if name.starts_with("ld-") { name } else { format!("lib/{name}") };
            files.insert(place, fs::read(&library)?);
        }
        let mut start = Vec::new();
        if let Some(loader) = loader {
            start.extend([format!("{FOLDER}/{loader}"), "--library-path".into(), format!("{FOLDER}/lib")]);
        }
        start.push(format!("{FOLDER}/vambrace"));
        let parts: Vec<&[u8]> = files.iter().flat_map(|(name, bytes)| [name.as_bytes(), b"\0", bytes]).collect();
        Ok(Bundle { digest: crypto::hex(&crypto::sha256(&parts)), files, start })
    }
}

/// The files that are mapped to be executed, but for the program (proc_pid_maps(5)).
fn libraries(map: &str, own: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in map.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(rights), Some(path)) = (fields.nth(1), fields.nth(3)) else { continue };
        let path = Path::new(path);
        if rights.contains('x') && path.is_absolute() && path != own && !found.iter().any(|known| known == path) {
            found.push(path.to_owned());
        }
    }
    found
}

/// The architecture that the program is for, as engines call it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_is_mapped_to_be_executed() {
        let map = "\
55d0-55d1 r-xp 00000000 fe:00 10 /usr/bin/vambrace
7f00-7f01 r--p 00000000 fe:00 11 /usr/lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r-xp 00001000 fe:00 11 /usr/lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 r-xp 00001000 fe:00 11 /usr/lib/x86_64-linux-gnu/libc.so.6
7f03-7f04 r--p 00001000 fe:00 12 /usr/lib/locale/C.utf8/LC_CTYPE
7ffd-7ffe r-xp 00000000 00:00 0 [vdso]
7fff-8000 rw-p 00000000 00:00 0
";
        let found = libraries(map, Path::new("/usr/bin/vambrace"));
        assert_eq!(found, [Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6")]);
    }

    #[test]
    fn the_bundle_of_this_very_process_starts_with_its_loader() {
        let bundle = Bundle::read().unwrap();
        assert_eq!(bundle.digest.len(), 64);
        assert!(bundle.files["vambrace"].starts_with(b"\x7fELF"));
        assert!(bundle.start.last().unwrap().ends_with("/vambrace"));
        assert!(bundle.files.keys().filter(|name| name.starts_with("lib/")).count() >= bundle.start.len() / 3);
    }
}
