//! One connection: challenge, `connect`, then requests; transport-free.
//!
//! Texts come in through `on_text`, everything that goes out goes through the outbox.

use super::outbox::{Outbox, Outlet, outbox};
use super::{Gateway, pipeline, reply};
use crate::auth::{Admitted, Peer, Refusal, Session};
use crate::crypto;
use crate::model::ConnId;
use crate::wire::{self, Close, ConnectParams, ErrorCode, ErrorShape, Frame, HelloOk, HelloParts, Incoming, close};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests of one connection that may be in progress, and their bytes; more are told to come back.
const MAX_PENDING: usize = 256;
const MAX_PENDING_BYTES: usize = 8 << 20;

/// Others that a greeting shows; `system-presence` shows more. A greeting must not grow with the crowd.
const GREETED_PRESENCE: usize = 16;

/// Texts that are no request after which a connection is not worth keeping.
const MAX_INVALID: u32 = 10;

/// Requests that are not for its role after which neither is one.
const MAX_UNAUTHORIZED: usize = 10;

/// A connection's side of the corridor.
pub(crate) struct Connection {
    gateway: Arc<Gateway>,
    conn: ConnId,
    peer: Peer,
    nonce: String,
    session: Option<Arc<Session>>,
    outbox: Outbox,
    pending: Arc<Pending>,
    invalid: u32,
}

/// What of one connection is in progress.
#[derive(Default)]
pub(super) struct Pending {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Requests that were not for its role, since it connected.
    unauthorized: AtomicUsize,
}

/// One request's place among them, until its answer is sent.
pub(super) struct Place {
    gateway: Arc<Gateway>,
    pending: Arc<Pending>,
    bytes: usize,
}

impl Place {
    /// `None` where there are too many, or the gateway is stopping.
    pub(super) fn take(gateway: &Arc<Gateway>, pending: &Arc<Pending>, bytes: usize) -> Option<Self> {
        gateway.in_progress.fetch_add(1, Ordering::AcqRel);
        let requests = pending.requests.fetch_add(1, Ordering::AcqRel);
        let waiting = pending.bytes.fetch_add(bytes, Ordering::AcqRel);
        let place = Place { gateway: Arc::clone(gateway), pending: Arc::clone(pending), bytes };
        let fits = requests < MAX_PENDING && (waiting == 0 || waiting + bytes <= MAX_PENDING_BYTES);
        (fits && !gateway.is_closing()).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.requests.fetch_sub(1, Ordering::AcqRel);
        self.pending.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.gateway.in_progress.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connection {
    /// Opens a connection and queues its challenge.
    pub(crate) fn open(gateway: Arc<Gateway>, peer: Peer) -> (Self, Outlet) {
        let (outbox, outlet) = outbox();
        let (a, b) = ((gateway.parts.random)(), (gateway.parts.random)());
        let nonce = crypto::base64url(&[a, b].concat());
        let challenge = json!({"nonce": nonce, "ts": gateway.parts.clock.now(), "capabilities": []});
        outbox.send(wire::event("connect.challenge", &challenge, None));
        let connection = Connection {
            conn: gateway.new_conn(),
            gateway,
            peer,
            nonce,
            session: None,
            outbox,
            pending: Arc::default(),
            invalid: 0,
        };
        (connection, outlet)
    }

    /// Whether `connect` has succeeded.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.session.is_some()
    }

    /// Waits until the client has read most of what it was sent: a client that does not read is not read from.
    pub(crate) async fn room(&self) {
        self.outbox.room().await;
    }

    /// Ends the connection from our side.
    pub(crate) fn close(&self, code: u16, reason: &str) {
        self.outbox.close(Close::new(code, reason));
    }

    /// Takes one text message.
    pub(crate) async fn on_text(&mut self, text: &str) {
        match self.session.clone() {
            None => self.on_first(text).await,
            Some(session) => self.on_request(&session, text),
        }
    }

    /// Before authentication exactly one thing is understood: `connect`.
    async fn on_first(&mut self, text: &str) {
        if self.outbox.is_closed() {
            return; // refused already; a second `connect` changes nothing
        }
        let frame = match Incoming::read(text) {
            Incoming::Malformed => return self.close(close::NORMAL, ""),
            Incoming::Invalid { id, why } => {
                let shape = ErrorShape::new(ErrorCode::InvalidRequest, format!("invalid request frame: {why}"));
                return self.refuse_frame(id.as_deref(), shape, "invalid handshake");
            }
            Incoming::Request(frame) if frame.method != "connect" => {
                let shape =
                    ErrorShape::new(ErrorCode::InvalidRequest, "invalid handshake: first request must be connect");
                return self.refuse_frame(Some(&frame.id), shape, "invalid handshake: first request must be connect");
            }
            Incoming::Request(frame) => frame,
        };
        let params = match ConnectParams::read(frame.params.as_deref()) {
            Ok(params) => params,
            Err(why) => {
                let message = format!("invalid connect params: {why}");
                let shape = ErrorShape::new(ErrorCode::InvalidRequest, message.clone());
                return self.refuse_frame(Some(&frame.id), shape, &message);
            }
        };
        let now = self.gateway.parts.clock.now();
        match self.gateway.parts.gatekeeper.admit(self.conn, &self.peer, &self.nonce, &params, now).await {
            Ok(admitted) => self.welcome(&frame, admitted),
            Err(refusal) => self.turn_away(&frame, &refusal),
        }
    }

    fn welcome(&mut self, frame: &Frame, admitted: Admitted) {
        let Admitted { session, device_token } = admitted;
        let session = Arc::new(session);
        let gateway = &self.gateway;
        if !gateway.hub.join(Arc::clone(&session), self.outbox.clone()) {
            return self.turn_away(frame, &Refusal::TooManyConnections);
        }
        self.session = Some(Arc::clone(&session));
        // What was taken away between the check and the joining closed everybody else's connection, but not this one.
        if !gateway.parts.gatekeeper.stands(&session) {
            return self.outbox.close(Close::new(close::AUTH_CHANGED, "gateway auth changed"));
        }
        let principal = &session.principal;
        let parts = HelloParts {
            conn_id: session.conn.to_string(),
            boot_id: gateway.boot_id.clone(),
            role: principal.role,
            scopes: principal.scopes,
            method: principal.credential.as_str(),
            device_token,
            // Who may not read presence is not shown it in the greeting either.
            presence: if principal.scopes.covers(crate::model::Scope::Read) {
                gateway.hub.presence(GREETED_PRESENCE)
            } else {
                json!([])
            },
            health: json!({"ok": true}),
            uptime_ms: gateway.uptime_ms(),
        };
        self.outbox.send(HelloOk::response(&frame.id, &parts));
        tracing::debug!(
            conn_id = %session.conn, principal = %principal.label(), role = principal.role.as_str(), "connected"
        );
    }

    fn turn_away(&self, frame: &Frame, refusal: &Refusal) {
        self.gateway.record_refused_connection(&self.peer, refusal.code());
        let shape = reply::refusal(refusal);
        let mut reason = shape.message.clone();
        if let Refusal::PairingRequired(waiting) = refusal {
            reason = format!("{reason} (requestId: {})", waiting.request.as_str());
        }
        self.outbox.send(wire::response(&frame.id, &Err(shape)));
        let code = if matches!(refusal, Refusal::Protocol { .. }) { close::PROTOCOL_MISMATCH } else { close::POLICY };
        self.close(code, &reason);
    }

    fn refuse_frame(&self, id: Option<&str>, shape: ErrorShape, reason: &str) {
        if let Some(id) = id {
            self.outbox.send(wire::response(id, &Err(shape)));
        }
        self.close(close::POLICY, reason);
    }

    fn on_request(&mut self, session: &Arc<Session>, text: &str) {
        // What came before we closed is not answered after it: a revoked device asks for nothing more.
        if self.outbox.is_closed() {
            return;
        }
        let frame = match Incoming::read(text) {
            Incoming::Request(frame) => frame,
            Incoming::Malformed => return self.count_invalid(),
            Incoming::Invalid { id, why } => {
                if let Some(id) = id {
                    let shape = ErrorShape::new(ErrorCode::InvalidRequest, format!("invalid request frame: {why}"));
                    self.outbox.send(wire::response(&id, &Err(shape)));
                }
                return self.count_invalid();
            }
        };
        let Some(place) = Place::take(&self.gateway, &self.pending, text.len()) else {
            let shape = ErrorShape::new(ErrorCode::Unavailable, "too many requests in progress on this connection");
            return self.outbox.send(wire::response(&frame.id, &Err(shape.retry())));
        };
        let (gateway, session, outbox) = (Arc::clone(&self.gateway), Arc::clone(session), self.outbox.clone());
        // Unconstrained: the runtime's budget for one task must not make a request wait behind a later one.
        let mut answering = Box::pin(tokio::task::unconstrained(async move {
            let answer = pipeline::answer(&gateway, &session, &frame, &outbox).await;
            outbox.answer(wire::response(&frame.id, &answer));
            if answer.is_err_and(|shape| shape.is_for_another_role())
                && place.pending.unauthorized.fetch_add(1, Ordering::Relaxed) >= MAX_UNAUTHORIZED
            {
                outbox.close(Close::new(close::POLICY, "repeated unauthorized calls"));
            }
            drop(place);
        }));
        // Begun here, in the order the requests came, so that pieces of input stay in order; what has to wait goes
        // on in a task of its own.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if answering.as_mut().poll(&mut context).is_pending() {
            tokio::spawn(answering);
        }
    }

    fn count_invalid(&mut self) {
        self.invalid += 1;
        if self.invalid >= MAX_INVALID {
            self.close(close::POLICY, "repeated invalid frames");
        }
    }
}

impl Drop for Connection {
    /// The client is gone: nobody reads what its commands say, so they end.
    fn drop(&mut self) {
        // First closed, then cancelled: a run that begins in between sees that nobody will read it.
        self.outbox.close(Close::new(close::NORMAL, ""));
        if self.session.is_some() {
            self.gateway.hub.leave(self.conn);
            self.gateway.cancel_runs_of(self.conn);
        }
    }
}
