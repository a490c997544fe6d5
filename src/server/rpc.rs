//! `POST /rpc/METHOD`: the twin of every method, through the same corridor and so with the same scopes (NET-12).
//!
//! From this host with what a peer shows there; from beyond it signed, always. The head is judged before a byte of
//! the body is read.

use super::http::{Refused, Reply, error, foreign, reply};
use super::origin::{Foreign, Names};
use super::{Door, House};
use crate::auth::{Gatekeeper, Peer, Refusal, Session, SignedHead, is_signed};
use crate::gateway::{self, Gateway};
use crate::model::ConnId;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Largest body, and how long it may take to come.
const MAX_BODY: usize = 1 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// What is taken beyond that and thrown away: closing on somebody who still sends would lose the answer on its way.
const MOST_DISCARDED: usize = 8 << 20;

pub(super) async fn answer(door: &Door, request: Request<Incoming>, house: &Arc<House>) -> Reply {
    let rules = house.gateway.gatekeeper().proxy_rules();
    let peer = match house.names.now().peer(door, request.headers(), rules.as_ref()) {
        Ok(peer) => peer,
        Err(why) => return foreign(why),
    };
    if let Err(refused) = check_shape(&request) {
        return *refused;
    }
    let gateway = &house.gateway;
    let conn = gateway.new_conn();
    match admitted(gateway.gatekeeper(), conn, &peer, request).await {
        Ok((session, method, body)) => call(gateway, session, &method, &body).await,
        Err(Stop::Reply(refused)) => *refused,
        Err(Stop::Refusal(refusal)) => {
            gateway.record_refused_connection(&peer, refusal.code());
            refused(&refusal)
        }
    }
}

/// Why a request goes no further.
enum Stop {
    Reply(Refused),
    Refusal(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refusal(refusal)
    }
}

/// A form or a plain link of another page cannot look like this (BRO-08).
fn check_shape(request: &Request<Incoming>) -> Result<(), Refused> {
    if Names::is_cross_site(request.headers()) {
        return Err(foreign(Foreign::Origin).into());
    }
    if request.method() != Method::POST {
        return Err(error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "only POST").into());
    }
    if request.uri().query().is_some() {
        return Err(error(StatusCode::BAD_REQUEST, "query_not_allowed", "parameters stand in the body, as JSON").into());
    }
    let kind = one(request.headers(), header::CONTENT_TYPE.as_str()).unwrap_or("");
    if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        let message = "the body must be application/json";
        return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).into());
    }
    Ok(())
}

/// The value of a header that stands there exactly once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()
}

async fn admitted(
    gatekeeper: &Gatekeeper,
    conn: ConnId,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<(Session, String, Bytes), Stop> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let method = path.strip_prefix("/rpc/").unwrap_or_default().to_owned();
    let headers = &head.headers;
    if !is_signed(&|name| headers.contains_key(name)) {
        let bearer = match headers.get_all(header::AUTHORIZATION).iter().count() {
            0 => None,
            _ => one(headers, "authorization").and_then(|v| v.strip_prefix("Bearer ")),
        };
        let session = gatekeeper.admit_bearer(conn, peer, bearer).await?;
        return Ok((session, method, read(body).await?));
    }
    let authority = one(headers, header::HOST.as_str()).unwrap_or_default().to_ascii_lowercase();
    let part = |name: &str| one(headers, name).unwrap_or_default();
    let signed = gatekeeper.check_signature(
        peer,
        &SignedHead {
            method: head.method.as_str(),
            authority: &authority,
            path,
            signature_input: part("signature-input"),
            signature: part("signature"),
            content_digest: part("content-digest"),
        },
    )?;
    let body = read(body).await?;
    let session = gatekeeper.accept_body(conn, peer, signed, &body).await?;
    Ok((session, method, body))
}

async fn read(mut body: Incoming) -> Result<Bytes, Stop> {
    let whole = async {
        let (mut kept, mut size) = (Vec::new(), 0);
        while size <= MAX_BODY + MOST_DISCARDED
            && let Some(frame) = body.frame().await
        {
            let Ok(data) = frame?.into_data() else { continue };
            size += data.len();
            if size <= MAX_BODY {
                kept.extend_from_slice(&data);
            }
        }
        Ok::<_, hyper::Error>((kept, size))
    };
    let refused = |status, kind, message| Err(Stop::Reply(error(status, kind, message).into()));
    match timeout(BODY_TIMEOUT, whole).await {
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come in time"),
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, "invalid_request", "the body broke off"),
        Ok(Ok((_, size))) if size > MAX_BODY => {
            refused(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "the body has more than 1 MiB")
        }
        Ok(Ok((kept, _))) => Ok(kept.into()),
    }
}

async fn call(gateway: &Arc<Gateway>, session: Session, method: &str, body: &[u8]) -> Reply {
    let Ok(text) = std::str::from_utf8(body) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "the body is not UTF-8");
    };
    // In a task of its own: a client that goes away ends what it runs, and breaks nothing off in the middle.
    let _leaving = Leaving(Arc::clone(gateway), session.conn);
    let (own, method, text) = (Arc::clone(gateway), method.to_owned(), text.to_owned());
    let Ok(called) = tokio::spawn(async move { gateway::call(&own, session, &method, &text).await }).await else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request was broken off");
    };
    let status = match &called.error_code {
        None => StatusCode::OK,
        Some("FORBIDDEN" | "NOT_PAIRED") => StatusCode::FORBIDDEN,
        Some("UNAVAILABLE") => StatusCode::SERVICE_UNAVAILABLE,
        Some(_) => StatusCode::BAD_REQUEST,
    };
    reply(status, &called.body)
}

/// Nobody waits for the answer any more: what runs for it is cancelled, and its end recorded.
struct Leaving(Arc<Gateway>, ConnId);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.cancel_runs_of(self.1);
    }
}

fn refused(refusal: &Refusal) -> Reply {
    let shape = gateway::refusal_json(refusal);
    let status = match refusal {
        Refusal::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Unavailable | Refusal::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    };
    let mut reply = reply(status, &json!({"ok": false, "error": shape}));
    if let Refusal::RateLimited { retry_after_ms } = refusal {
        let seconds = retry_after_ms.div_ceil(1000);
        reply.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        let value = header::HeaderValue::from_static("Bearer, Signature");
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    reply
}
