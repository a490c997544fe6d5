//! The helper that carries one run's connections out: `vambrace egress`, started with the doors of its sandbox.
//!
//! It reads what a sandbox sends, so nothing it says is believed beyond the form of its reports.

use crate::egress::{ENVIRONMENT, Order, Report, Reports};
use crate::model::Domain;
use crate::os;
use crate::os::handover;
use crate::sandbox::Lent;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// How long its last reports are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where helpers come from.
#[derive(Debug, Clone)]
pub(crate) enum Helpers {
    /// Started by us, from this program.
    Own,
    /// A service starts one for each connection to this socket: we have no network of our own.
    Service(PathBuf),
}

/// A running helper. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct WayOut {
    /// Where it is ours; another ends with its stream.
    child: Option<process::Child>,
    stream: StdStream,
    /// The uid it has; given back after its end.
    _lent: Option<Lent>,
}

impl WayOut {
    /// Starts the helper of one run; `doors` are name server and listeners in the order of the domains' ports.
    ///
    /// # Errors
    /// Where it cannot be started or told.
    pub(crate) fn open(
        helpers: &Helpers,
        domains: &[Domain],
        doors: &[OwnedFd],
        lent: Option<Lent>,
    ) -> io::Result<Self> {
        let order = Order::new(domains.to_vec(), os::host::addresses()).map_err(io::Error::other)?;
        let bytes = order.encode().map_err(io::Error::other)?;
        let (stream, child) = match helpers {
            Helpers::Own => start(lent.as_ref()).map(|(stream, child)| (stream, Some(child)))?,
            Helpers::Service(socket) => (StdStream::connect(socket)?, None),
        };
        let out = WayOut { child, stream, _lent: lent };
        let beside: Vec<BorrowedFd<'_>> = doors.iter().map(AsFd::as_fd).collect();
        let mut sent = handover::send(&out.stream, &bytes, &beside)?;
        while sent < bytes.len() {
            sent += handover::send(&out.stream, &bytes[sent..], &[])?;
        }
        Ok(out)
    }
}

/// Starts one of our own, with this uid where it has one.
fn start(lent: Option<&Lent>) -> io::Result<(StdStream, process::Child)> {
    let (ours, theirs) = StdStream::pair()?;
    #[allow(clippy::disallowed_methods, reason = "this is what the runner starts besides sandboxes: their way out")]
    // This very program, also where another lies in its place since.
    let mut command = process::Command::new("/proc/self/exe");
    command.arg0("vambrace").arg("egress").env_clear().env(ENVIRONMENT.0, ENVIRONMENT.1);
    if let Some(lent) = lent {
        command.arg("--uid").arg(lent.uid.to_string());
    }
    let child = command.stdin(OwnedFd::from(theirs)).stdout(process::Stdio::null()).spawn()?;
    Ok((ours, child))
}

impl Drop for WayOut {
    fn drop(&mut self) {
        // Also what `rest` has left open.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What it says, as it comes.
pub(super) struct Said {
    stream: UnixStream,
    reports: Reports,
}

impl Said {
    /// Begins to listen.
    pub(super) fn by(out: &WayOut) -> io::Result<Self> {
        let stream = out.stream.try_clone()?;
        stream.set_nonblocking(true)?;
        Ok(Said { stream: UnixStream::from_std(stream)?, reports: Reports::default() })
    }

    /// The next reports; `None` at its end, or where it says what is none.
    pub(super) async fn next(&mut self) -> Option<Vec<Report>> {
        let mut bytes = [0; 2048];
        let read = self.stream.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
        match self.reports.take(&bytes[..read]) {
            Ok(reports) => Some(reports),
            Err(error) => {
                tracing::warn!(%error, "reports of connections end here");
                None
            }
        }
    }

    /// Says that the run has ended and takes what is still reported.
    pub(super) async fn rest(&mut self, out: &WayOut) -> Vec<Report> {
        let _ = out.stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let read = async {
            while let Some(reports) = self.next().await {
                rest.extend(reports);
            }
        };
        let _ = tokio::time::timeout(PATIENCE, read).await;
        rest
    }
}
