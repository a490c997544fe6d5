//! Everybody who is connected: presence, broadcasts, followers of the journal.

use super::outbox::Outbox;
use crate::auth::{Holder, Session};
use crate::model::{ConnId, DeviceId, Principal, Role};
use crate::os;
use crate::policy;
use crate::wire::{self, Close};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One authenticated connection as others see it.
struct Member {
    session: Arc<Session>,
    outbox: Outbox,
    /// Counts broadcasts to this connection, from 1; one dropped for a slow reader burns a number.
    seq: AtomicU64,
    follows_journal: AtomicBool,
    /// Whom it is counted for.
    holder: Option<Holder>,
}

/// Connections that one client may have. An agent that opens one for each command it runs side by side has enough.
const MOST_OF_ONE: usize = 256;

/// Connections of all clients together; the descriptors that a service may have are twice as many.
const MOST_IN_ALL: usize = 8192;

/// All members.
#[derive(Default)]
pub(super) struct Hub {
    members: Mutex<BTreeMap<ConnId, Member>>,
    held: Mutex<Held>,
}

/// How many connections everybody has who is counted.
#[derive(Default)]
struct Held {
    all: usize,
    of_one: HashMap<Holder, usize>,
}

impl Held {
    /// Counts one more; says whether it may be.
    fn take(&mut self, holder: &Holder) -> bool {
        let of_one = self.of_one.get(holder).copied().unwrap_or(0);
        if self.all >= MOST_IN_ALL || of_one >= MOST_OF_ONE {
            return false;
        }
        self.all += 1;
        self.of_one.insert(holder.clone(), of_one + 1);
        true
    }

    fn give_back(&mut self, holder: &Holder) {
        let Some(count) = self.of_one.get_mut(holder) else { return };
        *count -= 1;
        self.all -= 1;
        if *count == 0 {
            self.of_one.remove(holder);
        }
    }
}

impl Hub {
    /// Lets a connection in; false where its client has as many as it may have, or all together do.
    pub(super) fn join(&self, session: Arc<Session>, outbox: Outbox) -> bool {
        let holder = session.holder(os::process::uid());
        if let Some(holder) = &holder
            && !self.held().take(holder)
        {
            return false;
        }
        let member =
            Member { outbox, seq: AtomicU64::new(0), follows_journal: AtomicBool::new(false), session, holder };
        self.members().insert(member.session.conn, member);
        true
    }

    pub(super) fn leave(&self, conn: ConnId) {
        let gone = self.members().remove(&conn);
        if let Some(holder) = gone.and_then(|member| member.holder) {
            self.held().give_back(&holder);
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.members().len()
    }

    /// Sends an event about a device to those who may see it and read fast enough; who manages itself alone is told of
    /// itself alone.
    pub(super) fn tell(&self, name: &str, about: Option<&DeviceId>, payload: &Value) {
        let may_see = |principal: &Principal| {
            policy::may_see(principal, name)
                && (about.is_none() || !principal.manages_itself_alone() || principal.device.as_ref() == about)
        };
        for member in self.members().values().filter(|m| may_see(&m.session.principal)) {
            let seq = member.seq.fetch_add(1, Ordering::Relaxed) + 1;
            member.outbox.send_droppable(wire::event(name, payload, Some(seq)));
        }
    }

    /// Sends an event to one device alone.
    pub(super) fn tell_device(&self, device: &DeviceId, role: Role, name: &str, payload: &Value) {
        for member in self.members().values() {
            let principal = &member.session.principal;
            if principal.role == role && principal.device.as_ref() == Some(device) {
                member.outbox.send_droppable(wire::event(name, payload, None));
            }
        }
    }

    /// The devices that have a connection.
    pub(super) fn connected(&self) -> HashSet<DeviceId> {
        self.members().values().filter_map(|m| m.session.principal.device.clone()).collect()
    }

    /// The latest connection of every node.
    pub(super) fn nodes(&self) -> HashMap<DeviceId, Arc<Session>> {
        let nodes = |m: &&Member| m.session.principal.role == Role::Node;
        let members = self.members();
        let named = members
            .values()
            .filter(nodes)
            .filter_map(|m| Some((m.session.principal.device.clone()?, Arc::clone(&m.session))));
        named.collect()
    }

    /// Closes a connection, if it is of these sessions, once it has been sent the answer that is being made for it.
    pub(super) fn close_with_answer(&self, conn: ConnId, close: &Close, which: impl Fn(&Session) -> bool) {
        if let Some(member) = self.members().get(&conn).filter(|member| which(&member.session)) {
            member.outbox.end_with_answer(close.clone());
        }
    }

    /// Sends an event to everybody who reads fast enough.
    pub(super) fn broadcast(&self, name: &str, payload: &Value) {
        for member in self.members().values() {
            let seq = member.seq.fetch_add(1, Ordering::Relaxed) + 1;
            member.outbox.send_droppable(wire::event(name, payload, Some(seq)));
        }
    }

    /// This connection wants new entries of the journal from now on.
    pub(super) fn follow_journal(&self, conn: ConnId) {
        if let Some(member) = self.members().get(&conn) {
            member.follows_journal.store(true, Ordering::Relaxed);
        }
    }

    /// Sends a new entry to those who follow and may still see it.
    pub(super) fn tell_followers(&self, entry: &Value) {
        for member in self.members().values() {
            let follows = member.follows_journal.load(Ordering::Relaxed);
            if follows && policy::may_see(&member.session.principal, "journal.entry") {
                member.outbox.send_droppable(wire::event("journal.entry", entry, None));
            }
        }
    }

    /// Closes the connections of these sessions, and names them.
    pub(super) fn close_all(&self, close: &Close, which: impl Fn(&Session) -> bool) -> Vec<ConnId> {
        let members = self.members();
        let closed = members.values().filter(|m| which(&m.session)).map(|member| {
            member.outbox.close(close.clone());
            member.session.conn
        });
        closed.collect()
    }

    /// The presence list, protocol section 2.4: at most this many, the latest first.
    pub(super) fn presence(&self, most: usize) -> Value {
        let entries = self.members().values().rev().take(most).map(|m| entry(&m.session)).collect::<Vec<_>>();
        Value::Array(entries)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<ConnId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others see of a client: its own words, and what we know.
fn entry(session: &Session) -> Value {
    let client = &session.client;
    let scopes = session.principal.scopes.names();
    let mut entry = json!({
        "ts": session.since,
        "onlineSince": session.since,
        "mode": client.mode,
        "version": client.version,
        "platform": client.platform,
        "text": client.display_name.as_deref().unwrap_or(&client.id),
        "roles": [session.principal.role.as_str()],
        "scopes": scopes,
    });
    if let Some(device) = &session.principal.device {
        entry["deviceId"] = json!(device.0);
    }
    if let Some(family) = &client.device_family {
        entry["deviceFamily"] = json!(family);
    }
    entry
}
