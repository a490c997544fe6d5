//! Segments on disk: `journal-<first seq>.jsonl`, mode 0600, appended to, never rewritten.

use super::chain::{Broken, Entry, GENESIS};
use super::record::{Event, Record};
use crate::model::{JournalQuery, UnixMillis};
use crate::os::fs as private;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A segment that has grown to this is closed and a new one begun.
const SEGMENT_BYTES: u64 = 32 << 20;

/// An entry longer than this is not one of ours.
const MAX_LINE: u64 = 1 << 20;

/// Bytes of entries in one listing.
const MAX_LISTED: usize = 8 << 20;

/// The open end of the journal.
pub(super) struct Segments {
    folder: PathBuf,
    file: File,
    bytes: u64,
    seq: u64,
    hash: String,
}

impl Segments {
    /// Opens the newest segment. A last line that a crash tore is set aside, and a record says so.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        private::private_dir(folder)?;
        let segments = segments(folder)?;
        let Some(newest) = segments.last() else {
            let file = private::append_private(&folder.join(name(1)))?;
            return Ok(Segments { folder: folder.to_owned(), file, bytes: 0, seq: 0, hash: GENESIS.into() });
        };
        let mut file = private::append_private(newest)?;
        let torn = set_torn_tail_aside(&mut file, newest)?;
        let bytes = file.metadata()?.len();
        let (seq, hash) = match last_line(&mut file, bytes)? {
            Some(line) => {
                let entry = Entry::read(&line).map_err(io::Error::other)?;
                (entry.seq, entry.hash)
            }
            // An empty segment continues the one before it.
            None => end_of_previous(&segments)?,
        };
        let mut open = Segments { folder: folder.to_owned(), file, bytes, seq, hash };
        if let Some(aside) = torn {
            let mut record = Record::new(Event::JournalMended);
            record = record.error(&format!("an unfinished last line was set aside in {}", aside.display()));
            let entry = open.next(crate::model::Clock::now(&crate::model::SystemClock), record);
            open.append(&entry)?;
        }
        Ok(open)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The entry that would come next.
    pub(super) fn next(&self, ts: UnixMillis, record: Record) -> Entry {
        Entry::new(self.seq + 1, ts, record, &self.hash)
    }

    /// Writes the entry made by `next`, whole or not at all.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        if self.bytes >= SEGMENT_BYTES {
            self.file.sync_all()?;
            self.file = private::append_private(&self.folder.join(name(entry.seq)))?;
            self.bytes = 0;
        }
        let line = format!("{}\n", entry.line());
        if line.len() as u64 > MAX_LINE {
            return Err(io::Error::other("a record is longer than a line of the journal may be"));
        }
        // A file that was removed takes writes and keeps nothing.
        if std::os::unix::fs::MetadataExt::nlink(&self.file.metadata()?) == 0 {
            return Err(io::Error::other("the journal's file was removed"));
        }
        if let Err(e) = self.file.write_all(line.as_bytes()) {
            // A part that reached a full disk would tear the chain for the next entry.
            let _ = self.file.set_len(self.bytes);
            return Err(e);
        }
        self.bytes += line.len() as u64;
        self.seq = entry.seq;
        self.hash.clone_from(&entry.hash);
        Ok(())
    }

    /// A second handle on the open segment, to sync it without the lock.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

fn name(first: u64) -> String {
    format!("journal-{first:020}.jsonl")
}

/// All segments, oldest first.
fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder)? {
        let name = item?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("journal-") && name.ends_with(".jsonl") {
            found.push(folder.join(name));
        }
    }
    found.sort();
    Ok(found)
}

fn set_torn_tail_aside(file: &mut File, path: &Path) -> io::Result<Option<PathBuf>> {
    let length = file.metadata()?.len();
    let start = start_of_last_line(file, length)?;
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut tail)?;
    if tail.is_empty() || tail.ends_with(b"\n") {
        return Ok(None);
    }
    let aside = path.with_extension(format!("torn-{start}"));
    private::write_private(&aside, &tail)?;
    file.set_len(start)?;
    Ok(Some(aside))
}

/// Where the last line begins; a line that ends the file counts with its newline.
fn start_of_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let from = length.saturating_sub(MAX_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut bytes)?;
    let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Ok(body.iter().rposition(|b| *b == b'\n').map_or(from, |at| from + at as u64 + 1))
}

fn last_line(file: &mut File, length: u64) -> io::Result<Option<String>> {
    let start = start_of_last_line(file, length)?;
    file.seek(SeekFrom::Start(start))?;
    let mut line = String::new();
    file.take(MAX_LINE).read_to_string(&mut line)?;
    let line = line.trim_end_matches('\n');
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

fn end_of_previous(segments: &[PathBuf]) -> io::Result<(u64, String)> {
    let Some(previous) = segments.len().checked_sub(2).map(|at| &segments[at]) else {
        return Ok((0, GENESIS.into()));
    };
    let mut file = File::open(previous)?;
    let length = file.metadata()?.len();
    let line = last_line(&mut file, length)?.ok_or_else(|| io::Error::other("two empty segments in a row"))?;
    let entry = Entry::read(&line).map_err(io::Error::other)?;
    Ok((entry.seq, entry.hash))
}

/// The entries a query wants, oldest first: those right after `after`, or without it the latest.
pub(super) fn list_folder(folder: &Path, query: &JournalQuery) -> io::Result<Vec<Entry>> {
    let limit = query.limit.unwrap_or(100).min(10_000);
    let wanted = |entry: &Entry| {
        query.after.is_none_or(|after| entry.seq > after)
            && query.event.as_ref().is_none_or(|event| *event == entry.record.event)
    };
    let mut segments = segments(folder)?;
    if query.after.is_none() {
        segments.reverse();
    }
    let mut found: VecDeque<Entry> = VecDeque::new();
    for segment in segments {
        let mut here = Vec::new();
        for line in BufReader::new(File::open(segment)?).lines() {
            here.extend(Entry::read(&line?).ok().filter(wanted));
        }
        // Forwards from the oldest, or backwards from the latest, until there are enough.
        if query.after.is_some() {
            found.extend(here);
        } else {
            here.into_iter().rev().for_each(|entry| found.push_front(entry));
        }
        if found.len() >= limit {
            break;
        }
    }
    let mut bytes = 0;
    let mut fits = |entry: &Entry| {
        bytes += entry.line().len();
        bytes <= MAX_LISTED
    };
    if query.after.is_some() {
        found.truncate(limit);
        let fitting = found.iter().take_while(|e| fits(e)).count();
        found.truncate(fitting);
    } else {
        let surplus = found.len().saturating_sub(limit);
        found.drain(..surplus);
        let fitting = found.iter().rev().take_while(|e| fits(e)).count();
        found.drain(..found.len() - fitting);
    }
    Ok(found.into())
}

/// Walks the whole chain and returns the number of entries.
///
/// # Errors
/// The first place where it does not hold.
pub(crate) fn verify_folder(folder: &Path) -> Result<u64, Broken> {
    let unreadable = |e: io::Error| Broken { place: folder.display().to_string(), why: e.to_string() };
    let (mut prev, mut seq) = (GENESIS.to_owned(), 0);
    for segment in segments(folder).map_err(unreadable)? {
        let file = File::open(&segment).map_err(unreadable)?;
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let place = || format!("{}:{}", segment.display(), index + 1);
            let broken = |why| Broken { place: place(), why };
            let line = line.map_err(|e| broken(e.to_string()))?;
            let entry = Entry::read(&line).map_err(broken)?;
            entry.follows(&prev, seq + 1).map_err(broken)?;
            (prev, seq) = (entry.hash, entry.seq);
        }
    }
    Ok(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vambrace-journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn write(folder: &Path, count: u64) {
        let mut open = Segments::open(folder).unwrap();
        for ts in 0..count {
            let entry = open.next(ts, Record::new(Event::ExecFinished));
            open.append(&entry).unwrap();
        }
    }

    #[test]
    fn the_chain_goes_on_over_restarts() {
        let folder = scratch("restart");
        write(&folder, 2);
        write(&folder, 3);
        assert_eq!(verify_folder(&folder), Ok(5));
        let query = JournalQuery { after: Some(3), ..Default::default() };
        let seqs = |query| list_folder(&folder, &query).unwrap().iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(seqs(query), [4, 5]);
        assert_eq!(seqs(JournalQuery { after: Some(1), limit: Some(2), ..Default::default() }), [2, 3]);
        assert_eq!(seqs(JournalQuery { limit: Some(2), ..Default::default() }), [4, 5]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_torn_last_line_is_set_aside_and_the_chain_still_holds() {
        let folder = scratch("torn");
        write(&folder, 3);
        let segment = segments(&folder).unwrap().pop().unwrap();
        let text = fs::read_to_string(&segment).unwrap();
        fs::write(&segment, &text[..text.len() - 10]).unwrap();

        write(&folder, 1);

        assert_eq!(verify_folder(&folder), Ok(4)); // two whole ones, the note, the new one
        assert_eq!(list_folder(&folder, &JournalQuery::default()).unwrap()[2].record.event, "journal.mended");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_removed_changed_or_swapped_line_is_found() {
        let folder = scratch("tampered");
        write(&folder, 4);
        let segment = segments(&folder).unwrap().pop().unwrap();
        let whole = fs::read_to_string(&segment).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        for tampered in [
            [lines[0], lines[2], lines[3]].join("\n"),
            [lines[1], lines[2], lines[3]].join("\n"),
            [lines[0], lines[2], lines[1], lines[3]].join("\n"),
            whole.replacen("\"ts\":2", "\"ts\":9", 1),
        ] {
            fs::write(&segment, tampered + "\n").unwrap();
            assert!(verify_folder(&folder).is_err());
        }
        fs::write(&segment, whole).unwrap();
        assert_eq!(verify_folder(&folder), Ok(4));
        fs::remove_dir_all(folder).unwrap();
    }
}
