//! The recipe of the weakest tier: Landlock and seccomp alone, where no namespace can be made, as inside a container that
//! is locked down itself. Taken only where a profile names this tier as good enough.
//!
//! There is no tree of its own: the command sees the host's paths, and Landlock says which of them it may open. It has
//! the runner's own uid, so what namespaces keep apart elsewhere is refused by system calls here: sockets, other
//! processes' limits and priorities, System V IPC. A *keeper* stays outside of the command's Landlock domain, where the
//! command can neither signal nor trace it, and ends everything the command has started.

use super::battery::{self, Facts};
use super::brief::Brief;
use super::files;
use super::inside::{Ends, FIRST_KEPT, Kept, die_with_launcher, enter_folder, hand_over, take_stdio};
use super::monitor::{Evidence, Report};
use super::secrets;
use super::step::{Failure, Step, at, at_path};
use super::walls::Walls;
use crate::os;
use crate::os::linux::clone::{self, Fork};
use crate::os::linux::landlock::{self, Net};
use crate::os::linux::seccomp::{self, Filter};
use crate::os::linux::{capabilities, mounts, pty, rlimits};
use crate::os::process::Signal;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The private folders of one run, on the host's disk; gone when dropped.
#[derive(Debug)]
pub(super) struct Private(PathBuf);

/// Holds nothing and is granted to nobody: what is refused there, Landlock refuses.
const PROOF: &str = "proof";

impl Private {
    /// Makes them, ours alone.
    pub(super) fn make() -> io::Result<Self> {
        let name = format!("vambrace-run-{}", crate::crypto::hex(&os::host::random::<8>()));
        let private = Private(std::env::temp_dir().join(name));
        for part in ["home", "tmp", "workspace", PROOF] {
            os::fs::private_dir(&private.0.join(part))?;
        }
        Ok(private)
    }

    pub(super) fn folder(&self, part: &str) -> PathBuf {
        self.0.join(part)
    }

    /// Where the battery tries to write.
    pub(super) fn proof(&self) -> PathBuf {
        self.0.join(PROOF)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = os::tree::remove(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the private folders of a run are left behind");
        }
    }
}

/// Everything the keeper needs.
pub(super) struct Base<'a> {
    pub(super) walls: &'a Walls,
    pub(super) filter: &'a Filter,
    pub(super) facts: &'a Facts,
    pub(super) launcher: &'a OwnedFd,
}

/// The keeper's whole life.
pub(super) fn live(base: &Base<'_>, channel: OwnedFd, status: OwnedFd) -> ! {
    let life = std::panic::AssertUnwindSafe(|| {
        let mut kept = match Kept::bare(base.launcher, channel, status) {
            Ok(kept) => kept,
            Err(_) => clone::exit_now(1),
        };
        let Err(Failure { step, errno, text }) = keep(base, &kept);
        let _ = kept.status.write_all(&Report::Failed { step, errno, text }.encode());
    });
    let _ = std::panic::catch_unwind(life);
    clone::exit_now(1)
}

fn keep(base: &Base<'_>, kept: &Kept) -> Result<Infallible, Failure> {
    clone::reset_signals();
    at(Step::Limits, fs::write("/proc/self/oom_score_adj", "900"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    at(Step::Keeper, os::process::adopt_orphans())?;
    // Asked to end, not killed: whoever ends it must first end what it keeps.
    at(Step::DieWithRunner, die_with_launcher(&kept.launcher, Signal::TERM))?;
    at(Step::Undumpable, os::process::make_undumpable())?;
    at(Step::NoNewPrivs, rustix::thread::set_no_new_privs(true).map_err(Into::into))?;
    hand_over(&kept.channel, None, Vec::new())?;
    at(Step::Cgroup, super::inside::wait_for_admission(&kept.channel))?;
    let brief = match at(Step::Brief, Brief::receive(&kept.channel))? {
        Some(brief) => brief,
        None => clone::exit_now(0),
    };
    at(Step::Descriptors, take_stdio(&brief, &kept.channel))?;
    let ends = at(Step::Start, Ends::watch())?;
    let command = match at(Step::Start, clone::fork(nix::sched::CloneFlags::empty()))? {
        Fork::Child => {
            let Err(Failure { step, errno, text }) = become_command(base, kept, brief);
            let _ = { &kept.status }.write_all(&Report::Failed { step, errno, text }.encode());
            clone::exit_now(127)
        }
        Fork::Parent { pid, .. } => pid,
    };
    drop(brief);
    for number in 0..3 {
        drop(clone::adopt_fd(number));
    }
    let report = ends.of(command, kept, stop_all, None);
    kill_all();
    let _ = { &kept.status }.write_all(&report.encode());
    clone::exit_now(0)
}

/// The command's own process, from the fork to its exec: every wall, the proof, the exec.
fn become_command(base: &Base<'_>, kept: &Kept, mut brief: Brief) -> Result<Infallible, Failure> {
    clone::unblock_signals();
    let _ = rustix::process::setsid();
    if brief.terminal.is_some() {
        at(Step::Start, pty::control_standard_input())?;
    }
    let held = std::mem::take(&mut brief.secrets);
    let entries = at(Step::SecretVariables, secrets::entries(&held))?;
    // The keeper's descriptors are not for the command. What still names one here is never dropped: this process execs.
    at(Step::Close, clone::close_from(FIRST_KEPT + 3))?;
    std::mem::forget((held, std::mem::take(&mut brief.stdio)));
    let workspace = base.walls.workspace();
    let folder = at_path(Step::OpenNamed, workspace, mounts::open_without_links(workspace))?;
    at_path(Step::WorkingFolder, workspace, rustix::process::fchdir(folder).map_err(Into::into))?;
    enter_folder(workspace, &brief.cwd)?;
    at(Step::Limits, rlimits::apply(base.walls.rlimits))?;
    at(Step::Limits, rlimits::bound_cpu(brief.cpu_seconds))?;
    at(Step::CloseDoors, capabilities::drop_all())?;
    let (system, named) = (base.walls.host_grants(), base.walls.named_grants());
    let net = if base.walls.has_own_network() { Net::Refused } else { Net::LeftAlone };
    at(Step::Landlock, landlock::restrict_with(base.facts.landlock_abi, &system, &named, net))?;
    at(Step::Seccomp, seccomp::install(base.filter))?;
    let proved = battery::prove_landlocked(base.walls, base.facts, FIRST_KEPT as usize + 3)?;
    let evidence = Evidence { seccomp_filters: 1, no_new_privs: true, no_capabilities: true, proved };
    let _ = { &kept.status }.write_all(&Report::Walled(evidence).encode());
    if let Some(act) = &brief.file {
        clone::exit_now(files::perform(workspace, act).into());
    }
    let env = at(Step::SecretVariables, secrets::environment(&brief.env, &entries))?;
    let error = clone::exec_first(&brief.candidates, &brief.argv, &env);
    let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
    let _ = { &kept.status }.write_all(&Report::ExecFailed { errno }.encode());
    clone::exit_now(127)
}

/// Every process that descends from this one, by /proc (proc_pid_stat(5)).
fn descendants() -> Vec<i32> {
    let mut parents = BTreeMap::new();
    for item in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = item.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in brackets may hold anything; state and parent follow the last bracket.
        let mut fields = text.rsplit(") ").next().unwrap_or("").split(' ');
        if let (Some(state), Some(parent)) = (fields.next(), fields.next().and_then(|p| p.parse::<i32>().ok()))
            && state != "Z"
        {
            parents.insert(pid, parent);
        }
    }
    let own = std::process::id() as i32;
    let is_ours = |mut pid: i32| {
        // As deep as there are processes.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(parent) if *parent == own => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| is_ours(*pid)).collect()
}

/// Stops or continues all of them. Stopping goes on until no new one appears: what is stopped forks no more.
fn stop_all(signal: nix::sys::signal::Signal) {
    let mut known = Vec::new();
    loop {
        let now = descendants();
        for pid in &now {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), signal);
        }
        if signal != nix::sys::signal::Signal::SIGSTOP || now.iter().all(|pid| known.contains(pid)) {
            return;
        }
        known = now;
    }
}

/// Ends all of them, those that appear meanwhile too, and reaps them.
fn kill_all() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    stop_all(nix::sys::signal::Signal::SIGSTOP);
    loop {
        for pid in descendants() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        // Orphans are ours: the end is when there is no child left.
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                let _ = waitpid(None, None);
            }
            Err(nix::errno::Errno::ECHILD) => return,
            _ => {}
        }
    }
}

/// What the system shows in this tier: the same as elsewhere, as far as it is there.
pub(super) const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Of /proc: facts that tools read. Other processes are not among them.
pub(super) const PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/ostype",
    "/proc/sys/kernel/random",
    "/proc/sys/vm/overcommit_memory",
];

/// The command's own folder in /proc, looked up by the process that becomes it.
pub(super) fn own_proc() -> Option<PathBuf> {
    fs::read_link("/proc/self").ok().map(|own| Path::new("/proc").join(own))
}
