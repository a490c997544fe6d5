//! The service manager's watchdog is fed only while requests are answered: at the door, in the corridor, by every worker.
//!
//! Asked from a thread of its own, which needs none of what it asks about.

use super::notify;
use crate::gateway::Gateway;
use crate::os;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long one answer may take. Workers that wait for one another do so for less.
const PATIENCE: Duration = Duration::from_secs(5);
const MEETING: Duration = Duration::from_millis(250);

/// Begins to feed it, where there is one.
pub(super) fn start(gateway: Arc<Gateway>, socket: PathBuf, workers: usize) -> io::Result<()> {
    let Some(period) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let runtime = Handle::current();
    let feed = move || {
        loop {
            let begun = Instant::now();
            match ask(&gateway, &socket, &runtime, workers, PATIENCE.min(period / 4)) {
                Ok(()) => notify::alive(),
                Err(silent) => tracing::error!(silent, "the watchdog is not fed: no answer"),
            }
            thread::sleep((period / 4).saturating_sub(begun.elapsed()));
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(feed).map(drop)
}

/// Asks everything that a request needs; else who is silent.
fn ask(
    gateway: &Arc<Gateway>,
    socket: &Path,
    runtime: &Handle,
    workers: usize,
    patience: Duration,
) -> Result<(), &'static str> {
    at_the_door(socket, patience).map_err(|_| "the door")?;
    let gateway = Arc::clone(gateway);
    answers(runtime, async move { gateway.answers_itself().await }, patience).filter(|ok| *ok).ok_or("the corridor")?;
    let disk = async { tokio::task::spawn_blocking(|| ()).await.is_ok() };
    answers(runtime, disk, patience).ok_or("what waits for the disk")?;
    all_meet(runtime, workers).then_some(()).ok_or("a worker")
}

/// One request over the unix socket.
fn at_the_door(socket: &Path, patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    let mut stream = loop {
        match os::peer::connect_at_once(socket) {
            // Others stand at the door, as many as may; whether they are served, the rest tells.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                thread::sleep(MEETING / 5)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            connected => break connected?,
        }
    };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    match &head {
        b"HTTP/1.1 200" => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What a task of the runtime answers in time.
fn answers<T: Send + 'static>(
    runtime: &Handle,
    task: impl Future<Output = T> + Send + 'static,
    patience: Duration,
) -> Option<T> {
    let (sender, answer) = mpsc::channel();
    runtime.spawn(async move {
        let _ = sender.send(task.await);
    });
    answer.recv_timeout(patience).ok()
}

/// Whether every worker of the runtime is free to work: as many tasks wait for one another, so each needs one of its own.
fn all_meet(runtime: &Handle, workers: usize) -> bool {
    #[derive(Default)]
    struct Meeting {
        here: Mutex<(usize, Option<Instant>)>,
        came: Condvar,
    }
    let meeting: Arc<Meeting> = Arc::default();
    let join = move |meeting: Arc<Meeting>| {
        let mut here = meeting.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.0 += 1;
        // From the first who is there: until then others may have had their turn, which is no standstill.
        let until = *here.1.get_or_insert_with(|| Instant::now() + MEETING);
        meeting.came.notify_all();
        while here.0 < workers {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            here = meeting.came.wait_timeout(here, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    };
    let (sender, met) = mpsc::channel();
    for _ in 0..workers {
        let (meeting, sender) = (Arc::clone(&meeting), sender.clone());
        runtime.spawn(async move {
            let _ = sender.send(join(meeting));
        });
    }
    (0..workers).all(|_| met.recv_timeout(PATIENCE) == Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_stuck_is_noticed_though_others_work() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        assert!(all_meet(runtime.handle(), 2));
        let (stuck, is_stuck) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        runtime.spawn(async move {
            stuck.send(()).unwrap();
            let _ = released.recv();
        });
        is_stuck.recv().unwrap();
        assert!(!all_meet(runtime.handle(), 2));
        assert_eq!(answers(runtime.handle(), async { 7 }, PATIENCE), Some(7));
        drop(release);
        assert!(all_meet(runtime.handle(), 2));
    }
}
