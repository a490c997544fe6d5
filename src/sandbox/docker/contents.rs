//! What an image brings with it that its operator should know: set-id programs, capabilities of files, and what looks
//! like a secret. Read out of the whole image as the engine packs it, never out of a container that runs.

use super::answers::{fault, missing};
use super::look;
use super::reach::connect;
use crate::model::{EngineHost, RunFault};
use bollard::Docker;
use futures_util::StreamExt;
use futures_util::future::select_all;
use hyper::body::Bytes;
use std::io::{self, Read};
use std::sync::mpsc;
use tokio::signal::unix::{SignalKind, signal};

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    /// A path of the image, or the name of a variable.
    pub(crate) place: String,
    pub(crate) what: &'static str,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SetId,
    Capability,
    Secret,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::SetId => "set-id",
            Kind::Capability => "file-capability",
            Kind::Secret => "secret",
        }
    }
}

/// An image and what was found in it.
#[derive(Debug)]
pub(crate) struct Contents {
    /// `sha256:` and 64 digits: what was looked at, whatever the name leads to later.
    pub(crate) id: String,
    pub(crate) bytes: u64,
    /// At most `MOST_FOUND`.
    pub(crate) found: Vec<Found>,
}

/// Findings that are told; an image with more is known by these.
const MOST_FOUND: usize = 1000;

/// Of each file so much is searched: secrets are small files, or stand near the top.
const MOST_SEARCHED: u64 = 1 << 20;

/// Bytes that stand beside one entry: its name, and attributes of at most 64 KiB each (xattr(7)).
const MOST_BESIDE: u64 = 1 << 20;

/// Parts of the archive under way between the engine and the search.
const AHEAD: usize = 4;

/// Looks through an image.
///
/// # Errors
/// Where the engine or the image is not there, or what it packs cannot be read.
pub(crate) fn look_into(host: &EngineHost, image: &str) -> Result<Contents, RunFault> {
    let plain = |e: io::Error| RunFault::Engine {
        what: format!("the image cannot be looked through: {e}"),
        hint: "try again; the engine's own log tells more".into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(plain)?;
    runtime.block_on(async {
        let docker = connect(host).await?.api;
        let facts = docker.inspect_image(image).await.map_err(|e| match missing(&e) {
            true => RunFault::Engine {
                what: format!("the engine has no image {image:?}"),
                hint: "`docker images` lists those there are".into(),
            },
            false => fault("look for the image", &e),
        })?;
        let id = facts.id.unwrap_or_default();
        let mut found = Vec::new();
        let set = facts.config.and_then(|config| config.env).unwrap_or_default();
        found.extend(set.iter().filter_map(|entry| of_variable(entry)));
        // Before there is something to remove.
        let interrupted = interrupted().map_err(plain)?;
        let container = look::into(&docker, &id).await?;
        let searched = tokio::select! {
            searched = search(&docker, &container) => searched,
            () = interrupted => Err(io::Error::new(io::ErrorKind::Interrupted, "it was interrupted")),
        };
        look::done(&docker, &container).await?;
        found.extend(searched.map_err(plain)?);
        found.truncate(MOST_FOUND);
        Ok(Contents { id, bytes: u64::try_from(facts.size.unwrap_or(0)).unwrap_or(0), found })
    })
}

/// A signal that would end this process, which has something to remove first.
fn interrupted() -> io::Result<impl Future<Output = ()>> {
    let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = ends.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    Ok(async move {
        select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    })
}

/// Searches what the engine packs, in a thread of its own: an archive is read without being held anywhere.
async fn search(docker: &Docker, container: &str) -> io::Result<Vec<Found>> {
    let (sender, parts) = mpsc::sync_channel::<io::Result<Bytes>>(AHEAD);
    let searching = tokio::task::spawn_blocking(move || of_archive(Parts { parts, rest: Bytes::new() }));
    let mut packed = Box::pin(docker.export_container(container));
    while let Some(part) = packed.next().await {
        let sender = sender.clone();
        let part = part.map_err(|e| io::Error::other(e.to_string()));
        // Whoever searches has stopped, and says why.
        if tokio::task::spawn_blocking(move || sender.send(part)).await.is_ok_and(|sent| sent.is_err()) {
            break;
        }
    }
    drop(sender);
    searching.await.map_err(io::Error::other)?
}

/// The parts of a stream, one after the other.
struct Parts {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match self.parts.recv() {
                Ok(part) => self.rest = part?,
                Err(_) => return Ok(0),
            }
        }
        let length = self.rest.len().min(into.len());
        into[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

fn of_archive(archive: impl Read) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    // What belongs to the entry that follows, which the library would read whole, however long it is.
    let (mut long_name, mut more) = (None, Vec::new());
    for entry in tar::Archive::new(archive).entries()?.raw(true) {
        let mut entry = entry?;
        if found.len() >= MOST_FOUND {
            break;
        }
        match entry.header().entry_type() {
            tar::EntryType::GNULongName => {
                let name = whole(&mut entry)?;
                long_name = Some(name.strip_suffix(b"\0").unwrap_or(&name).to_vec());
                continue;
            }
            tar::EntryType::XHeader => {
                more = whole(&mut entry)?;
                continue;
            }
            tar::EntryType::GNULongLink | tar::EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let (long_name, more) = (long_name.take(), std::mem::take(&mut more));
        let more = || tar::PaxExtensions::new(&more).flatten();
        if more().any(|more| more.key() == Ok("size")) {
            return Err(io::Error::other("a file in it is larger than 8 GiB, which is not looked through"));
        }
        let told = more().find(|more| more.key() == Ok("path")).map(|more| more.value_bytes().to_vec());
        let name = told.or(long_name).unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let place = format!("/{}", String::from_utf8_lossy(&name).trim_start_matches(['.', '/']));
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let mode = entry.header().mode().unwrap_or(0);
        let set_id = match mode & 0o6000 {
            0o4000 => Some("runs as its owner (setuid)"),
            0o2000 => Some("runs as its group (setgid)"),
            0o6000 => Some("runs as its owner and group"),
            _ => None,
        };
        found.extend(set_id.map(|what| Found { kind: Kind::SetId, place: place.clone(), what }));
        if more().any(|more| more.key() == Ok("SCHILY.xattr.security.capability")) {
            found.push(Found { kind: Kind::Capability, place: place.clone(), what: "has a capability of its own" });
        }
        let mut text = Vec::new();
        entry.by_ref().take(MOST_SEARCHED).read_to_end(&mut text)?;
        found.extend(of_file(&place, &text).map(|what| Found { kind: Kind::Secret, place, what }));
    }
    Ok(found)
}

/// What belongs to another entry, in memory.
fn whole(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match entry.take(MOST_BESIDE + 1).read_to_end(&mut bytes)? as u64 {
        ..=MOST_BESIDE => Ok(bytes),
        _ => Err(io::Error::other("a name or an attribute in it is longer than any file's")),
    }
}

/// What a file seems to hold, by its name or by what stands in it.
fn of_file(place: &str, text: &[u8]) -> Option<&'static str> {
    let name = place.rsplit('/').next().unwrap_or(place);
    let holds = |what: &str| text.windows(what.len()).any(|window| window == what.as_bytes());
    if text.is_empty() {
        return None;
    }
    // A program or a library that knows the words is no key.
    if !text.contains(&0) && holds("-----BEGIN ") && holds("PRIVATE KEY-----\n") && !holds("EXAMPLE") {
        return Some("a private key");
    }
    match name {
        "id_rsa" | "id_ed25519" | "id_ecdsa" | "id_dsa" => Some("a private key"),
        ".netrc" | ".pgpass" | ".git-credentials" => Some("passwords"),
        ".npmrc" if holds("_authToken") => Some("a token of a package registry"),
        ".pypirc" if holds("password") => Some("a token of a package registry"),
        "credentials" if place.ends_with("/.aws/credentials") => Some("keys of a cloud"),
        "config.json" if place.ends_with("/.docker/config.json") && holds("\"auth\"") => {
            Some("passwords of registries")
        }
        ".env" if holds("=") => Some("a file of variables"),
        _ if !text.contains(&0) => TOKENS.iter().find_map(|token| token.is_in(text).then_some(token.what)),
        _ => None,
    }
}

/// A token by how it begins and how many letters and digits follow.
struct Token {
    begins: &'static str,
    follow: usize,
    what: &'static str,
}

const TOKENS: &[Token] = &[
    Token { begins: "AKIA", follow: 16, what: "an access key of a cloud" },
    Token { begins: "ghp_", follow: 36, what: "a token of a code host" },
    Token { begins: "github_pat_", follow: 22, what: "a token of a code host" },
    Token { begins: "glpat-", follow: 20, what: "a token of a code host" },
    Token { begins: "xoxb-", follow: 10, what: "a token of a chat" },
    Token { begins: "sk-ant-", follow: 20, what: "a key of a model's provider" },
    Token { begins: "sk-proj-", follow: 20, what: "a key of a model's provider" },
];

impl Token {
    fn is_in(&self, text: &[u8]) -> bool {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let begins = self.begins.as_bytes();
        text.windows(begins.len()).enumerate().any(|(at, window)| {
            window == begins
                && (at == 0 || !is_word(&text[at - 1]))
                && text[at + begins.len()..].iter().take_while(|byte| is_word(byte)).count() >= self.follow
        })
    }
}

/// A variable of the image whose name says that it is a secret.
fn of_variable(entry: &str) -> Option<Found> {
    let (name, value) = entry.split_once('=')?;
    let upper = name.to_ascii_uppercase();
    let is_secret = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "PRIVATE_KEY", "ACCESS_KEY"]
        .iter()
        .any(|word| upper.ends_with(word));
    (is_secret && !value.is_empty()).then(|| Found {
        kind: Kind::Secret,
        place: name.to_owned(),
        what: "a variable of the image with the name of a secret",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_read_and_one_that_is_longer_than_any_is_an_error() {
        let archive = |length: usize| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o644);
            archive.append_data(&mut header, format!("{}/.env", "x".repeat(length)), &b"A=1"[..]).unwrap();
            archive.into_inner().unwrap()
        };
        let found = of_archive(&archive(4000)[..]).unwrap();
        assert_eq!((found.len(), found[0].place.len()), (1, 4000 + "//.env".len()));
        assert!(of_archive(&archive(2 << 20)[..]).is_err());
    }

    #[test]
    fn what_looks_like_a_secret_is_found_and_what_only_speaks_of_one_is_not() {
        let key = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n";
        let token = [b"x = ghp_".as_slice(), &[b'a'; 36]].concat();
        for (place, text, is_secret) in [
            ("/root/key", key.as_slice(), true),
            ("/usr/lib/libssl.so", b"\0-----BEGIN RSA PRIVATE KEY-----\n\0", false),
            ("/root/.ssh/id_rsa", b"anything", true),
            ("/root/.ssh/id_rsa.pub", b"ssh-rsa AAAA", false),
            ("/root/.ssh/id_rsa", b"", false),
            ("/root/.aws/credentials", b"[default]", true),
            ("/usr/share/credentials", b"[default]", false),
            ("/srv/.env", b"A=1", true),
            ("/srv/notes", &token, true),
            ("/srv/notes", &token[..20], false),
            ("/srv/notes", b"AKIAIOSFODNN7EXAMPL", false),
            ("/srv/notes", b"AKIAIOSFODNN7EXAMPLE", true),
            ("/srv/notes", b"BAKIAIOSFODNN7EXAMPLE", false),
        ] {
            assert_eq!(of_file(place, text).is_some(), is_secret, "{place} {}", String::from_utf8_lossy(text));
        }
        assert!(of_variable("GITHUB_TOKEN=x").is_some() && of_variable("aws_secret_access_key=x").is_some());
        assert!(of_variable("GITHUB_TOKEN=").is_none() && of_variable("PATH=/bin").is_none());
    }
}
