//! The corridor: one request from frame to answer, the same for every door.
//!
//! Knows no sockets: `connection` takes texts and gives texts, so that the whole story runs in a test
//! over channels. `pipeline` is the story; every other file is one word of it.

mod call;
mod connection;
mod hub;
mod lockdown;
mod methods;
mod outbox;
mod pipeline;
mod recorded;
mod reply;

pub(crate) use call::{call, refusal_json};
pub(crate) use connection::Connection;
pub(crate) use outbox::{Outgoing, Outlet};

use crate::auth::{Gatekeeper, Notice, Peer, Rules, Session};
use crate::crypto::KeyPair;
use crate::journal::{Entry, Event, Journal, JournalFault, Record};
use crate::model::{Backend, Clock, ConnId, RunId, Secret, Steady, UnixMillis};
use crate::os;
use crate::os::memory::Locked;
use crate::policy::Policy;
use crate::runner::{Remote, RunnerState, Runners};
use crate::secrets::Secrets;
use crate::store::StoreFault;
use crate::wire::{Close, close};
use hub::Hub;
use lockdown::Lockdown;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};

/// Keeps the shared secrets: reads them, replaces them. The composition root gives the store's.
pub(crate) trait TokenKeeper: Send + Sync {
    /// The token as it is.
    fn show(&self) -> Result<Secret<String>, String>;
    /// Makes a new token and keeps it.
    fn rotate(&self) -> Result<Secret<String>, String>;
    /// Keeps the bcrypt hash of a password.
    fn set_password(&self, hash: &str) -> Result<(), String>;
}

/// A wish to have the configuration read again. The answer names what of it needs a restart, or says why it was not taken.
pub(crate) struct Reload {
    /// Whose connection stays until it has its answer, whatever the new rules say of it.
    pub(crate) asker: ConnId,
    pub(crate) answer: oneshot::Sender<Result<Vec<&'static str>, String>>,
}

/// Why the corridor cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFault {
    #[error(transparent)]
    Journal(#[from] JournalFault),
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// What the corridor is made of.
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: fn() -> [u8; 16],
    pub(crate) gatekeeper: Gatekeeper,
    pub(crate) token: Arc<dyn TokenKeeper>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) identity: Locked<KeyPair>,
    pub(crate) policy: Policy,
    pub(crate) journal: Journal,
    pub(crate) runners: Runners,
    pub(crate) facts: Facts,
    /// To the composition root, which knows files.
    pub(crate) reloads: mpsc::Sender<Reload>,
    pub(crate) resident_bytes: fn() -> u64,
    /// The fingerprint of the certificate in force, where there is TLS.
    pub(crate) fingerprint: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// What `status` tells of this process.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) host: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) state_dir: PathBuf,
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) pid: u32,
    /// What confines this process: 0 where the kernel has no Landlock.
    pub(crate) landlock_abi: u8,
    /// What that lacks.
    pub(crate) weaker: Option<String>,
    /// How others reach us, where they can: `ws://` or `wss://`, without a path.
    pub(crate) url: Option<String>,
    pub(crate) auth_mode: &'static str,
}

/// The gateway: shared by all connections.
pub(crate) struct Gateway {
    parts: Parts,
    hub: Hub,
    boot_id: String,
    /// Since when we run; does not change with what the host's clock is set to.
    started: Steady,
    next_conn: AtomicU64,
    runs: Mutex<HashMap<RunId, (ConnId, Remote)>>,
    /// Requests that came without a connection of their own, while they are answered.
    calls: Mutex<HashMap<ConnId, Arc<Session>>>,
    /// One change of token or password at a time: what is kept and what is in force are one.
    credentials: tokio::sync::Mutex<()>,
    in_progress: AtomicUsize,
    closing: AtomicBool,
    lockdown: Lockdown,
    policy: RwLock<Arc<Policy>>,
    in_use: Arc<methods::InUse>,
    strangers: Mutex<Strangers>,
    denials: Mutex<Denials>,
}

/// Refused connections are recorded one by one up to this many in a minute; more are counted.
const RECORDED_STRANGERS: u32 = 20;

/// Refused connections of the running minute: whoever is outside must not be able to fill the disk.
#[derive(Default)]
struct Strangers {
    minute: UnixMillis,
    recorded: u32,
    counted: u64,
}

/// Denied requests of one principal are recorded one by one up to this many in a minute; more are counted.
const RECORDED_DENIALS: u32 = 60;

/// Principals that are told apart in one minute.
const MOST_DENIED: usize = 1024;

/// Denied requests of the running minute: whoever is inside must not be able to fill the disk with them either.
#[derive(Default)]
struct Denials {
    minute: UnixMillis,
    recorded: HashMap<String, u32>,
    counted: u64,
}

impl Gateway {
    /// Opens the corridor and writes its first record.
    ///
    /// # Errors
    /// Where the journal does not take it, or the store does not say whether everything is locked down.
    pub(crate) fn open(parts: Parts) -> Result<Arc<Self>, OpenFault> {
        let lockdown = Lockdown::open(parts.secrets.store())?;
        parts.runners.hold(lockdown.is_on());
        let _receipt = parts.journal.append(Record::new(Event::GatewayStarted))?;
        let gateway = Arc::new(Gateway {
            boot_id: RunId::from_random((parts.random)()).as_str().to_owned(),
            started: Steady::begin(&*parts.clock),
            hub: Hub::default(),
            next_conn: AtomicU64::new(1),
            runs: Mutex::default(),
            calls: Mutex::default(),
            credentials: tokio::sync::Mutex::default(),
            in_progress: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            lockdown,
            policy: RwLock::new(Arc::new(parts.policy.clone())),
            in_use: Arc::default(),
            strangers: Mutex::default(),
            denials: Mutex::default(),
            parts,
        });
        let weak = Arc::downgrade(&gateway);
        gateway.registry().follow(Box::new(move |notice: &Notice| {
            if let Some(gateway) = weak.upgrade() {
                gateway.spread(notice);
            }
        }));
        let weak = Arc::downgrade(&gateway);
        gateway.parts.journal.follow(Box::new(move |entry: &Entry| {
            if let Some(gateway) = weak.upgrade() {
                gateway.hub.tell_followers(&methods::entry_json(entry));
            }
        }));
        Ok(gateway)
    }

    /// The operator's rules as they are now; what was judged by others goes on by them.
    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these rules hold. Connections stay, but for those of somebody whom they do not let in; one of them
    /// that asked for it has its answer first.
    ///
    /// # Errors
    /// Where the journal does not take it; nothing has changed then.
    pub(crate) fn replace_rules(
        &self,
        policy: Policy,
        rules: Rules,
        asker: Option<ConnId>,
    ) -> Result<(), JournalFault> {
        let _receipt = self.parts.journal.append(Record::new(Event::ConfigReloaded))?;
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        let changed = self.gatekeeper().replace_rules(rules);
        // Under other rules whoever is in may have come in with more than they would get now: devices hold what they hold,
        // all others knock again.
        let gone = |session: &Session| !self.gatekeeper().stands(session) || (changed && session.grant.is_none());
        let changed = Close::new(close::AUTH_CHANGED, "gateway auth changed");
        if let Some(asker) = asker {
            self.hub.close_with_answer(asker, &changed, gone);
        }
        self.close_where(&changed, |session| gone(session) && Some(session.conn) != asker);
        Ok(())
    }

    /// Records that a configuration was not taken, and why.
    pub(crate) fn record_refused_configuration(&self, why: &str) {
        if let Err(error) = self.parts.journal.append(Record::new(Event::ConfigRefused).error(why)) {
            tracing::error!(%error, "cannot record that a configuration was refused");
        }
    }

    /// Whether a request of our own comes through the corridor.
    pub(crate) async fn answers_itself(self: &Arc<Self>) -> bool {
        let session = self.gatekeeper().own_session(self.new_conn(), os::process::uid());
        call(self, session, "health", "").await.error_code.is_none()
    }

    /// Milliseconds since this gateway was opened.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.started.elapsed(&*self.parts.clock)
    }

    /// What is missing for commands to run; empty when the gateway is ready.
    pub(crate) fn failing(&self) -> Vec<&'static str> {
        let policy = self.policy();
        let missing = |(backend, state): (Backend, RunnerState)| match (backend, state.connected, state.unable) {
            (Backend::Native, false, _) => Some("runner"),
            (Backend::Docker, false, _) => Some("docker-runner"),
            (backend, true, Some(_)) => policy.uses(backend).then_some("walls"),
            (_, true, None) => None,
        };
        self.parts.runners.states().into_iter().filter_map(missing).collect()
    }

    /// Sends the heartbeat to everybody.
    pub(crate) fn tick(&self) {
        self.hub.broadcast("tick", &serde_json::json!({"ts": self.parts.clock.now()}));
    }

    /// Says goodbye: everybody is told, every connection closes, every run is cancelled.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.hub.broadcast("shutdown", &serde_json::json!({"reason": "stopping"}));
        self.hub.close_all(&Close::new(close::RESTART, "service restart"), |_| true);
        for (_, remote) in self.runs.lock().unwrap_or_else(PoisonError::into_inner).values() {
            remote.cancel();
        }
    }

    /// Writes the last record. Runs that were cancelled have written theirs by then.
    pub(crate) fn write_farewell(&self) {
        let mut record = Record::new(Event::GatewayStopped);
        let unrecorded = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).counted;
        if unrecorded > 0 {
            record = record.error(&format!("{unrecorded} refused connections were not recorded"));
        }
        if let Err(error) = self.parts.journal.append(record) {
            tracing::error!(%error, "cannot record the stop");
        }
    }

    /// Requests that are being answered, their last record not yet written.
    pub(crate) fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Acquire)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Records a connection that was turned away, with how many more there were since the last such record.
    pub(crate) fn record_refused_connection(&self, peer: &Peer, code: &str) {
        let minute = self.parts.clock.now() / 60_000;
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.minute != minute {
            (strangers.minute, strangers.recorded) = (minute, 0);
        }
        if strangers.recorded >= RECORDED_STRANGERS {
            strangers.counted += 1;
            return;
        }
        strangers.recorded += 1;
        let unrecorded = std::mem::take(&mut strangers.counted);
        drop(strangers);
        let mut record = Record::new(Event::AuthRefused).decided("deny", code);
        record.from = Some(peer.label());
        if unrecorded > 0 {
            record = record.error(&format!("{unrecorded} more refused connections before this one were not recorded"));
        }
        if let Err(error) = self.parts.journal.append(record) {
            tracing::error!(%error, "cannot record a refused connection");
        }
    }

    /// Whether one more denial of this principal is recorded in this minute; and how many were not since the last that
    /// was, of anybody.
    fn may_record_denial(&self, principal: &str) -> Option<u64> {
        let minute = self.parts.clock.now() / 60_000;
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if denials.minute != minute {
            denials.minute = minute;
            denials.recorded.clear();
        }
        let so_far = denials.recorded.get(principal).copied();
        let is_full =
            so_far.unwrap_or(0) >= RECORDED_DENIALS || (so_far.is_none() && denials.recorded.len() >= MOST_DENIED);
        if is_full {
            denials.counted += 1;
            return None;
        }
        *denials.recorded.entry(principal.to_owned()).or_default() += 1;
        Some(std::mem::take(&mut denials.counted))
    }

    /// How many runs there are.
    pub(crate) fn running(&self) -> usize {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Records that a runner was lost; the gateway goes on.
    pub(crate) fn record_runner_loss(&self) {
        if let Err(error) = self.parts.journal.append(Record::new(Event::RunnerRestarted)) {
            tracing::error!(%error, "cannot record the loss of the runner");
        }
    }

    /// Writes down when devices were last seen; waits for the disk.
    pub(crate) fn keep_seen(&self) {
        if let Err(error) = self.registry().keep_seen() {
            tracing::error!(%error, "when devices were last seen could not be kept");
        }
    }

    /// Who may come in, for the doors.
    pub(crate) fn gatekeeper(&self) -> &Gatekeeper {
        &self.parts.gatekeeper
    }

    pub(crate) fn new_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }
}
