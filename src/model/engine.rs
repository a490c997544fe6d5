//! Where a container engine is.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// One engine, by the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum EngineHost {
    /// A unix socket of this host.
    Unix(PathBuf),
    /// TLS with certificates of both sides. By its address: whoever looks names up does so in a thread, and the runner,
    /// which forks, has but one.
    Tls {
        address: SocketAddr,
        /// The folder of ca.pem, cert.pem and key.pem.
        certificates: PathBuf,
    },
    /// The command line of the engine on another machine, over ssh(1).
    Ssh {
        /// `[user@]host`.
        destination: String,
        port: Option<u16>,
        /// ssh's own configuration instead of the user's: keys, known hosts.
        config: Option<PathBuf>,
    },
}

impl EngineHost {
    /// Reads `unix:///PATH`, `tcp://ADDRESS:PORT` or `ssh://[USER@]HOST[:PORT]`, with what belongs to it.
    ///
    /// # Errors
    /// Says what is missing, or is none of these.
    pub(crate) fn parse(url: &str, tls: Option<&Path>, ssh_config: Option<&Path>) -> Result<Self, &'static str> {
        let is_absolute = |path: &Option<&Path>| path.is_none_or(Path::is_absolute);
        if !is_absolute(&tls) || !is_absolute(&ssh_config) {
            return Err("names of files are absolute paths");
        }
        if let Some(path) = url.strip_prefix("unix://") {
            let path = Path::new(path);
            return match path.is_absolute() {
                true => Ok(EngineHost::Unix(path.to_owned())),
                false => Err("a socket is named by an absolute path, e.g. \"unix:///var/run/docker.sock\""),
            };
        }
        if let Some(authority) = url.strip_prefix("tcp://") {
            let address =
                authority.parse().map_err(|_| "it is no address with a port, e.g. \"tcp://192.0.2.7:2376\"")?;
            // Without TLS an engine takes orders from anybody, and we from anybody who says that it is the engine.
            let certificates = tls.ok_or("it needs `tls`, a folder with ca.pem, cert.pem and key.pem")?.to_owned();
            return Ok(EngineHost::Tls { address, certificates });
        }
        let Some(authority) = url.strip_prefix("ssh://") else {
            return Err("it is none of unix:///PATH, tcp://ADDRESS:PORT and ssh://[USER@]HOST[:PORT]");
        };
        let (destination, port) = match authority.rsplit_once(':') {
            Some((destination, port)) => (destination, Some(port.parse().map_err(|_| "its port is no number")?)),
            None => (authority, None),
        };
        let (user, host) = destination.split_once('@').unwrap_or(("nobody", destination));
        let is_user = !user.is_empty() && !user.starts_with('-') && user.bytes().all(is_plain);
        match is_user && is_host(host) {
            true => Ok(EngineHost::Ssh {
                destination: destination.to_owned(),
                port,
                config: ssh_config.map(Path::to_owned),
            }),
            false => Err("that is no [user@]host"),
        }
    }

    /// Whether folders and processes of this host are out of its reach.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self, EngineHost::Unix(_))
    }

    /// What `parse` reads again, with the folder of certificates and ssh's configuration.
    pub(crate) fn parts(&self) -> (String, Option<&Path>, Option<&Path>) {
        match self {
            EngineHost::Unix(_) => (self.to_string(), None, None),
            EngineHost::Tls { certificates, .. } => (self.to_string(), Some(certificates), None),
            EngineHost::Ssh { config, .. } => (self.to_string(), None, config.as_deref()),
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// A name or an address; never a word that a program takes for an option.
fn is_host(host: &str) -> bool {
    !host.is_empty() && !host.starts_with('-') && host.bytes().all(is_plain)
}

impl fmt::Display for EngineHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineHost::Unix(path) => write!(f, "unix://{}", path.display()),
            EngineHost::Tls { address, .. } => write!(f, "tcp://{address}"),
            EngineHost::Ssh { destination, port: Some(port), .. } => write!(f, "ssh://{destination}:{port}"),
            EngineHost::Ssh { destination, port: None, .. } => write!(f, "ssh://{destination}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_named_in_one_of_three_ways_and_read_again_as_it_was() {
        let tls = Some(Path::new("/etc/certs"));
        for url in
            ["unix:///run/docker.sock", "tcp://192.0.2.7:2376", "tcp://[fd00::1]:2376", "ssh://a@b:22", "ssh://b"]
        {
            let host = EngineHost::parse(url, tls, None).unwrap();
            let (again, tls, config) = host.parts();
            assert_eq!(again, url);
            assert_eq!(EngineHost::parse(&again, tls, config), Ok(host));
        }
        for url in [
            "",
            "/run/docker.sock",
            "unix://docker.sock",
            "http://a:1",
            "tcp://a",
            "tcp://a:x",
            "tcp://-a:1",
            "tcp://a b:1",
            "ssh://-oProxyCommand=x",
            "ssh://a@-b",
            "ssh://@b",
            "ssh://a b@c",
            "ssh://a@b:x",
            "ssh://a@b/c",
            "ssh://a;b@c",
        ] {
            assert!(EngineHost::parse(url, tls, None).is_err(), "{url}");
        }
        assert!(EngineHost::parse("tcp://192.0.2.7:1", None, None).is_err(), "without TLS");
        assert!(EngineHost::parse("ssh://a", None, Some(Path::new("config"))).is_err(), "a relative path");
    }
}
