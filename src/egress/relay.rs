//! Connections of one sandbox to stand-in addresses, joined to the real ones behind them.
//!
//! Keeps true: each connection is told of exactly once, refused, failed or connected, however its task ends.

use super::desk::Desk;
use super::order::Report;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Of one run, over all its ports.
pub(super) const MOST_CONNECTIONS: usize = 256;

/// For each address of a name.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// After an error of accept(2), which is a lack of memory or descriptors: connections in progress may give some back.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The next connection; `None` where there was none, after a pause.
pub(super) async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(_) => {
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// Joins connections to one port for ever.
pub(super) async fn serve(desk: Rc<Desk>, listener: TcpListener, port: u16, places: Arc<Semaphore>) {
    loop {
        let Some(stream) = accept(&listener).await else { continue };
        desk.turn().await;
        let Ok(dialled) = stream.local_addr() else { continue };
        let attempt = Attempt { desk: Rc::clone(&desk), name: None, port, address: dialled.ip(), is_told: false };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                spawn_local(async move {
                    carry(attempt, stream).await;
                    drop(place);
                });
            }
            Err(_) => {
                reset(&stream);
                attempt.refused("too many connections at once");
            }
        }
    }
}

async fn carry(mut attempt: Attempt, mut inside: TcpStream) {
    let real = match destination(&mut attempt) {
        Ok(real) => real,
        Err(why) => {
            reset(&inside);
            return attempt.refused(why);
        }
    };
    match connect(&mut attempt, &real).await {
        Ok(mut outside) => {
            attempt.connected();
            // Small writes go on as they came; the one who wrote them has waited already, if they wanted to.
            let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
            // An end is passed on for each direction by itself, an error for both: half of a download must not look
            // like the whole of it.
            if tokio::io::copy_bidirectional(&mut inside, &mut outside).await.is_err() {
                reset(&inside);
                reset(&outside);
            }
        }
        Err(Unconnected::Refused(why)) => {
            reset(&inside);
            attempt.refused(why);
        }
        Err(Unconnected::Failed(why)) => {
            reset(&inside);
            attempt.failed(&why);
        }
    }
}

/// What lies behind the address that was dialled, where its port may be used.
fn destination(attempt: &mut Attempt) -> Result<Vec<IpAddr>, &'static str> {
    let IpAddr::V4(dialled) = attempt.address else { return Err(NOTHING_BEHIND) };
    let desk = Rc::clone(&attempt.desk);
    let pins = desk.pins.borrow();
    let pin = pins.behind(dialled).ok_or(NOTHING_BEHIND)?;
    attempt.name = Some(pin.name.clone());
    desk.list.judge_port(&pin.name, attempt.port)?;
    if pin.real.is_empty() { Err("the name leads nowhere it may any more") } else { Ok(pin.real.clone()) }
}

const NOTHING_BEHIND: &str = "the address stands for no name";

enum Unconnected {
    Refused(&'static str),
    Failed(String),
}

/// Tries one address after the other. Each is judged once more: the host may have got it since.
async fn connect(attempt: &mut Attempt, real: &[IpAddr]) -> Result<TcpStream, Unconnected> {
    let mut last = None;
    for address in real {
        if let Err(why) = attempt.desk.judge(*address) {
            last.get_or_insert(Unconnected::Refused(why));
            continue;
        }
        attempt.address = *address;
        match timeout(CONNECT_DEADLINE, TcpStream::connect(SocketAddr::new(*address, attempt.port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = Some(Unconnected::Failed(e.to_string())),
            Err(_) => last = Some(Unconnected::Failed("no answer in time".to_owned())),
        }
    }
    Err(last.unwrap_or(Unconnected::Refused(NOTHING_BEHIND)))
}

/// Ends a connection as one that was never wanted, not as one that is done (RFC 9293, 3.10.7).
fn reset(stream: &TcpStream) {
    let _: io::Result<()> = stream.set_zero_linger();
}

/// A connection of which nothing was told yet.
struct Attempt {
    desk: Rc<Desk>,
    name: Option<String>,
    port: u16,
    /// The one that was dialled, later the one that is tried.
    address: IpAddr,
    is_told: bool,
}

impl Attempt {
    fn refused(mut self, why: &str) {
        let (name, port, address) = (self.name.take(), self.port, self.address);
        self.tell(Report::RefusedConnection { name, port, address, why: why.to_owned() });
    }

    fn failed(mut self, why: &str) {
        let (name, port, address) = (self.name.take().unwrap_or_default(), self.port, self.address);
        self.tell(Report::Failed { name, port, address, why: why.to_owned() });
    }

    fn connected(mut self) {
        let (name, port, address) = (self.name.take().unwrap_or_default(), self.port, self.address);
        self.tell(Report::Connected { name, port, address });
    }

    fn tell(&mut self, report: Report) {
        self.is_told = true;
        self.desk.outbox.say(report);
    }
}

impl Drop for Attempt {
    /// The run has ended while it was tried.
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let (port, address, why) = (self.port, self.address, "the run has ended".to_owned());
        let report = match self.name.take() {
            Some(name) => Report::Failed { name, port, address, why },
            None => Report::RefusedConnection { name: None, port, address, why },
        };
        self.tell(report);
    }
}
