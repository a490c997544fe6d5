//! The plan of the house, checked: a room uses rooms of earlier floors only.
//!
//! Reads the list in `src/lib.rs` and every `crate::room` in the sources, so it cannot go blind: it
//! fails when it has looked at fewer files than there are, or at a room that is not on the list.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Each room with the number of its floor.
fn floors() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(sources().join("lib.rs")).unwrap();
    let mut floors = BTreeMap::new();
    for (floor, paragraph) in text.split("\n\n").filter(|p| p.contains("\nmod ")).enumerate() {
        for line in paragraph.lines() {
            if let Some(room) = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(';')) {
                floors.insert(room.to_owned(), floor);
            }
        }
    }
    floors
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The rooms a file names: in `use crate::room::…`, `crate::room::…` anywhere, and `use crate::{a, b}`.
fn rooms_named(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for part in text.split("crate::").skip(1) {
        let name = |t: &str| t.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match part.strip_prefix('{') {
            Some(list) => rooms.extend(list.split('}').next().unwrap_or("").split(',').map(|item| name(item.trim()))),
            None => rooms.push(name(part)),
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn a_room_uses_rooms_of_earlier_floors_only() {
    let floors = floors();
    assert!(floors.len() >= 15, "the list in src/lib.rs was not understood: {floors:?}");
    let mut all = Vec::new();
    files(&sources(), &mut all);
    let mut looked_at = 0;
    let mut faults = Vec::new();
    for path in &all {
        let relative = path.strip_prefix(sources()).unwrap();
        let room = relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        looked_at += 1;
        if ["lib", "main", "fuzz"].contains(&room) {
            continue;
        }
        let floor = floors.get(room).unwrap_or_else(|| panic!("{}: {room} is not on the list", relative.display()));
        for used in rooms_named(&fs::read_to_string(path).unwrap()) {
            let Some(other) = floors.get(&used) else {
                faults.push(format!("{} names crate::{used}, which is no room", relative.display()));
                continue;
            };
            if used != room && other >= floor {
                faults.push(format!("{}: {room} (floor {floor}) uses {used} (floor {other})", relative.display()));
            }
        }
    }
    assert_eq!(looked_at, all.len());
    assert!(looked_at >= 80, "only {looked_at} files were looked at");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A program of its own without a library, to be entered by the kernel: it cannot ask `os` for anything.
const SHIM: &str = "sandbox/native/shim";

#[test]
fn unsafe_stands_in_os_and_the_shim_alone_and_each_block_says_why() {
    let mut all = Vec::new();
    files(&sources(), &mut all);
    let mut blocks = 0;
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(sources()).unwrap().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if !["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| code.contains(word)) {
                continue;
            }
            blocks += 1;
            assert!(
                relative.starts_with("os") || relative.starts_with(SHIM),
                "{}:{}: unsafe outside os/",
                relative.display(),
                at + 1
            );
            let said = lines[at.saturating_sub(4)..=at].iter().any(|l| l.contains("SAFETY:"));
            assert!(said, "{}:{}: no SAFETY comment", relative.display(), at + 1);
        }
    }
    assert!(blocks > 5, "found only {blocks} blocks: the search has gone blind");
}

#[test]
fn serde_stands_only_where_bytes_leave_or_enter() {
    let allowed = ["wire", "journal", "store", "runner", "config", "client", "gateway", "cli", "server", "egress"];
    let mut all = Vec::new();
    files(&sources(), &mut all);
    for path in all {
        let relative = path.strip_prefix(sources()).unwrap().to_owned();
        let room = relative.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        // What an engine is asked for and tells goes out and comes in there.
        if path.file_name().is_some_and(|name| name == "tests.rs") || relative.starts_with("sandbox/docker") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let outside_tests = text.split("#[cfg(test)]").next().unwrap_or("");
        if outside_tests.lines().any(|l| l.contains("serde") && !l.trim_start().starts_with("//")) {
            assert!(allowed.contains(&room.as_str()), "{} uses serde", relative.display());
        }
    }
}

/// Where a room is another on another system: at the gate, a whole module at a time.
const GATES: &[&str] = &["sandbox/mod.rs", "sandbox/docker/mod.rs", "egress/mod.rs", "daemon/mod.rs", "service/mod.rs"];

/// What is compiled for Linux alone, below those gates.
const LINUX_ALONE: &[&str] =
    &["os/linux", "sandbox/native", "sandbox/docker/host.rs", "egress/confine.rs", "daemon/confine.rs"];

#[test]
fn operating_systems_are_told_apart_in_os_and_at_a_few_gates_only() {
    let mut all = Vec::new();
    files(&sources(), &mut all);
    let mut gates = 0;
    for path in all {
        let relative = path.strip_prefix(sources()).unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        if text.contains("target_os") && !relative.starts_with("os") {
            assert!(GATES.iter().any(|gate| relative == Path::new(gate)), "{}", relative.display());
            gates += 1;
        }
        let is_for_linux = LINUX_ALONE.iter().any(|room| relative.starts_with(room));
        if !is_for_linux && relative != Path::new("os/mod.rs") {
            assert!(!text.contains("os::linux"), "{} names os::linux", relative.display());
        }
    }
    assert_eq!(gates, GATES.len(), "a gate that is none any more stands on the list");
}

#[test]
fn what_differs_between_systems_has_the_same_names_on_each() {
    let names = |system: &str| -> Vec<String> {
        let text = fs::read_to_string(sources().join("os").join(system).join("mod.rs")).unwrap();
        let module = |line: &str| line.strip_prefix("pub(super) mod ")?.strip_suffix(';').map(ToOwned::to_owned);
        text.lines().filter_map(module).collect()
    };
    assert_eq!(names("linux"), names("macos"));
    assert!(names("linux").len() >= 6, "the lists were not understood");
}

#[test]
fn the_story_of_a_request_fits_on_a_page() {
    let lines = fs::read_to_string(sources().join("gateway/pipeline.rs")).unwrap().lines().count();
    assert!(lines < 100, "gateway/pipeline.rs has {lines} lines");
}

#[test]
fn every_file_opens_with_its_purpose() {
    let mut all = Vec::new();
    files(&sources(), &mut all);
    for path in all {
        assert!(fs::read_to_string(&path).unwrap().starts_with("//! "), "{}", path.display());
    }
}
