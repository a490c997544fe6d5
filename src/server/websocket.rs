//! WebSocket frames to texts for the corridor and back; deadlines, pings, sizes.

use super::allowance::{Allowance, Limited};
use super::crowd::Place;
use crate::auth::Peer;
use crate::gateway::{Connection, Gateway, Outgoing, Outlet};
use crate::wire::{MAX_FRAME, MAX_PREAUTH_FRAME, close};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, interval_at, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

/// What both doors accept.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static> Stream for S {}

/// From the upgrade to a successful `connect`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two pings; who has not answered one by the next is gone.
const PING_EVERY: Duration = Duration::from_secs(25);

/// Small buffers: most connections are idle, and a large message grows them for as long as it lasts.
const BUFFER: usize = 4 << 10;

/// Header bytes that the frames of one handshake message may take on top of its payload.
const FRAME_HEADERS: usize = 256;

type Socket<S> = WebSocketStream<Limited<S>>;

/// Serves one WebSocket to its end.
pub(super) async fn serve<S: Stream>(upgraded: Upgraded, peer: Peer, gateway: Arc<Gateway>, place: Place) {
    let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else { return };
    let allowance = Allowance::of(MAX_PREAUTH_FRAME + FRAME_HEADERS);
    let stream = Limited::new(parts.io.into_inner(), allowance.clone());
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    let socket =
        WebSocketStream::from_partially_read(stream, parts.read_buf.to_vec(), Role::Server, Some(config)).await;
    let (mut sink, mut stream) = socket.split();
    let (connection, outlet) = Connection::open(gateway, peer);
    let alive = AtomicBool::new(true);
    // Both halves in one task: the first to end ends the other.
    tokio::select! {
        // Reading first: what it answers is then written in the same turn, without another wake.
        biased;
        () = read(&mut stream, connection, &allowance, place, &alive) => {}
        () = write(&mut sink, outlet, &alive) => {}
    }
    allowance.lift();
    if let Ok(socket) = sink.reunite(stream) {
        take_leave(socket.into_inner()).await;
    }
}

/// Lets the peer read our close: a socket closed with unread bytes is reset, and the close is lost with it.
async fn take_leave<S: Stream>(mut stream: Limited<S>) {
    const MOST: usize = 1 << 20;
    let drain = async {
        let _ = stream.shutdown().await;
        let mut bytes = [0; 4096];
        let mut read = 0;
        while read < MOST {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(n) => read += n,
            }
        }
    };
    let _ = timeout(Duration::from_secs(1), drain).await;
}

/// Writes what the corridor sends, and pings. Ends after a close, or when the client no longer answers.
async fn write<S: Stream>(sink: &mut SplitSink<Socket<S>, Message>, mut outlet: Outlet, alive: &AtomicBool) {
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        tokio::select! {
            outgoing = outlet.next() => {
                let Some(outgoing) = outgoing else { return };
                if !send(sink, outgoing, &mut outlet).await {
                    return;
                }
            }
            _ = ping.tick() => {
                if !alive.swap(false, Ordering::AcqRel) {
                    return;
                }
                if !in_time(sink.send(Message::Ping(Bytes::new()))).await {
                    return;
                }
            }
        }
    }
}

/// Writes one thing and everything that waits behind it; says whether the connection goes on.
async fn send<S: Stream>(sink: &mut SplitSink<Socket<S>, Message>, first: Outgoing, outlet: &mut Outlet) -> bool {
    let mut next = Some(first);
    while let Some(outgoing) = next {
        match outgoing {
            Outgoing::Text(text) => {
                let bytes = text.len();
                let fed = in_time(sink.feed(Message::text(text))).await;
                outlet.written(bytes);
                if !fed {
                    return false;
                }
            }
            Outgoing::Close(close) => {
                let frame = CloseFrame { code: close.code.into(), reason: close.reason.into() };
                in_time(sink.send(Message::Close(Some(frame)))).await;
                return false;
            }
        }
        next = outlet.try_next();
    }
    in_time(sink.flush()).await
}

/// Whether one write succeeded within the time that a ping may stay unanswered: a client that takes nothing for so
/// long is gone, one that takes slowly is not.
async fn in_time<E>(write: impl Future<Output = Result<(), E>>) -> bool {
    matches!(timeout(PING_EVERY, write).await, Ok(Ok(())))
}

/// Reads texts into the corridor until the client is gone.
async fn read<S: Stream>(
    stream: &mut SplitStream<Socket<S>>,
    mut connection: Connection,
    allowance: &Allowance,
    place: Place,
    alive: &AtomicBool,
) {
    let mut stranger = Some(place);
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    loop {
        let next = if connection.is_authenticated() {
            // Who does not read their answers is not asked for more requests.
            connection.room().await;
            stream.next().await
        } else {
            match timeout_at(deadline, stream.next()).await {
                Ok(next) => next,
                Err(_) => return end(&connection, close::NORMAL, "").await,
            }
        };
        alive.store(true, Ordering::Release);
        match next {
            Some(Ok(Message::Text(text))) => connection.on_text(&text).await,
            Some(Ok(Message::Binary(_))) => return end(&connection, close::NOT_TEXT, "frames are text").await,
            Some(Ok(_)) => {}
            Some(Err(error)) if is_too_big(&error) || allowance.is_spent() => {
                return end(&connection, close::TOO_BIG, "").await;
            }
            Some(Err(_)) | None => return,
        }
        if connection.is_authenticated() && stranger.take().is_some() {
            allowance.lift();
        }
    }
}

fn is_too_big(error: &Error) -> bool {
    matches!(error, Error::Capacity(CapacityError::MessageTooLong { .. }))
}

/// Queues a close and leaves the rest to the writer, which ends the connection after it.
async fn end(connection: &Connection, code: u16, reason: &str) {
    connection.close(code, reason);
    std::future::pending().await
}
