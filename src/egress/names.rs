//! The name server of one sandbox, over UDP and TCP: answers from the list, and asks the host's resolver for nothing
//! that is not on it.

use super::desk::Desk;
use super::dns::{Answer, Question, Unreadable, Wanted};
use super::order::Report;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How long the host's resolver may take; then the answer is a failure, and the asker asks again.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

/// Questions over UDP that wait at once; further ones are lost, as datagrams are.
const MOST_WAITING: usize = 128;

const MOST_CONNECTIONS: usize = 16;

/// Of a connection, to send its next question.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);

/// Answers datagrams for ever.
pub(super) async fn serve_udp(desk: Rc<Desk>, socket: UdpSocket) {
    let socket = Rc::new(socket);
    let waiting = Arc::new(Semaphore::new(MOST_WAITING));
    // A longer datagram is cut, and its question lies at the beginning.
    let mut bytes = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else {
            // A lack of memory; the socket itself goes on.
            tokio::time::sleep(super::relay::PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&waiting).try_acquire_owned() else { continue };
        let (desk, socket, query) = (Rc::clone(&desk), Rc::clone(&socket), bytes[..length].to_vec());
        spawn_local(async move {
            if let Some(answer) = answer(&desk, &query).await {
                let _ = socket.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

/// Answers connections for ever.
pub(super) async fn serve_tcp(desk: Rc<Desk>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Some(stream) = super::relay::accept(&listener).await else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let desk = Rc::clone(&desk);
        spawn_local(async move {
            let _ = converse(&desk, stream).await;
            drop(place);
        });
    }
}

/// One question after the other, each with its length before it (RFC 1035, 4.2.2).
async fn converse(desk: &Desk, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let read = timeout(CONNECTION_DEADLINE, async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await?;
            io::Result::Ok(query)
        });
        let query = read.await??;
        let Some(answer) = answer(desk, &query).await else { return Ok(()) };
        let mut bytes = (answer.len() as u16).to_be_bytes().to_vec();
        bytes.extend(answer);
        timeout(CONNECTION_DEADLINE, stream.write_all(&bytes)).await??;
    }
}

/// What is answered to these bytes, if anything.
async fn answer(desk: &Desk, query: &[u8]) -> Option<Vec<u8>> {
    match Question::read(query) {
        Ok(question) => {
            let answer = decide(desk, &question).await;
            Some(question.answer(answer))
        }
        Err(Unreadable::Answer(answer)) => Some(answer),
        Err(Unreadable::Silence) => None,
    }
}

async fn decide(desk: &Desk, question: &Question) -> Answer {
    let name = question.name.as_str();
    if let Err(why) = desk.list.judge_name(name) {
        if !question.is_reverse() {
            desk.tell_refused(name, why);
        }
        return Answer::NoSuchName;
    }
    if question.wanted == Wanted::Other {
        return Answer::Nothing;
    }
    if let Some(address) = desk.pins.borrow().fresh(name, Instant::now()) {
        return Answer::Address(address);
    }
    // In time also while others wait for a thread.
    timeout(LOOKUP_DEADLINE, find(desk, name)).await.unwrap_or(Answer::Failed)
}

/// Asks the host's resolver and pins what may be reached of it.
async fn find(desk: &Desk, name: &str) -> Answer {
    let Ok(place) = Arc::clone(&desk.lookups).acquire_owned().await else { return Answer::Failed };
    // Found by somebody else while we waited.
    if let Some(address) = desk.pins.borrow().fresh(name, Instant::now()) {
        return Answer::Address(address);
    }
    let asked = name.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        let found = (asked.as_str(), 0).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect::<Vec<IpAddr>>());
        // Given back when the thread is free, which may be long after the deadline.
        drop(place);
        found
    });
    let Ok(Ok(found)) = lookup.await else { return Answer::Failed };
    let real = match desk.sift(&found) {
        Ok(real) => real,
        Err(why) => {
            desk.pins.borrow_mut().empty(name);
            desk.tell_refused(name, &format!("it leads to {why}"));
            return Answer::NoSuchName;
        }
    };
    let first = real[0];
    let pinned = desk.pins.borrow_mut().pin(name, real, Instant::now());
    match pinned {
        Ok(address) => {
            desk.outbox.say(Report::Resolved { name: name.to_owned(), address: first });
            Answer::Address(address)
        }
        Err(full) => {
            desk.tell_refused(name, &full.to_string());
            Answer::Failed
        }
    }
}
