//! HTTP/1.1: three probes and the upgrade to WebSocket. One closed table of routes.

use super::crowd::{Crowd, Place};
use super::{Door, HEAD_TIMEOUT, MAX_HEAD, websocket};
use crate::auth::Peer;
use crate::gateway::Gateway;
use crate::os;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

/// What a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The process lives.
    Live,
    /// Commands can be run.
    Ready,
    /// Start-up is over.
    Started,
}

/// Every route, and that it needs no credential. Anything else is 404; an upgrade on any path is the protocol.
const ROUTES: &[(&str, Route)] = &[
    ("/health", Route::Live),
    ("/healthz", Route::Live),
    ("/ready", Route::Ready),
    ("/readyz", Route::Ready),
    ("/startup", Route::Started),
    ("/startupz", Route::Started),
];

type Reply = Response<Full<Bytes>>;

/// A reply that refuses; boxed because it is rare and large.
type Refused = Box<Reply>;

/// Serves one connection until it ends or becomes a WebSocket.
pub(super) async fn serve<S: websocket::Stream>(
    door: Door,
    stream: S,
    gateway: Arc<Gateway>,
    crowd: Arc<Crowd>,
    place: Place,
) {
    // The place of a silent connection is given up when it becomes a WebSocket, which has one of its own.
    let place = Mutex::new(Some(place));
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer::<S>(&door, request, &gateway, &crowd, &place);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended early");
    }
}

fn answer<S: websocket::Stream>(
    door: &Door,
    mut request: Request<Incoming>,
    gateway: &Arc<Gateway>,
    crowd: &Arc<Crowd>,
    place: &Mutex<Option<Place>>,
) -> Reply {
    if let Err(refused) = check_host(door, request.headers()) {
        return *refused;
    }
    if is_upgrade(&request) {
        return match upgrade::<S>(door, &mut request, gateway, crowd) {
            Ok(reply) => {
                place.lock().unwrap_or_else(PoisonError::into_inner).take();
                reply
            }
            Err(refused) => *refused,
        };
    }
    let Some((_, route)) = ROUTES.iter().find(|(path, _)| *path == request.uri().path()) else {
        return error(StatusCode::NOT_FOUND, "not_found", "there is nothing here");
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "only GET and HEAD");
    }
    probe(*route, door, request.headers(), gateway)
}

fn probe(route: Route, door: &Door, headers: &HeaderMap, gateway: &Gateway) -> Reply {
    match route {
        Route::Live => reply(StatusCode::OK, &json!({"ok": true, "status": "live"})),
        // No version: who has not authenticated learns nothing to pick an exploit by.
        Route::Started => reply(StatusCode::OK, &json!({"ok": true, "status": "started"})),
        Route::Ready => {
            let failing = gateway.failing();
            let status = if failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let mut body = json!({"ready": failing.is_empty()});
            if is_direct(door, headers) {
                body["failing"] = json!(failing);
                body["uptimeMs"] = json!(gateway.uptime_ms());
            }
            reply(status, &body)
        }
    }
}

/// A page whose name was made to resolve to us must not reach us (DNS rebinding): only loopback names are ours.
fn check_host(door: &Door, headers: &HeaderMap) -> Result<(), Refused> {
    if matches!(door, Door::Unix { .. }) || has_loopback_host(headers) {
        return Ok(());
    }
    Err(error(StatusCode::FORBIDDEN, "host_not_allowed", "this Host is not served here").into())
}

fn has_loopback_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Headers by which a proxy says that it speaks for somebody else, besides every `x-forwarded-…`.
const FORWARDING: &[&str] = &[
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-remote-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
];

fn is_forwarded(headers: &HeaderMap) -> bool {
    let says =
        |name: &str| name.starts_with("x-forwarded") || name.starts_with("tailscale-") || FORWARDING.contains(&name);
    headers.keys().any(|name| says(name.as_str()))
}

/// Whether the peer is a process of this host and nothing says that it speaks for another.
fn is_direct(door: &Door, headers: &HeaderMap) -> bool {
    match door {
        Door::Unix { .. } => true,
        Door::Tcp { theirs, .. } => theirs.ip().is_loopback() && !is_forwarded(headers) && has_loopback_host(headers),
    }
}

fn is_upgrade(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(header::UPGRADE)
}

fn upgrade<S: websocket::Stream>(
    door: &Door,
    request: &mut Request<Incoming>,
    gateway: &Arc<Gateway>,
    crowd: &Arc<Crowd>,
) -> Result<Reply, Refused> {
    let headers = request.headers();
    if is_forwarded(headers) {
        return Err(error(
            StatusCode::FORBIDDEN,
            "proxy_attribution_required",
            "forwarding headers came from a peer that is not a trusted proxy",
        )
        .into());
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(error(StatusCode::FORBIDDEN, "origin_not_allowed", "no web page may connect").into());
    }
    let Some(key) = websocket_key(request) else {
        return Err(
            error(StatusCode::BAD_REQUEST, "bad_upgrade", "this is no WebSocket handshake of version 13").into()
        );
    };
    let Some(place) = crowd.upgrade(door.counted()) else {
        return Err(plain(StatusCode::SERVICE_UNAVAILABLE, "Too many unauthenticated sockets").into());
    };
    let peer = peer(door, request.headers());
    let upgraded = hyper::upgrade::on(request);
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => websocket::serve::<S>(upgraded, peer, gateway, place).await,
            Err(error) => tracing::trace!(%error, "an upgrade came to nothing"),
        }
    });
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    Ok(reply)
}

/// The answer to the client's key, where this is a handshake (RFC 6455, section 4.2.1).
fn websocket_key(request: &Request<Incoming>) -> Option<HeaderValue> {
    let headers = request.headers();
    let says = |name: HeaderName, word: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.split(',').any(|p| p.trim().eq_ignore_ascii_case(word)))
    };
    let asks = request.method() == Method::GET
        && says(header::UPGRADE, "websocket")
        && says(header::CONNECTION, "upgrade")
        && says(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| asks && key.len() == 24)?;
    HeaderValue::from_str(&tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes())).ok()
}

/// What the kernel and the head say of the other end.
fn peer(door: &Door, headers: &HeaderMap) -> Peer {
    match *door {
        Door::Unix { uid } => Peer::Unix { uid },
        Door::Tcp { theirs, ours } => {
            let local_uid = if is_direct(door, headers) { os::peer::owner_of_peer(theirs, ours) } else { None };
            Peer::Tcp { address: theirs.to_string(), local_uid, has_origin: headers.contains_key(header::ORIGIN) }
        }
    }
}

fn error(status: StatusCode, kind: &str, message: &str) -> Reply {
    reply(status, &json!({"error": {"message": message, "type": kind}}))
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    with_headers(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    with_headers(status, "application/json; charset=utf-8", Bytes::from(body.to_string()))
}

fn with_headers(status: StatusCode, kind: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    for (name, value) in [
        ("content-type", kind),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        reply.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn only_loopback_names_are_ours() {
        for host in ["127.0.0.1", "127.0.0.1:18789", "localhost", "LOCALHOST:1", "[::1]", "[::1]:18789", "127.9.9.9:5"]
        {
            assert!(has_loopback_host(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:18789",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "localhost.",
            "",
            "0.0.0.0",
            "127.0.0.1@evil",
            "[::1",
            "2130706433",
            "127.1",
        ] {
            assert!(!has_loopback_host(&headers(&[("host", host)])), "{host}");
        }
        assert!(!has_loopback_host(&headers(&[])));
    }

    #[test]
    fn every_spelling_of_a_forwarding_header_marks_a_request() {
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-prefix", "x-real-ip", "via", "x-client-ip"] {
            assert!(is_forwarded(&headers(&[(name, "x")])), "{name}");
        }
        assert!(!is_forwarded(&headers(&[("host", "localhost"), ("user-agent", "x")])));
    }
}
