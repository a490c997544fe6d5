//! The way to an engine: its socket on this host, TLS to another machine, or its command line there over ssh.
//!
//! Where it is comes from the configuration, never from the environment.

use super::answers::plain;
use super::host::ABSENT;
use super::meter::Patience;
use crate::model::{EngineHost, RunFault};
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const SSH_OPTIONS: &[&str] = &[
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "PermitLocalCommand=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
];

/// Docker 20.10.
const LEAST_API: (usize, usize) = (1, 41);

/// An engine that was reached.
#[derive(Clone)]
pub(super) struct Reached {
    pub(super) api: Docker,
    pub(super) kind: Kind,
    /// The same engine without the API.
    pub(super) way: Arc<Way>,
}

/// Whose engine it is: what it can be asked for, and how it tells of a container, differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Docker,
    Podman,
}

/// An engine's API, at the version that both sides speak.
///
/// # Errors
/// Where it is not there, is too old, or does not say what it is.
pub(super) async fn connect(host: &EngineHost) -> Result<Reached, RunFault> {
    reach(host, Patience::USUAL).await
}

/// The same with another patience.
///
/// # Errors
/// As above.
pub(super) async fn reach(host: &EngineHost, patience: Patience) -> Result<Reached, RunFault> {
    let absent = |why: String| RunFault::Engine {
        what: format!("there is no container engine at {}: {why}", shown(host)),
        hint: match host {
            EngineHost::Unix(_) => ABSENT.into(),
            EngineHost::Tls { .. } => {
                "look at `docker.host` and the certificates in `docker.tls`; does the engine listen?".into()
            }
            EngineHost::Ssh { .. } => {
                "does `ssh` get in without a question, to a host that it knows, and is there `docker` on that machine? \
                                       `docker.ssh_config` names keys and known hosts"
                    .into()
            }
        },
    };
    let way = Arc::new(Way::prepare(host, patience).map_err(|e| absent(e.to_string()))?);
    let asked = Arc::clone(&way);
    let request = move |request: BollardRequest| {
        let way = Arc::clone(&asked);
        let answer: BoxFuture<'static, _> = Box::pin(async move { way.ask(request).await });
        answer
    };
    // Each connection has a deadline of its own, which is earlier.
    let last = patience.image.saturating_add(patience.connection).as_secs() + 1;
    let api = Docker::connect_with_custom_transport(request, Some("http://engine"), last, API_DEFAULT_VERSION)
        .map_err(|e| absent(short(&e)))?;
    let api = api.negotiate_version().await.map_err(|e| absent(short(&e)))?;
    let version = api.client_version();
    if (version.major_version, version.minor_version) < LEAST_API {
        return Err(RunFault::Engine {
            what: format!("the engine speaks API {version}, and {}.{} is the least", LEAST_API.0, LEAST_API.1),
            hint: "upgrade it: Docker 20.10 or Podman 4".into(),
        });
    }
    let told = api.version().await.map_err(|e| absent(short(&e)))?;
    let is_podman = told.components.iter().flatten().any(|part| part.name == "Podman Engine");
    Ok(Reached { api, kind: if is_podman { Kind::Podman } else { Kind::Docker }, way })
}

/// A socket by its path, as people know it.
fn shown(host: &EngineHost) -> String {
    match host {
        EngineHost::Unix(socket) => socket.display().to_string(),
        other => other.to_string(),
    }
}

/// How connections are made; each request has its own.
pub(super) struct Way {
    route: Route,
    pub(super) patience: Patience,
}

enum Route {
    Unix(PathBuf),
    Tls { address: SocketAddr, config: Arc<ClientConfig> },
    Ssh { arguments: Vec<String> },
}

impl Way {
    fn prepare(host: &EngineHost, patience: Patience) -> io::Result<Self> {
        let route = match host {
            EngineHost::Unix(socket) => Route::Unix(socket.clone()),
            EngineHost::Tls { address, certificates } => {
                Route::Tls { address: *address, config: Arc::new(of_both_sides(certificates)?) }
            }
            EngineHost::Ssh { destination, port, config } => {
                // Nobody is there to be asked, nothing else than this is wanted of that machine, and it is known or not
                // spoken to, whatever ssh's configuration says: what stands on the command line comes first.
                let mut arguments: Vec<String> = vec!["-T".into()];
                arguments.extend(SSH_OPTIONS.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
                arguments.extend(["-o".into(), format!("ConnectTimeout={}", patience.connection.as_secs())]);
                arguments.extend(config.iter().flat_map(|path| ["-F".to_owned(), path.display().to_string()]));
                arguments.extend(port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
                arguments.extend(["--".into(), destination.clone(), "docker system dial-stdio".into()]);
                Route::Ssh { arguments }
            }
        };
        Ok(Way { route, patience })
    }

    async fn ask(&self, mut request: BollardRequest) -> Result<hyper::Response<hyper::body::Incoming>, Error> {
        let metered = self.patience.allowance(request.uri().path()).meter(self.open().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(metered)).await?;
        // For as long as its answer is read.
        tokio::spawn(connection);
        // As over a socket: the path alone, and a name that is nobody's.
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = path.into();
        }
        request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("engine"));
        Ok(sender.send_request(request).await?)
    }

    /// A connection that nothing bounds.
    ///
    /// # Errors
    /// Where the engine is not reached, or not in time.
    pub(super) async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it is not reached in time");
        timeout(self.patience.connection, self.connection()).await.map_err(late)?
    }

    async fn connection(&self) -> io::Result<Box<dyn Stream>> {
        match &self.route {
            Route::Unix(socket) => Ok(Box::new(UnixStream::connect(socket).await?)),
            Route::Tls { address, config } => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                // An idle line to a machine that is gone would be found by the next command.
                socket.set_keepalive(true)?;
                let stream = socket.connect(*address).await?;
                let name = ServerName::IpAddress(address.ip().into());
                Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?))
            }
            Route::Ssh { arguments } => Ok(Box::new(Spoken::start(arguments)?)),
        }
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The authority that the engine's certificate must be of, and our own certificate.
fn of_both_sides(folder: &Path) -> io::Result<ClientConfig> {
    let named =
        |file: &str, e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", folder.join(file).display()));
    let certificates = |file: &'static str| -> io::Result<Vec<CertificateDer<'static>>> {
        let found = CertificateDer::pem_file_iter(folder.join(file)).map_err(|e| named(file, &e))?;
        found.collect::<Result<_, _>>().map_err(|e| named(file, &e))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca.pem")? {
        roots.add(authority).map_err(|e| named("ca.pem", &e))?;
    }
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).map_err(|e| named("key.pem", &e))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("cert.pem")?, key)
        .map_err(|e| named("cert.pem", &e))?;
    // Servers that look at our certificate each time do not all know how to resume a session.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A connection that ssh(1) carries. It ends with this.
struct Spoken {
    stream: UnixStream,
    ssh: Option<Child>,
}

impl Spoken {
    fn start(arguments: &[String]) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let theirs = OwnedFd::from(theirs);
        #[allow(clippy::disallowed_methods, reason = "the operator has named this way to the engine")]
        let ssh = Command::new("ssh")
            .args(arguments)
            .stdin(Stdio::from(theirs.try_clone()?))
            .stdout(Stdio::from(theirs))
            // Another machine's words, which would stand in our log as if they were ours.
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("ssh cannot be started: {e}")))?;
        Ok(Spoken { stream: UnixStream::from_std(ours)?, ssh: Some(ssh) })
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        let Some(mut ssh) = self.ssh.take() else { return };
        let _ = ssh.kill();
        // Killed, it is gone in no time, for which nobody waits.
        tokio::spawn(async move {
            while let Ok(None) = ssh.try_wait() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

impl AsyncRead for Spoken {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Spoken {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The words of an engine, or of the way to it, on one line.
pub(super) fn short(error: &Error) -> String {
    let text = match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                text = error.to_string();
                cause = error.source();
            }
            text
        }
    };
    plain(&text)
}
