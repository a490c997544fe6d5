//! Frames on a stream socket: read whole, bounded before anything is allocated; descriptors beside the first bytes.

use super::order::{MAX_FRAME, Message};
use crate::os::Sealed;
use crate::os::handover;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

/// Kind byte and run number.
const HEAD: usize = 9;

/// Whether a message is small enough for the other side.
pub(super) fn fits<M: Message>(message: &M) -> bool {
    HEAD + message.parts().1.len() <= MAX_FRAME
}

/// Writes one frame.
pub(super) async fn write<M: Message>(to: &mut (impl AsyncWrite + Unpin), run: u64, message: &M) -> io::Result<()> {
    to.write_all(&encode(run, message)?).await
}

/// Writes one frame with these values beside its first bytes.
///
/// # Errors
/// QuotaExceeded, and nothing is written, where too many are under way already.
pub(super) async fn write_beside<M: Message>(
    to: &mut OwnedWriteHalf,
    run: u64,
    message: &M,
    values: &[Sealed],
) -> io::Result<()> {
    let bytes = encode(run, message)?;
    if values.is_empty() {
        return to.write_all(&bytes).await;
    }
    let socket: &UnixStream = to.as_ref();
    let descriptors: Vec<BorrowedFd<'_>> = values.iter().map(AsFd::as_fd).collect();
    let sent = socket.async_io(Interest::WRITABLE, || handover::send(socket, &bytes, &descriptors)).await?;
    to.write_all(&bytes[sent..]).await
}

fn encode<M: Message>(run: u64, message: &M) -> io::Result<Vec<u8>> {
    let (kind, payload) = message.parts();
    let length = HEAD + payload.len();
    if length > MAX_FRAME {
        return Err(io::Error::other("a frame would be larger than the other side takes"));
    }
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend((length as u32).to_le_bytes());
    bytes.push(kind);
    bytes.extend(run.to_le_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

/// Reads one frame, and no byte beyond it; `None` at the end of the stream.
///
/// # Errors
/// InvalidData where it is too large, too small or none of this type.
pub(super) async fn read<M: Message>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u64, M)>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    };
    let length = u32::from_le_bytes(length) as usize;
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if !(HEAD..=MAX_FRAME).contains(&length) {
        return Err(invalid("a frame of a length that is not allowed"));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    let payload = frame.split_off(HEAD);
    let (kind, run) = frame.split_at(1);
    let run = u64::from_le_bytes(run.try_into().map_err(|_| invalid("a frame without a run number"))?);
    let message = M::from_parts(kind[0], payload).ok_or_else(|| invalid("a frame that is none of ours"))?;
    Ok(Some((run, message)))
}

#[cfg(test)]
mod tests {
    use super::super::order::Order;
    use super::*;

    fn read_all(mut bytes: &[u8]) -> io::Result<Option<(u64, Order)>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut bytes))
    }

    #[test]
    fn a_frame_is_read_as_written() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut bytes = Vec::new();
        runtime.block_on(write(&mut bytes, 7, &Order::Input(b"abc".to_vec()))).unwrap();
        assert_eq!(read_all(&bytes).unwrap(), Some((7, Order::Input(b"abc".to_vec()))));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
        for length in [0u32, 8, MAX_FRAME as u32 + 1, u32::MAX] {
            assert!(read_all(&length.to_le_bytes()).is_err(), "{length}");
        }
        assert_eq!(read_all(&[]).unwrap(), None);
    }
}
