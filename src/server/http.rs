//! HTTP/1.1: probes, the twin of every method, and the upgrade to WebSocket. One closed table of routes.

use super::crowd::{Place, Who};
use super::origin::{Foreign, is_direct};
use super::{Door, HEAD_TIMEOUT, House, MAX_HEAD, rpc, websocket};
use crate::gateway::Gateway;
use crate::policy;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// A method, named by the rest of the path.
    Rpc,
}

/// Every route; what each needs stands in the table of `policy`. Anything else is 404; an upgrade on any path is the
/// protocol. One that ends in `/` takes the rest of the path.
const ROUTES: &[(&str, Route)] = &[
    ("/health", Route::Live),
    ("/healthz", Route::Live),
    ("/ready", Route::Ready),
    ("/readyz", Route::Ready),
    ("/startup", Route::Started),
    ("/startupz", Route::Started),
    ("/rpc/", Route::Rpc),
];

pub(super) type Reply = Response<Full<Bytes>>;

/// A reply that refuses; boxed because it is rare and large.
pub(super) type Refused = Box<Reply>;

/// Serves one connection until it ends or becomes a WebSocket.
pub(super) async fn serve<S: websocket::Stream>(door: Door, stream: S, house: Arc<House>, place: Place) {
    // The place of a silent connection is given up when it becomes a WebSocket, which has one of its own.
    let place = Mutex::new(Some(place));
    let has_asked = AtomicBool::new(false);
    let (house, place, has_asked) = (&house, &place, &has_asked);
    let service = service_fn(move |request| async move {
        has_asked.store(true, Ordering::Relaxed);
        let mut reply = answer::<S>(door, request, house, place).await;
        if *house.stop.borrow() && reply.status() != StatusCode::SWITCHING_PROTOCOLS {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(reply)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut stop = house.stop.clone();
    let served = tokio::select! {
        served = connection.as_mut() => served,
        _ = async { stop.wait_for(|stop| *stop).await.is_ok() } => {
            // One that rests between two requests ends now, one that has not asked yet after its first answer: hyper would
            // end that at once too.
            if has_asked.load(Ordering::Relaxed) {
                connection.as_mut().graceful_shutdown();
            }
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended early");
    }
}

async fn answer<S: websocket::Stream>(
    door: Door,
    mut request: Request<Incoming>,
    house: &Arc<House>,
    place: &Mutex<Option<Place>>,
) -> Reply {
    if is_upgrade(&request) {
        return match upgrade::<S>(&door, &mut request, house) {
            Ok(reply) => {
                place.lock().unwrap_or_else(PoisonError::into_inner).take();
                reply
            }
            Err(refused) => *refused,
        };
    }
    let Some((name, route)) = route(request.uri().path()) else {
        // Also to who would not be served at all: nothing is nowhere.
        return match house.names.now().serves_host(&door, request.headers(), false) {
            true => error(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
            false => foreign(Foreign::Host),
        };
    };
    match policy::need(name) {
        Some(policy::Need::Nothing) => probe(route, &door, &request, house),
        Some(_) => rpc::answer(&door, request, house).await,
        // A route that the table does not know is not served.
        None => error(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
    }
}

/// The route of a path, and the name of its line in the table.
fn route(path: &str) -> Option<(&'static str, Route)> {
    let fits = |name: &str| if name.ends_with('/') { path.starts_with(name) } else { path == name };
    ROUTES.iter().find(|(name, _)| fits(name)).copied()
}

fn probe(route: Route, door: &Door, request: &Request<Incoming>, house: &House) -> Reply {
    if !house.names.now().serves_host(door, request.headers(), false) {
        return foreign(Foreign::Host);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "only GET and HEAD");
    }
    match route {
        Route::Live | Route::Rpc => reply(StatusCode::OK, &json!({"ok": true, "status": "live"})),
        // No version: who has not authenticated learns nothing to pick an exploit by.
        Route::Started => reply(StatusCode::OK, &json!({"ok": true, "status": "started"})),
        Route::Ready => ready(is_direct(door, request.headers()), &house.gateway),
    }
}

fn ready(is_direct: bool, gateway: &Gateway) -> Reply {
    let failing = gateway.failing();
    let status = if failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({"ready": failing.is_empty()});
    if is_direct {
        body["failing"] = json!(failing);
        body["uptimeMs"] = json!(gateway.uptime_ms());
    }
    reply(status, &body)
}

fn is_upgrade(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(header::UPGRADE)
}

fn upgrade<S: websocket::Stream>(
    door: &Door,
    request: &mut Request<Incoming>,
    house: &Arc<House>,
) -> Result<Reply, Refused> {
    let rules = house.gateway.gatekeeper().proxy_rules();
    let peer = house.names.now().peer(door, request.headers(), rules.as_ref()).map_err(|why| Box::new(foreign(why)))?;
    let Some(key) = websocket_key(request) else {
        return Err(
            error(StatusCode::BAD_REQUEST, "bad_upgrade", "this is no WebSocket handshake of version 13").into()
        );
    };
    // Strangers behind a proxy are counted by their own addresses, not by the proxy's.
    let far = peer.client_ip().filter(|ip| !ip.is_loopback()).map(Who::At);
    let counted = far.or_else(|| door.counted(house.gateway.gatekeeper()));
    let Some(place) = house.crowd.upgrade(counted) else {
        return Err(plain(StatusCode::SERVICE_UNAVAILABLE, "Too many unauthenticated sockets").into());
    };
    let upgraded = hyper::upgrade::on(request);
    let gateway = Arc::clone(&house.gateway);
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

/// A head that is refused before anybody looks at credentials.
pub(super) fn foreign(why: Foreign) -> Reply {
    let (kind, message) = why.words();
    let mut body = json!({"error": {"message": message, "type": kind}});
    if why == Foreign::Origin {
        // What the original answers within the protocol, which here has not begun yet.
        body["error"]["code"] = json!("CONTROL_UI_ORIGIN_NOT_ALLOWED");
    }
    reply(StatusCode::FORBIDDEN, &body)
}

pub(super) fn error(status: StatusCode, kind: &str, message: &str) -> Reply {
    reply(status, &json!({"error": {"message": message, "type": kind}}))
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    with_headers(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

pub(super) fn reply(status: StatusCode, body: &Value) -> Reply {
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

    #[test]
    fn every_route_has_its_line_in_the_table_and_a_stranger_reaches_only_probes() {
        for (name, route) in ROUTES {
            let need = policy::need(name).unwrap_or_else(|| panic!("{name} has no line"));
            assert_eq!(need == policy::Need::Nothing, *route != Route::Rpc, "{name}");
        }
        assert_eq!(route("/rpc/status"), Some(("/rpc/", Route::Rpc)));
        for nowhere in ["/", "/rpc", "/healthz/", "/HEALTH", "//health", "/v1/rpc/status"] {
            assert_eq!(route(nowhere), None, "{nowhere}");
        }
    }
}
