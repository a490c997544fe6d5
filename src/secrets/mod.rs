//! The secrets of agents: what they are called, who may use them, their values for as long as one is needed.
//!
//! Names and grants are in memory, as one snapshot that is replaced whole; values are in the store, sealed, and come out
//! one at a time. There is no way to read one back but for a run that was permitted to use it. Whatever goes out is searched
//! for them by the redactor that stands here.

use crate::journal::Journal;
use crate::model::{AgentId, Clock, Grants, LONGEST_SECRET, SHORTEST_SECRET, Secret, SecretName, UnixMillis};
use crate::redact::Redactor;
use crate::store::{Changes, Name, SecretRecord, Store, StoreFault};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Secrets one gateway keeps.
const MOST: usize = 512;

/// Agents one secret may be granted to.
const MOST_AGENTS: usize = 256;

/// Covers that are kept ready, each for one agent.
const MOST_READY: usize = 16;

/// Bytes of all values together: the redactor takes twelve times as much memory.
const MOST_BYTES: usize = 1 << 20;

/// Why a secret is not kept, or not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsFault {
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error("there is no secret {0}")]
    Unknown(SecretName),
    #[error("a value has {SHORTEST_SECRET} to {LONGEST_SECRET} bytes; this one has {0}")]
    Length(usize),
    #[error("this is what stands in place of a secret, not a secret")]
    Marker,
    #[error("there are {MOST} secrets, which is all that are kept")]
    Full,
    #[error("all values together have at most {MOST_BYTES} bytes")]
    TooMuch,
    #[error("a secret is granted to at most {MOST_AGENTS} agents")]
    TooManyAgents,
}

impl SecretsFault {
    /// The stable code on the wire.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            SecretsFault::Store(_) => "STORE_UNAVAILABLE",
            SecretsFault::Unknown(_) => "UNKNOWN_SECRET",
            SecretsFault::Length(_) => "SECRET_LENGTH",
            SecretsFault::Marker => "SECRET_IS_A_MARKER",
            SecretsFault::Full | SecretsFault::TooMuch | SecretsFault::TooManyAgents => "TOO_MANY",
        }
    }

    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            SecretsFault::Store(fault) => fault.hint(),
            SecretsFault::Unknown(_) => "`vambrace secrets list` shows the names there are",
            SecretsFault::Length(_) => {
                "a shorter one could not be covered in output; a longer one belongs into a file of the workspace"
            }
            SecretsFault::Marker => "send the value itself; a secret that is not sent stays as it is",
            SecretsFault::Full | SecretsFault::TooMuch => "`vambrace secrets remove` one that is not used any more",
            SecretsFault::TooManyAgents => "name fewer",
        }
    }
}

/// The secrets of one gateway.
pub(crate) struct Secrets {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    /// What it writes is covered as well.
    journal: Journal,
    /// One change at a time.
    changing: Mutex<()>,
    now: RwLock<Arc<Snapshot>>,
}

/// What is known at one moment.
#[derive(Default)]
struct Snapshot {
    records: BTreeMap<SecretName, SecretRecord>,
    grants: Arc<Grants>,
    /// Bytes of each value.
    lengths: BTreeMap<SecretName, usize>,
    /// Finds all of them, and the gateway's own token: for records, which operators read.
    redactor: Redactor,
    /// Finds those that one agent knows; made when it is first needed.
    of_agents: Mutex<HashMap<AgentId, Redactor>>,
}

/// Who may use what, from records.
fn grants_of(records: &BTreeMap<SecretName, SecretRecord>) -> Arc<Grants> {
    Arc::new(records.values().map(|record| (record.name.clone(), record.agents.clone())).collect())
}

/// Values in the order they were asked for.
type Opened = Vec<Secret<Vec<u8>>>;

/// Values by name.
type Values = Vec<(String, Secret<Vec<u8>>)>;

impl Secrets {
    /// Reads names and grants, and has the journal covered from here on.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub(crate) fn open(store: Arc<Store>, clock: Arc<dyn Clock>, journal: Journal) -> Result<Self, StoreFault> {
        let secrets = Secrets { store, clock, journal, changing: Mutex::default(), now: RwLock::default() };
        let records = secrets.store.all::<SecretRecord>()?;
        let records = records.into_iter().map(|record| (record.name.clone(), record)).collect();
        let values = secrets.values(&records)?;
        secrets.publish(records, lengths_of(&values), Redactor::new(values));
        Ok(secrets)
    }

    /// Who may use what, at this moment.
    pub(crate) fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.snapshot().grants)
    }

    /// Every secret but its value, by name.
    pub(crate) fn list(&self) -> Vec<SecretRecord> {
        self.snapshot().records.values().cloned().collect()
    }

    /// Covers everything that is kept at this moment; for texts that operators read.
    pub(crate) fn redactor(&self) -> Redactor {
        self.snapshot().redactor.clone()
    }

    /// The values for a run that was permitted to use them, and what covers them and all else that its agent knows in its
    /// output. Reads the disk.
    ///
    /// No other secret is looked for there: how long the search takes, and when its bytes come, would tell the agent how a
    /// secret begins that it does not know.
    ///
    /// # Errors
    /// Also where a grant was taken back since the permit.
    pub(crate) fn hand_out(&self, agent: &AgentId, names: &[SecretName]) -> Result<(Opened, Redactor), SecretsFault> {
        let snapshot = self.snapshot();
        let mut opened = Opened::with_capacity(names.len());
        for name in names {
            if !snapshot.grants.has(agent, name) {
                return Err(SecretsFault::Unknown(name.clone()));
            }
            opened.push(self.value(name)?);
        }
        if names.is_empty() {
            return Ok((opened, self.known_to(&snapshot, agent)?));
        }
        // Not the one that is kept ready: it may have been made before a value was replaced.
        let mut values = self.values_known_to(&snapshot, agent)?;
        values.extend(names.iter().map(ToString::to_string).zip(opened.iter().cloned()));
        Ok((opened, Redactor::new(values)))
    }

    /// The cover for a run without secrets, where it is known without reading the disk.
    pub(crate) fn cover(&self, agent: &AgentId) -> Option<Redactor> {
        let snapshot = self.snapshot();
        if !snapshot.records.values().any(|record| record.is_known_to(agent)) {
            return Some(Redactor::default());
        }
        snapshot.of_agents.lock().unwrap_or_else(PoisonError::into_inner).get(agent).cloned()
    }

    /// A value. Reads the disk.
    fn value(&self, name: &SecretName) -> Result<Secret<Vec<u8>>, SecretsFault> {
        self.store.secret(name)?.ok_or_else(|| SecretsFault::Unknown(name.clone()))
    }

    /// Finds what an agent knows.
    fn known_to(&self, snapshot: &Snapshot, agent: &AgentId) -> Result<Redactor, SecretsFault> {
        let ready = |agent| snapshot.of_agents.lock().unwrap_or_else(PoisonError::into_inner).get(agent).cloned();
        if let Some(redactor) = ready(agent) {
            return Ok(redactor);
        }
        let redactor = Redactor::new(self.values_known_to(snapshot, agent)?);
        let mut known = snapshot.of_agents.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_READY {
            known.clear();
        }
        known.insert(agent.clone(), redactor.clone());
        Ok(redactor)
    }

    fn values_known_to(&self, snapshot: &Snapshot, agent: &AgentId) -> Result<Values, SecretsFault> {
        let mut values = Values::new();
        for record in snapshot.records.values().filter(|record| record.is_known_to(agent)) {
            values.extend(self.store.secret(&record.name)?.map(|value| (record.name.to_string(), value)));
        }
        Ok(values)
    }

    /// Keeps a secret, new or in place of its old value. Waits for the disk. Says whether it is new.
    pub(crate) fn set(
        &self,
        name: &SecretName,
        value: Secret<Vec<u8>>,
        agents: Option<BTreeSet<AgentId>>,
        by: &str,
    ) -> Result<bool, SecretsFault> {
        check(&value)?;
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.snapshot();
        let known = snapshot.records.get(name);
        if known.is_none() && snapshot.records.len() >= MOST {
            return Err(SecretsFault::Full);
        }
        let others: usize = snapshot.lengths.iter().filter(|(other, _)| *other != name).map(|(_, length)| length).sum();
        if others + value.expose().len() > MOST_BYTES {
            return Err(SecretsFault::TooMuch);
        }
        let agents = agents.or_else(|| known.map(|record| record.agents.clone())).unwrap_or_default();
        // Nobody knows a new value before it is granted.
        let record = self.record(name, agents, BTreeSet::new(), known, by)?;
        // Covered before it is kept, beside the old one: a run may get either from the moment of the change on.
        let mut values = self.values(&snapshot.records)?;
        values.push((name.to_string(), value.clone()));
        self.publish(snapshot.records.clone(), snapshot.lengths.clone(), Redactor::new(values));
        self.store.apply(&Changes::default().put(&record).put_secret(name, value))?;
        let mut records = snapshot.records.clone();
        records.insert(name.clone(), record);
        self.settle(records)?;
        Ok(known.is_none())
    }

    /// Replaces who may use a secret.
    pub(crate) fn grant(&self, name: &SecretName, agents: BTreeSet<AgentId>, by: &str) -> Result<(), SecretsFault> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.snapshot();
        let known = snapshot.records.get(name).ok_or_else(|| SecretsFault::Unknown(name.clone()))?;
        let mut former = known.former.clone();
        former.extend(known.agents.iter().cloned());
        former.retain(|agent| !agents.contains(agent));
        let record = self.record(name, agents, former, Some(known), by)?;
        self.store.apply(&Changes::default().put(&record))?;
        let mut records = snapshot.records.clone();
        records.insert(name.clone(), record);
        // Nothing that could fail comes between the change and its effect.
        self.publish(records, snapshot.lengths.clone(), snapshot.redactor.clone());
        Ok(())
    }

    /// Forgets a secret and every grant of it.
    pub(crate) fn remove(&self, name: &SecretName) -> Result<(), SecretsFault> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.snapshot();
        let mut records = snapshot.records.clone();
        records.remove(name).ok_or_else(|| SecretsFault::Unknown(name.clone()))?;
        self.store.apply(&Changes::default().remove::<SecretRecord>(name).remove_secret(name))?;
        self.settle(records)
    }

    /// The token was replaced: from here on the new one is covered.
    pub(crate) fn token_was_replaced(&self) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.snapshot().records.clone();
        if let Err(error) = self.settle(records) {
            tracing::error!(%error, "the new token is not covered in output");
        }
    }

    /// The store that everything is sealed in.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn record(
        &self,
        name: &SecretName,
        agents: BTreeSet<AgentId>,
        former: BTreeSet<AgentId>,
        known: Option<&SecretRecord>,
        by: &str,
    ) -> Result<SecretRecord, SecretsFault> {
        if agents.len() > MOST_AGENTS {
            return Err(SecretsFault::TooManyAgents);
        }
        let now: UnixMillis = self.clock.now();
        Ok(SecretRecord {
            name: name.clone(),
            agents,
            former,
            created: known.map_or(now, |record| record.created),
            updated: now,
            updated_by: by.chars().take(128).collect(),
        })
    }

    /// Publishes what was changed: names and grants at once, the redactor when it is made. If it cannot be, the one before goes
    /// on, which knows more than it must.
    fn settle(&self, records: BTreeMap<SecretName, SecretRecord>) -> Result<(), SecretsFault> {
        let before = self.snapshot();
        self.publish(records.clone(), before.lengths.clone(), before.redactor.clone());
        let values = self.values(&records)?;
        self.publish(records, lengths_of(&values), Redactor::new(values));
        Ok(())
    }

    /// Every value, and the gateway's token.
    fn values(&self, records: &BTreeMap<SecretName, SecretRecord>) -> Result<Values, StoreFault> {
        let mut values = Values::with_capacity(records.len() + 2);
        for name in records.keys() {
            values.extend(self.store.secret(name)?.map(|value| (name.to_string(), value)));
        }
        values.extend(self.store.load(Name::GatewayToken)?.map(|token| (TOKEN.to_owned(), token)));
        Ok(values)
    }

    fn publish(
        &self,
        records: BTreeMap<SecretName, SecretRecord>,
        lengths: BTreeMap<SecretName, usize>,
        redactor: Redactor,
    ) {
        self.journal.cover(redactor.clone());
        let grants = grants_of(&records);
        let snapshot = Snapshot { records, grants, lengths, redactor, of_agents: Mutex::default() };
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the token is called where it was covered; no secret can have this name.
const TOKEN: &str = "gateway token";

fn lengths_of(values: &Values) -> BTreeMap<SecretName, usize> {
    let named = |(name, value): &(String, Secret<Vec<u8>>)| Some((SecretName::parse(name).ok()?, value.expose().len()));
    values.iter().filter_map(named).collect()
}

/// Whether a value can be kept, and covered in output.
fn check(value: &Secret<Vec<u8>>) -> Result<(), SecretsFault> {
    let bytes = value.expose();
    if !(SHORTEST_SECRET..=LONGEST_SECRET).contains(&bytes.len()) {
        return Err(SecretsFault::Length(bytes.len()));
    }
    // A client that saves what it was shown must not replace the secret by that (attack class CRY-14).
    let is_of = |c: u8| bytes.iter().all(|b| *b == c);
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim().to_lowercase();
    let is_marker = is_of(b'*')
        || is_of(b'x')
        || !text.is_empty() && text.chars().all(|c| c == '•')
        || text.starts_with("[secret ") && text.ends_with(']')
        || ["[redacted]", "<redacted>", "secret(…)", "__openclaw_redacted__", "(unchanged)"].contains(&text.as_str());
    if is_marker { Err(SecretsFault::Marker) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;

    fn secrets() -> Secrets {
        let folder = std::env::temp_dir().join(format!("vambrace-test-{}-secrets", std::process::id()));
        let journal = Journal::open(&folder, Arc::new(SystemClock), crate::journal::JournaldUse::Off).unwrap();
        Secrets::open(Arc::new(Store::in_memory()), Arc::new(SystemClock), journal).unwrap()
    }

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    fn agents(names: &[&str]) -> BTreeSet<AgentId> {
        names.iter().map(|name| AgentId::parse(name).unwrap()).collect()
    }

    fn value(text: &str) -> Secret<Vec<u8>> {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_new_secret_is_granted_to_nobody_and_a_new_value_changes_no_grant() {
        let secrets = secrets();
        let (key, builder) = (name("API_KEY"), AgentId::parse("builder").unwrap());
        assert!(secrets.set(&key, value("first value"), None, "uid:0").unwrap());
        assert!(!secrets.grants().has(&builder, &key));
        secrets.grant(&key, agents(&["builder"]), "uid:0").unwrap();
        assert!(!secrets.set(&key, value("second value"), None, "uid:0").unwrap());
        assert!(secrets.grants().has(&builder, &key));
        assert_eq!(secrets.value(&key).unwrap().expose(), b"second value");
        secrets.set(&key, value("third value"), Some(agents(&[])), "uid:0").unwrap();
        assert!(!secrets.grants().has(&builder, &key));
    }

    #[test]
    fn a_removed_secret_is_gone_with_its_value_and_its_grants() {
        let secrets = secrets();
        let key = name("API_KEY");
        secrets.set(&key, value("first value"), Some(agents(&["builder"])), "uid:0").unwrap();
        secrets.remove(&key).unwrap();
        assert!(matches!(secrets.value(&key), Err(SecretsFault::Unknown(_))));
        assert!(matches!(secrets.remove(&key), Err(SecretsFault::Unknown(_))));
        assert!(matches!(secrets.grant(&key, agents(&["a"]), "x"), Err(SecretsFault::Unknown(_))));
        secrets.set(&key, value("second value"), None, "uid:0").unwrap();
        assert!(!secrets.grants().has(&AgentId::parse("builder").unwrap(), &key), "an old grant came back");
    }

    #[test]
    fn bytes_that_are_no_text_are_a_value() {
        let secrets = secrets();
        secrets.set(&name("K"), Secret::new(vec![0xff; 9]), None, "uid:0").unwrap();
        assert_eq!(secrets.value(&name("K")).unwrap().expose(), &[0xff; 9]);
    }

    #[test]
    fn a_run_is_covered_for_what_its_agent_knows_and_for_nothing_else() {
        let secrets = secrets();
        let (key, builder, other) = (name("KEY"), AgentId::parse("builder").unwrap(), AgentId::parse("other").unwrap());
        let shown = |agent: &AgentId| {
            let (_, cover) = secrets.hand_out(agent, &[]).unwrap();
            cover.text("value-of-key").unwrap_or_else(|| "plain".into())
        };
        secrets.set(&key, value("value-of-key"), Some(agents(&["builder"])), "uid:0").unwrap();
        assert_eq!((shown(&builder).as_str(), shown(&other).as_str()), ("[secret KEY]", "plain"));
        // What it knew it may still print; it gets it no more.
        secrets.grant(&key, agents(&["other"]), "uid:0").unwrap();
        assert_eq!((shown(&builder).as_str(), shown(&other).as_str()), ("[secret KEY]", "[secret KEY]"));
        assert!(secrets.hand_out(&builder, std::slice::from_ref(&key)).is_err());
        // A value that is handed out is covered, whatever was kept ready before.
        secrets.set(&key, value("another-value"), None, "uid:0").unwrap();
        let (values, cover) = secrets.hand_out(&other, std::slice::from_ref(&key)).unwrap();
        assert_eq!(values[0].expose(), b"another-value");
        assert_eq!(cover.text("another-value").unwrap(), "[secret KEY]");
        assert_eq!(shown(&builder), "plain");
    }

    #[test]
    fn a_marker_or_a_value_of_another_length_is_not_kept() {
        let secrets = secrets();
        let key = name("K");
        let long = "x1".repeat(LONGEST_SECRET);
        let wrong = ["", "short", &long, "********", "••••••••", "[secret API_KEY]", "[REDACTED]\n", "xxxxxxxxxxxx"];
        for wrong in wrong {
            assert!(secrets.set(&key, value(wrong), None, "uid:0").is_err(), "{wrong}");
        }
        assert!(secrets.list().is_empty());
    }
}
