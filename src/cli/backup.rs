//! `backup` and `restore`: the whole state as one age file that opens on another machine.

use super::args::{BackupArgs, PlaceArgs, RestoreArgs};
use super::gateway::hide;
use super::password;
use super::render::{self, Fault};
use crate::journal::{Event, Journal, JournalFault, Record};
use crate::model::{Secret, SystemClock};
use crate::store::{self, BackupFault, LARGEST, Lock, Opener, Over, Store};
use crate::wire;
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Bytes of the shortest passphrase.
const SHORTEST: usize = 12;

fn fault(fault: &BackupFault) -> Fault {
    Fault::new(fault.to_string()).hint(fault.hint())
}

pub(super) fn backup(place: &PlaceArgs, args: &BackupArgs) -> Result<ExitCode, Fault> {
    // What is held here for a while is the whole state.
    hide()?;
    let lock = match &args.recipient {
        Some(recipient) => Lock::Recipient(recipient.clone()),
        None => Lock::Passphrase(passphrase(Asked::Twice)?),
    };
    let sealed = store::lock(&content(place)?, &lock).map_err(|e| fault(&e))?;
    if args.file.as_os_str() == "-" {
        render::bytes(&sealed);
        return Ok(ExitCode::SUCCESS);
    }
    write_new(&args.file, &sealed)?;
    render::line(&format!("{}: {} bytes, sealed", args.file.display(), sealed.len()));
    Ok(ExitCode::SUCCESS)
}

/// Everything that is kept: from the gateway, sealed for this process alone on the way, or from the folder itself.
fn content(place: &PlaceArgs) -> Result<Secret<Vec<u8>>, Fault> {
    if place.has_gateway()? {
        let (opener, recipient) = store::one_time_keys();
        let answer = place.call(&["operator.admin"], "state.backup", Some(json!({"recipient": recipient})))?;
        let sealed = wire::bytes::decode(answer["data"].as_str().unwrap_or_default()).unwrap_or_default();
        return store::unlock(&sealed, &opener).map_err(|e| fault(&e));
    }
    let (settings, places) = place.settings()?;
    let store = Store::open(&places.state, &settings.keys);
    store.and_then(|store| store.export()).map_err(|e| Fault::new(e.to_string()).hint(e.hint()))
}

/// Writes a file that was not there, for its owner alone; whole, or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let cannot = |e: std::io::Error| {
        Fault::new(format!("cannot write {}: {e}", path.display())).hint("name a file that is not there yet")
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.map_err(cannot)
}

pub(super) fn restore(place: &PlaceArgs, args: &RestoreArgs) -> Result<ExitCode, Fault> {
    hide()?;
    let (settings, places) = place.settings()?;
    let cannot = |path: &Path, e: std::io::Error| {
        Fault::new(format!("cannot read {}: {e}", path.display())).hint("name a file that this user may read")
    };
    let mut sealed = Vec::new();
    let file = fs::File::open(&args.file).map_err(|e| cannot(&args.file, e))?;
    file.take(LARGEST).read_to_end(&mut sealed).map_err(|e| cannot(&args.file, e))?;
    let opener = match &args.identity {
        Some(path) => Opener::Identities(Secret::new(fs::read_to_string(path).map_err(|e| cannot(path, e))?)),
        None => Opener::Passphrase(passphrase(Asked::Once)?),
    };
    let content = store::unlock(&sealed, &opener).map_err(|e| fault(&e))?;
    let over = if args.replace { Over::WhatIsThere } else { Over::Nothing };
    // Under the folder's lock: no gateway writes there. What cannot be recorded is not done.
    let record = || {
        let journal = Journal::open(&places.journal(), Arc::new(SystemClock), settings.journald)?;
        let _receipt = journal.append(Record::new(Event::StateRestored))?;
        journal.sync().map_err(JournalFault::Write)
    };
    let restored = Store::restore(&places.state, &settings.keys, &content, over, record).map_err(|e| fault(&e))?;
    let store = restored.map_err(|e| {
        Fault::new(format!("nothing was restored, because it cannot be recorded: {e}"))
            .hint("look at the folder `journal` of the state")
    })?;
    let source = store.key_facts().source;
    render::line(&format!("{} is restored; its key comes from: {source}", places.state.display()));
    Ok(ExitCode::SUCCESS)
}

enum Asked {
    Once,
    Twice,
}

fn passphrase(asked: Asked) -> Result<Secret<String>, Fault> {
    let unread = |e: std::io::Error| Fault::new(format!("the passphrase cannot be read: {e}")).hint(password::TEXT);
    if !std::io::stdin().is_terminal() {
        return checked(password::piped().map_err(unread)?);
    }
    let first = password::prompt("passphrase: ").map_err(unread)?;
    if matches!(asked, Asked::Twice) && password::prompt("once more: ").map_err(unread)? != first {
        return Err(Fault::new("the two are not the same").hint("nothing was written; try again"));
    }
    checked(first)
}

fn checked(passphrase: Secret<String>) -> Result<Secret<String>, Fault> {
    if passphrase.expose().len() < SHORTEST {
        return Err(Fault::new(format!("a passphrase has at least {SHORTEST} bytes"))
            .hint("several words, from a prompt or standard input; or --recipient with a key of age-keygen")
            .code(2));
    }
    Ok(passphrase)
}
