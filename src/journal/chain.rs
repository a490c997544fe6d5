//! The format of an entry and the chain through all of them.
//!
//! One line of JSON each: `{"hash":H,"prev":P,"body":B}` and a newline. B is an object with `seq`
//! (from 1, without gaps), `ts` (Unix milliseconds) and the record's facts. H is the lowercase hex
//! SHA-256 of the ASCII bytes of P, a newline, and the exact bytes of B as they stand in the line; P is
//! the H of the line before, 64 zeroes for the first. A changed byte breaks its own line, a removed or
//! inserted line the next one. A removed end shows only against a copy of the last H kept elsewhere.

use super::record::Record;
use crate::crypto;
use crate::model::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The `prev` of the first entry.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) ts: UnixMillis,
    pub(crate) record: Record,
    pub(crate) hash: String,
    /// The exact line on disk, without its newline.
    line: String,
}

/// Where a chain does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub(crate) struct Broken {
    pub(crate) place: String,
    pub(crate) why: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    seq: u64,
    ts: UnixMillis,
    #[serde(flatten)]
    record: Record,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    hash: String,
    prev: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Entry {
    /// Makes the entry that follows `prev`.
    pub(super) fn new(seq: u64, ts: UnixMillis, record: Record, prev: &str) -> Self {
        let body = Body { seq, ts, record };
        let text = serde_json::to_string(&body).unwrap_or_default();
        let hash = digest(prev, &text);
        let line = format!(r#"{{"hash":"{hash}","prev":"{prev}","body":{text}}}"#);
        Entry { seq, ts, record: body.record, hash, line }
    }

    /// Reads a line; the chain is not looked at.
    pub(super) fn read(line: &str) -> Result<Self, String> {
        let parts: Line<'_> = serde_json::from_str(line).map_err(|e| format!("not an entry: {e}"))?;
        let body: Body = serde_json::from_str(parts.body.get()).map_err(|e| format!("not a record: {e}"))?;
        Ok(Entry { seq: body.seq, ts: body.ts, record: body.record, hash: parts.hash, line: line.to_owned() })
    }

    /// Whether this line is whole and follows the entry with that hash and number.
    pub(super) fn follows(&self, prev: &str, seq: u64) -> Result<(), String> {
        let parts: Line<'_> = serde_json::from_str(&self.line).map_err(|e| format!("not an entry: {e}"))?;
        if parts.hash != digest(&parts.prev, parts.body.get()) {
            return Err(format!("entry {} was changed: its hash does not match its content", self.seq));
        }
        if parts.prev != prev || self.seq != seq {
            return Err(format!(
                "expected entry {seq} after {}…, found entry {} after {}…",
                short(prev),
                self.seq,
                short(&parts.prev)
            ));
        }
        Ok(())
    }

    /// The line as it stands on disk.
    pub(super) fn line(&self) -> &str {
        &self.line
    }
}

fn digest(prev: &str, body: &str) -> String {
    crypto::hex(&crypto::sha256(&[prev.as_bytes(), b"\n", body.as_bytes()]))
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// A point in time as RFC 3339 in UTC, to the millisecond.
pub(super) fn rfc3339(at: UnixMillis) -> String {
    let (days, ms) = (at / 86_400_000, at % 86_400_000);
    // Howard Hinnant's days-to-civil algorithm, for dates from 1970 on.
    let z = days as i64 + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Event;

    #[test]
    fn an_entry_is_read_back_and_follows_its_predecessor_only() {
        let first = Entry::new(1, 5, Record::new(Event::GatewayStarted), GENESIS);
        let second = Entry::new(2, 6, Record::new(Event::GatewayStopped), &first.hash);
        let read = Entry::read(second.line()).unwrap();
        assert_eq!(read, second);
        assert_eq!(read.follows(&first.hash, 2), Ok(()));
        assert!(read.follows(GENESIS, 2).is_err());
        assert!(read.follows(&first.hash, 3).is_err());
    }

    #[test]
    fn any_changed_byte_breaks_the_line() {
        let entry = Entry::new(1, 5, Record::new(Event::GatewayStarted), GENESIS);
        for at in 0..entry.line().len() {
            let mut bytes = entry.line().as_bytes().to_vec();
            bytes[at] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let holds = Entry::read(&text).is_ok_and(|e| e.follows(GENESIS, 1).is_ok());
            assert!(!holds, "byte {at}");
        }
    }

    #[test]
    fn time_is_written_as_people_read_it() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(1_795_305_600_001), "2026-11-22T00:00:00.001Z");
    }
}
