//! `journal`: reading the activity log, from the gateway or from its folder.

use super::args::{JournalCommand, JournalListArgs, JournalVerifyArgs, PlaceArgs};
use super::gateway::runtime;
use super::render::{self, Fault, one_line};
use crate::client::{self, ClientFault, Incoming};
use crate::journal;
use crate::model::JournalQuery;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(place: &PlaceArgs, command: JournalCommand) -> Result<ExitCode, Fault> {
    match command {
        JournalCommand::List(args) => list(place, &args),
        JournalCommand::Tail(args) => tail(place, &args),
        JournalCommand::Verify(args) => verify(place, &args),
        JournalCommand::Catalog => {
            render::text(&journal::catalog());
            Ok(ExitCode::SUCCESS)
        }
    }
}

const FOLDER: &str = "name the folder `journal` of a gateway's state, as a user who may read it";

fn no_journal(dir: &Path) -> Fault {
    Fault::new(format!("{} holds no journal", dir.display())).hint(FOLDER)
}

fn params(args: &JournalListArgs, follow: bool) -> Value {
    json!({"limit": args.limit, "after": args.after, "event": args.event, "follow": follow})
}

fn list(place: &PlaceArgs, args: &JournalListArgs) -> Result<ExitCode, Fault> {
    let entries = match &args.dir {
        None => place.call(&["operator.admin"], "journal.list", Some(params(args, false)))?["entries"].take(),
        Some(dir) => {
            let query =
                JournalQuery { after: args.after, limit: Some(args.limit), event: args.event.clone(), follow: false };
            let entries = journal::list_folder(dir, &query)
                .map_err(|e| Fault::new(format!("cannot read {}: {e}", dir.display())).hint(FOLDER))?;
            if entries.is_empty() && journal::verify_folder(dir) == Ok(0) {
                return Err(no_journal(dir));
            }
            let shown = entries.iter().map(|e| {
                let mut value = serde_json::to_value(&e.record).unwrap_or_default();
                (value["seq"], value["ts"], value["hash"]) = (json!(e.seq), json!(e.ts), json!(e.hash));
                value["time"] = json!(journal::rfc3339(e.ts));
                value
            });
            Value::Array(shown.collect())
        }
    };
    for entry in entries.as_array().into_iter().flatten() {
        print(entry, args.json);
    }
    Ok(ExitCode::SUCCESS)
}

fn tail(place: &PlaceArgs, args: &JournalListArgs) -> Result<ExitCode, Fault> {
    if args.dir.is_some() {
        return Err(Fault::new("a folder cannot be followed")
            .hint("leave --dir out, or use `journal list --dir`")
            .code(2));
    }
    let target = place.target()?;
    let followed: Result<ExitCode, ClientFault> = runtime()?.block_on(async {
        let (mut voice, mut ear) = client::connect(&target, &["operator.admin"]).await?;
        let id = voice.ask("journal.list", Some(params(args, true))).await?;
        let mut last = 0;
        // Entries written while the list was read come before it; they are in the list as well.
        let mut early = Vec::new();
        let mut listed = false;
        loop {
            let new = match ear.next().await? {
                Incoming::Response { id: answered, result } if answered == id => {
                    listed = true;
                    let mut result = result.map_err(ClientFault::Refused)?;
                    let mut entries = result["entries"].as_array_mut().map(std::mem::take).unwrap_or_default();
                    entries.append(&mut early);
                    entries
                }
                Incoming::Event { name, payload } if name == "journal.entry" => vec![payload],
                _ => continue,
            };
            if !listed {
                early.extend(new);
                continue;
            }
            for entry in new {
                let seq = entry["seq"].as_u64().unwrap_or(0);
                let wanted = args.event.as_ref().is_none_or(|event| entry["event"] == **event);
                if seq > last && wanted {
                    print(&entry, args.json);
                }
                last = last.max(seq);
            }
        }
    });
    Ok(followed?)
}

fn verify(place: &PlaceArgs, args: &JournalVerifyArgs) -> Result<ExitCode, Fault> {
    let answer = match &args.dir {
        None => place.call(&["operator.admin"], "journal.verify", None)?,
        Some(dir) => match journal::verify_folder(dir) {
            // A journal begins with the first start: where nothing is, nothing was kept, or it is elsewhere.
            Ok(0) => return Err(no_journal(dir)),
            Ok(count) => json!({"ok": true, "entries": count}),
            Err(broken) => json!({"ok": false, "place": broken.place, "why": broken.why}),
        },
    };
    let ok = answer["ok"] == true;
    if args.json {
        render::json(&answer);
    } else if ok {
        render::line(&format!("the chain holds: {} entries", answer["entries"]));
    } else {
        let place = answer["place"].as_str().unwrap_or_default();
        let why = answer["why"].as_str().unwrap_or_default();
        return Err(Fault::new(format!("the chain is broken at {place}: {why}"))
            .hint("keep a copy of the folder before anything else writes to it"));
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line for a person, or the entry as it is.
fn print(entry: &Value, as_json: bool) {
    if as_json {
        return render::line(&entry.to_string());
    }
    let text = |key: &str| entry[key].as_str().map(one_line);
    let mut words =
        vec![format!("{:>5}", entry["seq"]), text("time").unwrap_or_default(), text("event").unwrap_or_default()];
    let number = |key: &str| entry[key].as_u64().map(|n| n.to_string());
    for (label, value) in [
        ("by", text("principal")),
        ("target", text("target")),
        ("scopes", text("scopes")),
        ("from", text("from").filter(|_| entry["principal"].is_null())),
        ("agent", text("agent")),
        ("rule", text("rule")),
        ("ending", text("ending")),
        ("exit", number("exit")),
    ] {
        words.extend(value.map(|v| format!("{label}={v}")));
    }
    let secrets: Vec<&str> = entry["secrets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !secrets.is_empty() {
        words.push(one_line(&format!("secrets={}", secrets.join(", "))));
    }
    if let Some(argv) = entry["command"].as_array() {
        let argv: Vec<String> = argv.iter().filter_map(Value::as_str).map(|a| format!("{:?}", a)).collect();
        words.push(one_line(&argv.join(" ")));
    }
    words.extend(text("error").map(|e| format!("({e})")));
    render::line(&words.join("  "));
}
