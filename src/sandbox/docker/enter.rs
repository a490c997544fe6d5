//! The way into a container: a runner started in it, and its pipes.
//!
//! The engine sends output and error output in frames over one connection. They are passed on as they come, however long
//! they say they are: nothing of them is held here but one piece.

use super::answers::{fault, gone, is_id, plain};
use super::reach::{Reached, Way};
use crate::model::RunFault;
use bollard::exec::CreateExecOptions;
use hyper::body::{Body, Bytes};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::{Pin, pin};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Bytes of an entered container's output that are taken ahead of their reader.
const AHEAD: usize = 64 << 10;

/// Bytes of a frame that are in memory at a time, and of error output that are one line of our log.
const PIECE: usize = 16 << 10;

/// Both ways of a runner inside a container.
pub(crate) struct Entered {
    pub(crate) from: DuplexStream,
    pub(crate) to: Pin<Box<dyn AsyncWrite + Send>>,
    /// What takes its output out of the engine's hands.
    pub(crate) pump: AbortHandle,
}

/// Starts these words inside a container.
///
/// # Errors
/// Where the container is gone, or the engine.
pub(super) async fn enter(engine: &Reached, id: &str, words: &[String]) -> Result<Entered, RunFault> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(words.to_vec()),
        ..Default::default()
    };
    let made = engine.api.create_exec(id, options).await.map_err(|e| fault("enter the container", &e))?;
    let exec = Some(made.id).filter(|id| is_id(id)).ok_or_else(|| gone(id))?;
    let path = format!("/v{}/exec/{exec}/start", engine.api.client_version());
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    let begun = timeout(engine.way.patience.call, start(&engine.way, &path)).await.map_err(late).flatten();
    let upgraded = begun.map_err(|e| RunFault::Engine {
        what: format!("the container engine could not enter the container: {e}"),
        hint: "`docker info` and the engine's log tell more".into(),
    })?;
    let (output, to) = tokio::io::split(TokioIo::new(upgraded));
    let (from, ours) = tokio::io::duplex(AHEAD);
    let pump = tokio::task::spawn_local(async move {
        if let Err(error) = pass_on(output, ours).await {
            tracing::debug!(%error, "a container's output ended");
        }
    });
    Ok(Entered { from, to: Box::pin(to), pump: pump.abort_handle() })
}

/// The connection that a started exec becomes.
async fn start(way: &Way, path: &str) -> io::Result<Upgraded> {
    let stream = TokioIo::new(way.open().await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, "engine")
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .body(bollard::body_full(Bytes::from_static(br#"{"Detach":false,"Tty":false}"#)))
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other(format!("{}: {}", answer.status(), beginning(answer.into_body()).await)));
    }
    hyper::upgrade::on(answer).await.map_err(io::Error::other)
}

/// The first words of an answer that is none.
async fn beginning(body: impl Body<Data = Bytes>) -> String {
    let mut body = pin!(body);
    let first = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
    let bytes = first.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    plain(&String::from_utf8_lossy(&bytes[..bytes.len().min(PIECE)]))
}

/// Passes output on and logs error output, until either side ends.
async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        // Of one byte which stream it is, three that are nothing, and the length (Engine API, "Stream format").
        let mut header = [0; 8];
        if from.read_exact(&mut header).await.is_err() {
            return Ok(());
        }
        let [stream, _, _, _, length @ ..] = header;
        let mut left = u32::from_be_bytes(length) as usize;
        while left > 0 {
            let read = from.read(&mut piece[..left.min(PIECE)]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read;
            match stream {
                1 => to.write_all(&piece[..read]).await?,
                2 => tracing::debug!(inside = %String::from_utf8_lossy(&piece[..read]).trim_end().escape_debug()),
                _ => return Err(io::Error::other("the engine sends what is neither output nor error output")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_passed_on_piece_by_piece_and_nothing_else() {
        let frame =
            |stream: u8, bytes: &[u8]| [&[stream, 0, 0, 0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        let long = vec![b'x'; 3 * PIECE + 1];
        let said = [frame(1, &long), frame(2, b"its log"), frame(1, b""), frame(1, b"end")].concat();
        let mut passed = Vec::new();
        pass_on(&said[..], &mut passed).await.unwrap();
        assert_eq!(passed, [&long[..], b"end"].concat());

        // A frame that never ends is no more in memory than one that does.
        let endless = [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff].chain(tokio::io::repeat(b'x').take(u64::from(u32::MAX)));
        let (ours, mut theirs) = tokio::io::duplex(AHEAD);
        let ends = tokio::join!(pass_on(endless, ours), async move {
            let mut some = vec![0; AHEAD];
            theirs.read_exact(&mut some).await.unwrap();
        });
        assert_eq!(ends.0.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        for stream in [0, 3, b'\n'] {
            assert!(pass_on(&frame(stream, b"x")[..], &mut Vec::new()).await.is_err(), "{stream}");
        }
    }
}
