//! Speaks the wire to a gateway: used by the command line.
//!
//! One connection, one reader: responses are matched by id, events come in order.

use crate::model::Secret;
use crate::wire::{self, AuthParams, ClientInfo, ConnectParams, PROTOCOL};
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
    /// `ws://` on loopback, with a token.
    Url {
        authority: String,
        token: Option<Secret<String>>,
    },
}

/// Why the gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFault {
    #[error("cannot reach the gateway at {at}: {cause}")]
    Unreachable { at: String, cause: io::Error },
    #[error("{0} is no address this command line connects to")]
    BadUrl(String),
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
    let (io, host, token) = open(target).await?;
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
        match ear.next().await? {
            Incoming::Event { name, .. } if name == "connect.challenge" => {}
            _ => return Err(ClientFault::Protocol("it did not send a challenge".into())),
        }
        let params = serde_json::to_value(introduction(scopes, token)).unwrap_or_default();
        let id = voice.ask("connect", Some(params)).await?;
        loop {
            if let Incoming::Response { id: answered, result } = ear.next().await?
                && answered == id
            {
                return result.map(|_| ()).map_err(ClientFault::Refused);
            }
        }
    };
    tokio::time::timeout(GREETING, greet).await.map_err(|_| ClientFault::Protocol("it does not greet".into()))??;
    Ok((voice, ear))
}

async fn open(target: &Target) -> Result<(Box<dyn Io>, String, Option<String>), ClientFault> {
    match target {
        Target::Socket(path) => {
            let stream = UnixStream::connect(path).await.map_err(|cause| unreachable(path, cause))?;
            Ok((Box::new(stream), "localhost".into(), None))
        }
        Target::Url { authority, token } => {
            let stream = TcpStream::connect(authority)
                .await
                .map_err(|cause| ClientFault::Unreachable { at: authority.clone(), cause })?;
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), authority.clone(), token.as_ref().map(|t| t.expose().clone())))
        }
    }
}

fn unreachable(path: &Path, cause: io::Error) -> ClientFault {
    ClientFault::Unreachable { at: path.display().to_string(), cause }
}

fn introduction(scopes: &[&str], token: Option<String>) -> ConnectParams {
    ConnectParams {
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
        auth: token.map(|token| AuthParams { token: Some(token), ..Default::default() }),
        locale: None,
        user_agent: None,
        computer_use: None,
        worker_runs: None,
        model_catalog: None,
    }
}

impl Target {
    /// Reads `ws://host:port`; only loopback, since the token would travel in the clear.
    pub(crate) fn url(url: &str, token: Option<Secret<String>>) -> Result<Self, ClientFault> {
        let bad = || ClientFault::BadUrl(url.to_owned());
        let authority = url.strip_prefix("ws://").ok_or_else(bad)?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !loopback || port.parse::<u16>().is_err() {
            return Err(bad());
        }
        Ok(Target::Url { authority: authority.to_owned(), token })
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
    fn a_token_is_sent_over_loopback_alone() {
        for good in ["ws://127.0.0.1:18789", "ws://localhost:1/", "ws://[::1]:18789"] {
            assert!(Target::url(good, None).is_ok(), "{good}");
        }
        for bad in
            ["ws://10.0.0.1:1", "wss://127.0.0.1:1", "http://127.0.0.1:1", "ws://127.0.0.1", "ws://evil.example:1", "x"]
        {
            assert!(Target::url(bad, None).is_err(), "{bad}");
        }
    }
}
