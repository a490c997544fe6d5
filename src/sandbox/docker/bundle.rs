//! This program, in a form that runs in any image: with its own loader and its own libraries.
//!
//! What it is made of is known to `host`. The loader is started by name and told where the libraries lie, so the image's own
//! are never looked at.

use super::host;
use crate::crypto;
use std::collections::BTreeMap;
use std::fs;
use std::io;

/// The files of the program by their names below its folder in an image.
pub(super) struct Bundle {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// SHA-256 in hex over names and contents.
    pub(super) digest: String,
    /// The name of its loader; none where it needs none.
    loader: Option<String>,
}

/// A file that every program's loader looks for, and what it names would be loaded into ours (ld.so(8)).
const PRELOAD: &[u8] = b"/etc/ld.so.preload\0";

/// What our copy of the loader looks for instead: nothing can lie below a file.
const NOTHING: &[u8] = b"/proc/self/exe/nop\0";

impl Bundle {
    /// Reads what this process runs, or what stands for it where that is no Linux program.
    ///
    /// # Errors
    /// Where its map or one of the files cannot be read: after an upgrade they may be gone, until it is started again.
    pub(super) fn read() -> io::Result<Self> {
        let (own, libraries) = host::program()?;
        let mut files = BTreeMap::from([("vambrace".to_owned(), own)]);
        let mut loader = None;
        for library in libraries {
            let name = library.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let bytes = fs::read(&library)?;
            if name.starts_with("ld-") {
                files.insert(name.clone(), without_preload(bytes)?);
                loader = Some(name);
            } else {
                files.insert(format!("lib/{name}"), bytes);
            }
        }
        let parts: Vec<&[u8]> = files.iter().flat_map(|(name, bytes)| [name.as_bytes(), b"\0", bytes]).collect();
        Ok(Bundle { digest: crypto::hex(&crypto::sha256(&parts)), files, loader })
    }

    /// Where it lies in what is built on this image: of a name that no image can know, since its own digest is in it.
    pub(super) fn folder(&self, base: &str) -> String {
        format!("/.vambrace-{:.16}", crypto::hex(&crypto::sha256(&[base.as_bytes(), b"\0", self.digest.as_bytes()])))
    }

    /// The words that start it there.
    pub(super) fn words(&self, folder: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(loader) = &self.loader {
            words.extend([format!("{folder}/{loader}"), "--inhibit-cache".into(), "--library-path".into()]);
            words.push(format!("{folder}/lib"));
        }
        words.push(format!("{folder}/vambrace"));
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        words
    }
}

/// The loader, which no longer looks for a file of the image's that names libraries to be loaded.
fn without_preload(mut loader: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut found = 0;
    let mut at = 0;
    while let Some(next) = loader[at..].windows(PRELOAD.len()).position(|window| window == PRELOAD) {
        loader[at + next..at + next + NOTHING.len()].copy_from_slice(NOTHING);
        at += next + NOTHING.len();
        found += 1;
    }
    match found {
        0 => {
            Err(io::Error::other("its loader is of a kind that is not known: where it looks for preloads is not found"))
        }
        _ => Ok(loader),
    }
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
    fn the_bundle_of_this_very_process_starts_with_its_loader() {
        let bundle = Bundle::read().unwrap();
        assert_eq!(bundle.digest.len(), 64);
        assert!(bundle.files["vambrace"].starts_with(b"\x7fELF"));
        let (one, other) = (bundle.folder("sha256:1"), bundle.folder("sha256:2"));
        assert!(one != other && one.len() == "/.vambrace-".len() + 16);
        let words = bundle.words(&one, &["runner", "--rest"]);
        assert_eq!(words[words.len() - 3..], [format!("{one}/vambrace"), "runner".into(), "--rest".into()]);
        let loader = bundle.loader.as_ref().unwrap();
        assert!(!bundle.files[loader].windows(PRELOAD.len()).any(|window| window == PRELOAD));
    }
}
