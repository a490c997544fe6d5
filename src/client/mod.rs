//! Speaks the wire to a gateway: used by the command line.
//!
//! One connection, one reader: responses are matched by id, events come in order.

mod keyring;
mod tls;

pub(crate) use keyring::{Keyring, Known, device_id};

use crate::crypto;
use crate::model::{DeviceId, Secret};
use crate::wire::{self, AuthParams, ClientInfo, ConnectParams, DeviceParams, PROTOCOL};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Where a gateway is.
#[derive(Debug)]
pub(crate) enum Target {
    Socket(PathBuf),
    Remote(Box<Remote>),
}

/// A gateway at an address, and what we show it.
#[derive(Debug)]
pub(crate) struct Remote {
    address: Address,
    /// What a person gave us for it.
    pub(crate) auth: Shown,
    /// The certificate it must show, if a person said which.
    pub(crate) pin: Option<[u8; 32]>,
    pub(crate) keyring: Keyring,
}

/// Credentials from flags, variables or a setup code.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) token: Option<Secret<String>>,
    pub(crate) password: Option<Secret<String>>,
    pub(crate) setup_code: Option<Secret<String>>,
}

/// `ws://` on loopback, or `wss://` anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    is_tls: bool,
    host: String,
    port: u16,
}

impl Address {
    fn parse(url: &str) -> Option<Self> {
        let (is_tls, rest) = match (url.strip_prefix("wss://"), url.strip_prefix("ws://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return None,
        };
        let authority = rest.trim_end_matches('/');
        if authority.contains(['/', '@', '?', '#', ' ']) {
            return None;
        }
        let default = if is_tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, default),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let is_loopback = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        // Without TLS a token would travel in the clear.
        (!bare.is_empty() && (is_tls || is_loopback)).then_some(Address { is_tls, host: bare, port })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The one spelling under which it is remembered.
    fn name(&self) -> String {
        format!("{}://{}", if self.is_tls { "wss" } else { "ws" }, self.authority())
    }
}

/// Why the gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFault {
    #[error("cannot reach the gateway at {at}: {cause}")]
    Unreachable { at: String, cause: io::Error },
    #[error("{0} is no address this command line connects to")]
    BadUrl(String),
    #[error("{at} does not show the certificate that was expected of it")]
    OtherCertificate { at: String },
    #[error("{at} shows a certificate that this host does not trust: {cause}")]
    Untrusted { at: String, cause: io::Error },
    #[error("our own identity cannot be used: {0}")]
    Keyring(io::Error),
    #[error("the gateway does not speak our protocol: {0}")]
    Protocol(String),
    /// The gateway's own words.
    #[error("{}", .0.message)]
    Refused(Refusal),
    #[error("the connection ended: {0}")]
    Ended(String),
}

/// An error response.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) details: Value,
}

impl Refusal {
    /// The stable name of the failure.
    pub(crate) fn name(&self) -> &str {
        self.details["code"].as_str().unwrap_or(&self.code)
    }

    /// What the gateway says can be done.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.details["hint"].as_str()
    }
}

/// What comes from the gateway.
#[derive(Debug)]
pub(crate) enum Incoming {
    Event { name: String, payload: Value },
    Response { id: String, result: Result<Value, Refusal> },
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

type Socket = WebSocketStream<Box<dyn Io>>;

/// The writing half of a session.
pub(crate) struct Voice {
    sink: SplitSink<Socket, Message>,
    next: u64,
}

/// The reading half of a session.
pub(crate) struct Ear {
    stream: SplitStream<Socket>,
}

/// How long the gateway may take to greet.
const GREETING: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Any {
    r#type: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    error: Option<Refusal>,
}

/// Connects and authenticates.
///
/// # Errors
/// Where there is no gateway, or it does not let us in.
pub(crate) async fn connect(target: &Target, scopes: &[&str]) -> Result<(Voice, Ear), ClientFault> {
    greeted(target, scopes).await.map(|(voice, ear, _)| (voice, ear))
}

/// The same, with what the gateway greets us with.
pub(crate) async fn greeted(target: &Target, scopes: &[&str]) -> Result<(Voice, Ear, Value), ClientFault> {
    let known = match target {
        Target::Socket(_) => Known::default(),
        Target::Remote(remote) => remote.keyring.known(&remote.address.name()).map_err(ClientFault::Keyring)?,
    };
    let (io, host) = open(target, &known).await?;
    let ended = |e: tokio_tungstenite::tungstenite::Error| ClientFault::Protocol(e.to_string());
    let config =
        WebSocketConfig::default().max_message_size(Some(wire::MAX_FRAME)).max_frame_size(Some(wire::MAX_FRAME));
    let request = format!("ws://{host}/");
    let handshake = tokio_tungstenite::client_async_with_config(request, io, Some(config));
    let (socket, _) = tokio::time::timeout(GREETING, handshake)
        .await
        .map_err(|_| ClientFault::Protocol("it does not answer".into()))?
        .map_err(ended)?;
    let (sink, stream) = socket.split();
    let (mut voice, mut ear) = (Voice { sink, next: 0 }, Ear { stream });
    let greet = async {
        let nonce = match ear.next().await? {
            Incoming::Event { name, payload } if name == "connect.challenge" => {
                payload["nonce"].as_str().unwrap_or_default().to_owned()
            }
            _ => return Err(ClientFault::Protocol("it did not send a challenge".into())),
        };
        let params = introduction(target, scopes, &known, &nonce)?;
        let id = voice.ask("connect", Some(serde_json::to_value(params).unwrap_or_default())).await?;
        loop {
            if let Incoming::Response { id: answered, result } = ear.next().await?
                && answered == id
            {
                return result.map_err(ClientFault::Refused);
            }
        }
    };
    let greeting =
        tokio::time::timeout(GREETING, greet).await.map_err(|_| ClientFault::Protocol("it does not greet".into()))?;
    if let Target::Remote(remote) = target {
        remote.learn(known, &greeting).map_err(ClientFault::Keyring)?;
    }
    Ok((voice, ear, greeting?))
}

async fn open(target: &Target, known: &Known) -> Result<(Box<dyn Io>, String), ClientFault> {
    let remote = match target {
        Target::Socket(path) => {
            let stream = UnixStream::connect(path).await.map_err(|cause| unreachable(path, cause))?;
            return Ok((Box::new(stream), "localhost".into()));
        }
        Target::Remote(remote) => remote,
    };
    let authority = remote.address.authority();
    let at = remote.address.name();
    let stream =
        tokio::time::timeout(GREETING, TcpStream::connect((remote.address.host.as_str(), remote.address.port)))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
            .map_err(|cause| ClientFault::Unreachable { at: at.clone(), cause })?;
    let _ = stream.set_nodelay(true);
    // In the clear only to this very host, whatever a resolver makes of its name.
    let here = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    if !remote.address.is_tls && !here {
        return Err(ClientFault::BadUrl(at));
    }
    if !remote.address.is_tls {
        return Ok((Box::new(stream), authority));
    }
    let remembered = known.fingerprint.as_deref().and_then(crypto::parse_fingerprint);
    // What a person says now, and what was seen before, must be the same: a changed certificate is told, not learnt.
    let pin = match (remote.pin, remembered) {
        (Some(said), Some(seen)) if said != seen => return Err(ClientFault::OtherCertificate { at }),
        // Paired before, by a certificate that authorities vouch for: a pin for it now is not ours to learn in passing.
        (Some(_), None) if known.device_token.is_some() => return Err(ClientFault::OtherCertificate { at }),
        (said, seen) => said.or(seen),
    };
    let connecting = tokio::time::timeout(GREETING, tls::connect(stream, &remote.address.host, pin));
    match connecting.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))) {
        Ok(stream) => Ok((Box::new(stream), authority)),
        Err(cause) if cause.kind() != io::ErrorKind::InvalidData => Err(ClientFault::Unreachable { at, cause }),
        Err(_) if pin.is_some() => Err(ClientFault::OtherCertificate { at }),
        Err(cause) => Err(ClientFault::Untrusted { at, cause }),
    }
}

fn unreachable(path: &Path, cause: io::Error) -> ClientFault {
    ClientFault::Unreachable { at: path.display().to_string(), cause }
}

fn introduction(target: &Target, scopes: &[&str], known: &Known, nonce: &str) -> Result<ConnectParams, ClientFault> {
    let mut params = ConnectParams {
        min_protocol: PROTOCOL,
        max_protocol: PROTOCOL,
        client: ClientInfo {
            id: "cli".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            platform: std::env::consts::OS.into(),
            mode: "cli".into(),
            display_name: Some("vambrace".into()),
            build_id: None,
            device_family: None,
            model_identifier: None,
            time_zone: None,
            instance_id: None,
        },
        caps: Vec::new(),
        commands: None,
        permissions: None,
        path_env: None,
        role: Some("operator".into()),
        scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        device: None,
        auth: None,
        locale: None,
        user_agent: None,
        computer_use: None,
        worker_runs: None,
        model_catalog: None,
    };
    let Target::Remote(remote) = target else { return Ok(params) };
    let text = |secret: &Option<Secret<String>>| secret.as_ref().map(|s| s.expose().clone());
    let auth = AuthParams {
        token: text(&remote.auth.token),
        password: text(&remote.auth.password),
        bootstrap_token: text(&remote.auth.setup_code),
        device_token: known.device_token.clone().filter(|_| remote.auth.setup_code.is_none()),
        ..Default::default()
    };
    // On loopback a secret is enough: the kernel says whose process we are. Anywhere else we are a device.
    let has_secret = auth.token.is_some() || auth.password.is_some();
    let is_device = remote.address.is_tls || !has_secret;
    params.auth = Some(auth);
    if is_device {
        let key = remote.keyring.identity(&remote.address.name()).map_err(ClientFault::Keyring)?;
        // Without a pairing yet, what an operator's command line usually needs is asked for at once.
        if known.device_token.is_none() {
            for usual in ["operator.read", "operator.write"] {
                if !params.scopes.iter().any(|s| s == usual) {
                    params.scopes.push(usual.into());
                }
            }
        }
        sign(&mut params, &key, nonce);
    }
    Ok(params)
}

/// Adds the proof that we are the device with this key, on the connection of this nonce.
fn sign(params: &mut ConnectParams, key: &crypto::KeyPair, nonce: &str) {
    let id = device_id(key);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let payload = wire::signed_payload(3, params, &DeviceId(id.clone()), now, nonce);
    params.device = Some(DeviceParams {
        id,
        public_key: crypto::base64url(&key.public()),
        signature: crypto::base64url(&key.sign(payload.as_bytes())),
        signed_at: now,
        nonce: nonce.to_owned(),
    });
}

impl Remote {
    /// Remembers what a greeting told, and forgets a token that opens nothing any more.
    fn learn(&self, mut known: Known, greeting: &Result<Value, ClientFault>) -> io::Result<()> {
        let before = (known.fingerprint.clone(), known.device_token.clone());
        match greeting {
            Ok(hello) => {
                if let Some(token) = hello["auth"]["deviceToken"].as_str() {
                    known.device_token = Some(token.to_owned());
                }
            }
            Err(ClientFault::Refused(refusal)) if refusal.name() == "AUTH_DEVICE_TOKEN_MISMATCH" => {
                known.device_token = None;
            }
            Err(_) => {}
        }
        // Learnt with a greeting, or with a gateway's own word that an operator has to approve us.
        let spoke = match greeting {
            Ok(_) => true,
            Err(ClientFault::Refused(refusal)) => refusal.name() == "PAIRING_REQUIRED",
            Err(_) => false,
        };
        if let Some(pin) = self.pin.filter(|_| spoke) {
            known.fingerprint = Some(format!("sha256:{}", crypto::hex(&pin)));
        }
        if before != (known.fingerprint.clone(), known.device_token.clone()) {
            self.keyring.keep(&self.address.name(), &known)?;
        }
        Ok(())
    }

    /// The address under which it is remembered.
    pub(crate) fn name(&self) -> String {
        self.address.name()
    }
}

impl Target {
    /// Reads `wss://host[:port]`, or `ws://host[:port]` on loopback: in the clear no secret leaves this host.
    pub(crate) fn url(url: &str, auth: Shown, pin: Option<[u8; 32]>, keyring: Keyring) -> Result<Self, ClientFault> {
        let address = Address::parse(url).ok_or_else(|| ClientFault::BadUrl(url.to_owned()))?;
        Ok(Target::Remote(Box::new(Remote { address, auth, pin, keyring })))
    }
}

impl Voice {
    /// Sends a request and returns its id.
    pub(crate) async fn ask(&mut self, method: &str, params: Option<Value>) -> Result<String, ClientFault> {
        self.next += 1;
        let id = self.next.to_string();
        let text = wire::request(&id, method, params);
        self.sink.send(Message::text(text)).await.map_err(|e| ClientFault::Ended(e.to_string()))?;
        Ok(id)
    }

    /// Says goodbye.
    pub(crate) async fn close(&mut self) {
        let _ = self.sink.close().await;
    }
}

impl Ear {
    /// The next event or response.
    pub(crate) async fn next(&mut self) -> Result<Incoming, ClientFault> {
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(e)) => return Err(ClientFault::Ended(e.to_string())),
                None => return Err(ClientFault::Ended("the gateway closed it".into())),
            };
            let text = match &message {
                Message::Text(text) => text.as_str(),
                Message::Close(frame) => {
                    let reason =
                        frame.as_ref().map_or_else(String::new, |f| format!("{} {}", u16::from(f.code), f.reason));
                    return Err(ClientFault::Ended(reason));
                }
                _ => continue,
            };
            let any: Any = serde_json::from_str(text).map_err(|e| ClientFault::Protocol(e.to_string()))?;
            match any.r#type.as_str() {
                "event" => return Ok(Incoming::Event { name: any.event, payload: any.payload }),
                "res" => {
                    let result = match (any.ok, any.error) {
                        (true, _) => Ok(any.payload),
                        (false, Some(refusal)) => Err(refusal),
                        (false, None) => return Err(ClientFault::Protocol("an error without its reason".into())),
                    };
                    return Ok(Incoming::Response { id: any.id, result });
                }
                _ => {}
            }
        }
    }
}

/// Asks one thing and waits for the answer; events in between go to `on_event`.
pub(crate) async fn call(
    target: &Target,
    scopes: &[&str],
    method: &str,
    params: Option<Value>,
) -> Result<Value, ClientFault> {
    let (mut voice, mut ear) = connect(target, scopes).await?;
    let id = voice.ask(method, params).await?;
    loop {
        if let Incoming::Response { id: answered, result } = ear.next().await?
            && answered == id
        {
            voice.close().await;
            return result.map_err(ClientFault::Refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_leaves_this_host_in_tls_alone() {
        let name = |url: &str| Address::parse(url).map(|a| a.name());
        for (url, read) in [
            ("ws://127.0.0.1:18789", "ws://127.0.0.1:18789"),
            ("ws://localhost:1/", "ws://localhost:1"),
            ("ws://[::1]:18789", "ws://[::1]:18789"),
            ("wss://GW.example.org", "wss://gw.example.org:443"),
            ("wss://10.0.0.1:18789/", "wss://10.0.0.1:18789"),
            ("wss://[2001:db8::1]", "wss://[2001:db8::1]:443"),
        ] {
            assert_eq!(name(url).as_deref(), Some(read), "{url}");
        }
        for bad in [
            "ws://10.0.0.1:1",
            "http://127.0.0.1:1",
            "wss://",
            "wss://u:p@gw.example.org",
            "wss://gw.example.org/?token=x",
            "wss://gw.example.org:x",
            "ws://evil.example:1",
            "ws://127.0.0.1.evil.example:1",
            "x",
        ] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
