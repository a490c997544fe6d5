//! Who has made a container: a process, by a mark that no other has. What bears the mark of one that has ended is left.

use rustix::process::{Pid, test_kill_process};
use std::fs;
use std::time::Duration;

/// The label whose value is the maker's mark.
pub(super) const MAKER: &str = "io.vambrace.maker";

/// How long what was made by somebody who cannot be looked for is left alone: twice as long as any look into an image
/// takes.
const OF_STRANGERS: Duration = Duration::from_secs(2 * 3600);

/// The mark of this process; empty where that is not known.
pub(super) fn mark() -> String {
    Maker::this().map(|maker| maker.text()).unwrap_or_default()
}

/// Whether the maker of something has ended, who may have been on any host.
pub(super) fn is_left(mark: &str, age: Duration) -> bool {
    match (Maker::read(mark), Maker::this()) {
        (Some(maker), Some(us)) if us.boot.is_some() && (&maker.boot, &maker.view) == (&us.boot, &us.view) => {
            maker.is_gone()
        }
        _ => age > OF_STRANGERS,
    }
}

/// The same of a maker who was on this host, which the rest of its labels says; nobody else's is left by this process.
pub(super) fn is_left_here(mark: &str, age: Duration) -> bool {
    match (Maker::read(mark), Maker::this()) {
        (Some(maker), Some(us)) if maker.view == us.view => {
            let was_booted = maker.boot.is_some() && us.boot.is_some() && maker.boot != us.boot;
            was_booted || maker == us || maker.is_gone()
        }
        _ => age > OF_STRANGERS,
    }
}

/// A process, as no other can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Maker {
    pid: i32,
    /// Clock ticks between boot and its start (proc_pid_stat(5)).
    started: u64,
    /// The host since it was booted; a service may not be let see it.
    boot: Option<String>,
    /// Which of the host's views of processes.
    view: String,
}

impl Maker {
    fn this() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned());
        let view = fs::read_link("/proc/self/ns/pid").ok()?.display().to_string();
        let pid = i32::try_from(std::process::id()).ok()?;
        Some(Maker { pid, started: started(pid)?, boot, view })
    }

    fn text(&self) -> String {
        format!("{} {} {} {}", self.pid, self.started, self.boot.as_deref().unwrap_or("-"), self.view)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let boot = Some(parts.next()?.to_owned()).filter(|boot| boot != "-");
        Some(Maker { pid, started, boot, view: parts.next()?.to_owned() })
    }

    /// Whether it has ended. What may not be seen counts as there.
    fn is_gone(&self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 0) else { return true };
        match test_kill_process(pid) {
            Err(rustix::io::Errno::SRCH) => true,
            _ => started(self.pid).is_some_and(|started| started != self.started),
        }
    }
}

fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, the 22nd field.
    stat.rsplit(") ").next()?.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Question = fn(&str, Duration) -> bool;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a process that ends")]
    fn what_was_made_is_left_when_its_maker_has_ended_and_not_before() {
        let us = Maker::this().unwrap();
        assert_eq!(Maker::read(&us.text()).unwrap(), us);
        assert!(!is_left(&us.text(), OF_STRANGERS * 2), "this process is there");
        assert!(is_left_here(&us.text(), Duration::ZERO), "and knows what it uses");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(ended.id()).unwrap();
        ended.wait().unwrap();
        let mut other = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let other_pid = i32::try_from(other.id()).unwrap();
        let there = Maker { pid: other_pid, started: started(other_pid).unwrap(), ..us.clone() };
        let blind = Maker { boot: None, ..there.clone() };
        let earlier = Maker { boot: Some("earlier".into()), ..there.clone() };
        let elsewhere = Maker { view: "elsewhere".into(), ..there.clone() };
        // By its mark: whether a maker of any host has ended, and one of this host; nothing where it cannot be told.
        for (mark, anywhere, here) in [
            (Maker { started: us.started + 1, ..us.clone() }.text(), Some(true), Some(true)),
            (Maker { pid, ..us.clone() }.text(), Some(true), Some(true)),
            (there.text(), Some(false), Some(false)),
            (blind.text(), None, Some(false)),
            (earlier.text(), None, Some(true)),
            (elsewhere.text(), None, None),
            (String::new(), None, None),
            ("x".into(), None, None),
            ("0 0".into(), None, None),
        ] {
            let questions: [(Question, _); 2] = [(is_left, anywhere), (is_left_here, here)];
            for (is_left, expected) in questions {
                assert_eq!(is_left(&mark, OF_STRANGERS), expected.unwrap_or(false), "{mark}");
                assert_eq!(is_left(&mark, OF_STRANGERS + Duration::from_secs(1)), expected.unwrap_or(true), "{mark}");
            }
        }
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}
