//! The recipe of the weakest tier: Landlock and seccomp alone, where no namespace can be made, as inside a container that
//! is locked down itself. Taken only where a profile names this tier as good enough.
//!
//! There is no tree of its own: the command sees the host's paths, and Landlock says which of them it may open. It has
//! the runner's own uid, so what namespaces keep apart elsewhere is refused by system calls here: sockets, other
//! processes' limits and priorities, System V IPC. A *keeper* stays outside of the command's Landlock domain, where the
//! command can neither signal nor trace it, and ends everything the command has started.

use super::battery::{self, Facts};
use super::brief::Brief;
use super::deputy::Deputy;
use super::files;
use super::guard;
use super::inside::{
    Ends, Everybody, FIRST_KEPT, Kept, Overseer, die_with_launcher, enter_folder, hand_over, signal_all, take_stdio,
};
use super::monitor::{Evidence, Report};
use super::secrets;
use super::step::{Failure, Step, Steps, at, at_path};
use super::walls::Walls;
use super::witness::Witness;
use crate::model::Tier;
use crate::os;
use crate::os::handover;
use crate::os::linux::clone::{self, Fork};
use crate::os::linux::landlock::{self, Grant, Net};
use crate::os::linux::seccomp::{self, Filter};
use crate::os::linux::{acts, capabilities, mounts, pty, rlimits};
use crate::os::process::Signal;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
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

    pub(super) fn path(&self) -> &Path {
        &self.0
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
    pub(super) private: Option<&'a Private>,
}

/// The keeper's whole life.
pub(super) fn live(base: &Base<'_>, channel: OwnedFd, status: OwnedFd) -> ! {
    let life = std::panic::AssertUnwindSafe(|| {
        let kept = match Kept::bare(base.launcher, channel, status) {
            Ok(kept) => kept,
            Err(_) => clone::exit_now(1),
        };
        let report =
            keep(base, &kept).unwrap_or_else(|Failure { step, errno, text }| Report::Failed { step, errno, text });
        // The launcher does so as well, where it still can.
        let _ = base.private.map(|private| os::tree::remove(private.path()));
        let _ = { &kept.status }.write_all(&report.encode());
        clone::exit_now(0)
    });
    let _ = std::panic::catch_unwind(life);
    clone::exit_now(1)
}

fn keep(base: &Base<'_>, kept: &Kept) -> Steps<Report> {
    clone::reset_signals();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    at(Step::Keeper, os::process::adopt_orphans())?;
    // When the host runs short, the command goes, not its keeper. An undumpable process, as the runner is, cannot open this.
    at(Step::Undumpable, os::process::make_dumpable())?;
    let own_score = at(Step::Limits, Score::raise())?;
    // Asked to end, not killed: whoever ends it must first end what it keeps.
    at(Step::DieWithRunner, die_with_launcher(&kept.launcher, Signal::TERM))?;
    at(Step::Undumpable, os::process::make_undumpable())?;
    at(Step::NoNewPrivs, rustix::thread::set_no_new_privs(true).map_err(Into::into))?;
    // A container may have a kernel without that: then the container is the wall between its commands and others.
    let everybody = match base.walls.tier {
        Tier::Container if base.facts.landlock_abi < LEAST_TO_KEEP_SIGNALS => Everybody::Descendants,
        _ => {
            at(Step::Keeper, keep_to_what_is_kept(base.facts.launcher))?;
            Everybody::Reachable
        }
    };
    hand_over(&kept.channel, None, Vec::new())?;
    at(Step::Cgroup, super::inside::wait_for_admission(&kept.channel))?;
    let brief = match at(Step::Brief, Brief::receive(&kept.channel))? {
        Some(brief) => brief,
        // The launcher is gone, or has changed its mind.
        None => return Ok(Report::Signaled(libc::SIGKILL as u8)),
    };
    at(Step::Descriptors, take_stdio(&brief, &kept.channel))?;
    let listed = base.walls.allowed.as_deref().map(|listed| guard::find(listed, base.walls)).transpose()?;
    let ends = at(Step::Start, Ends::watch(everybody))?;
    let witness = listed.as_deref().filter(|_| brief.file.is_none());
    let mut witness = at(Step::Guard, witness.map(|listed| Witness::begin(listed, &kept.status)).transpose())?;
    let (ours, theirs) = at(Step::Start, UnixStream::pair())?;
    let command = match at(Step::Start, clone::fork(nix::sched::CloneFlags::empty()))? {
        Fork::Child => {
            let Err(Failure { step, errno, text }) = become_command(base, kept, brief, listed.as_deref(), theirs);
            let _ = { &kept.status }.write_all(&Report::Failed { step, errno, text }.encode());
            clone::exit_now(127)
        }
        Fork::Parent { pid, .. } => pid,
    };
    drop((brief, theirs));
    at(Step::Limits, own_score.restore())?;
    for number in 0..3 {
        drop(clone::adopt_fd(number));
    }
    // Silence where the walls could not be built, which is told over the status pipe.
    let listener = handover::receive(&ours, &mut [0]).ok().flatten().and_then(|mut sent| sent.pop());
    let mut deputy = listener.and_then(|listener| Deputy::new(listener, &base.walls.binds).ok());
    let mut overseer = deputy.as_mut().map(|deputy| deputy as &mut dyn Overseer);
    // Lists are for containers, whose filter asks nobody.
    if overseer.is_none() {
        overseer = witness.as_mut().map(|witness| witness as &mut dyn Overseer);
    }
    let report = ends.of(command, &kept.channel, overseer);
    // With it nobody answers any more: what is asked from here on is refused.
    drop(deputy);
    end_all(everybody);
    Ok(report)
}

/// What the kernel goes by when it must kill something (proc_pid_oom_score_adj(5)): children inherit it. Raising it needs no
/// right, nor does going back.
struct Score(File, String);

impl Score {
    fn raise() -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open("/proc/self/oom_score_adj")?;
        let mut before = String::new();
        file.read_to_string(&mut before)?;
        file.write_all(b"900")?;
        Ok(Score(file, before))
    }

    fn restore(mut self) -> io::Result<()> {
        self.0.write_all(self.1.trim().as_bytes())
    }
}

/// Puts the keeper into a Landlock domain of its own. The command's lies inside of it, so one signal to everybody reaches
/// all that descends from the command, and nobody else; the command's own domain keeps it from signalling the keeper.
///
/// To walk /proc instead loses against processes that fork and end faster than it is read.
fn keep_to_what_is_kept(launcher: i32) -> io::Result<()> {
    landlock::keep_signals()?;
    // Without this wall the end of a run would be the end of everything that this user runs.
    match acts::signal(launcher) {
        libc::EPERM => Ok(()),
        answer => Err(io::Error::other(format!("the launcher could be signalled ({answer})"))),
    }
}

/// The command's own process, from the fork to its exec: every wall, the proof, the exec.
fn become_command(
    base: &Base<'_>,
    kept: &Kept,
    mut brief: Brief,
    listed: Option<&[PathBuf]>,
    keeper: UnixStream,
) -> Result<Infallible, Failure> {
    clone::unblock_signals();
    // A keeper that is killed ends nothing any more; this ends the command at least, though not what it has started.
    at(Step::DieWithRunner, rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into))?;
    let _ = rustix::process::setsid();
    if brief.terminal.is_some() {
        at(Step::Start, pty::control_standard_input())?;
    }
    let held = std::mem::take(&mut brief.secrets);
    let entries = at(Step::SecretVariables, secrets::entries(&held))?;
    // The keeper's descriptors are not for the command, but for one to it. What still names one here is never dropped:
    // this process execs.
    at(Step::Close, clone::place_fd(keeper.as_raw_fd(), TO_KEEPER))?;
    at(Step::Close, clone::close_from(TO_KEEPER + 1))?;
    std::mem::forget((held, std::mem::take(&mut brief.stdio), keeper));
    let keeper = clone::adopt_fd(TO_KEEPER);
    let workspace = base.walls.workspace();
    let folder = at_path(Step::OpenNamed, workspace, mounts::open_without_links(workspace))?;
    at_path(Step::WorkingFolder, workspace, rustix::process::fchdir(folder).map_err(Into::into))?;
    enter_folder(workspace, &brief.cwd)?;
    at(Step::Limits, rlimits::apply(base.walls.rlimits))?;
    at(Step::Limits, rlimits::bound_cpu(brief.cpu_seconds))?;
    at(Step::CloseDoors, capabilities::drop_all())?;
    let (mut system, named) = (base.walls.host_grants(), base.walls.named_grants());
    system.extend(listed.into_iter().flatten().map(|path| (path.clone(), Grant::Execute)));
    // A container has a network namespace, where a command may have its own loopback.
    let net = match base.walls.tier {
        Tier::Landlock if base.walls.has_own_network() => Net::Refused,
        _ => Net::LeftAlone,
    };
    if base.facts.landlock_abi == 0 && listed.is_some() {
        at(Step::Landlock, Err(io::Error::other("this kernel has none, and a list of executables needs it")))?;
    }
    if base.facts.landlock_abi > 0 {
        at(Step::Landlock, landlock::restrict_with(base.facts.landlock_abi, &system, &named, net))?;
    }
    let listener = at(Step::Seccomp, seccomp::install_with_listener(base.filter))?;
    let asked: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
    at(Step::Seccomp, handover::send(&keeper, &[0], &asked))?;
    drop((keeper, listener));
    at(Step::Limits, rlimits::bound_files())?;
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

/// Where the command's process has its descriptor to the keeper, behind those of every child.
const TO_KEEPER: i32 = FIRST_KEPT + 3;

/// Ends everything that descends from the command, and reaps it.
fn end_all(everybody: Everybody) {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    signal_all(everybody, nix::sys::signal::Signal::SIGKILL);
    let flags = match everybody {
        Everybody::Reachable => WaitPidFlag::empty(),
        // Who forks faster than /proc is read is looked for again.
        Everybody::Descendants => WaitPidFlag::WNOHANG,
    };
    // Orphans are ours: the end is when there is no child left.
    loop {
        match waitpid(None, Some(flags)) {
            Err(nix::errno::Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) => signal_all(everybody, nix::sys::signal::Signal::SIGKILL),
            _ => {}
        }
    }
}

/// The Landlock ABI whose domains keep a signal to everybody to themselves.
const LEAST_TO_KEEP_SIGNALS: u8 = 6;

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

/// Of the command's own folder in /proc. The rest of it tells of the host: its connections (`net`), which are behind
/// `task` as well.
const OWN_PROC: &[&str] = &[
    "auxv",
    "cgroup",
    "cmdline",
    "comm",
    "environ",
    "fd",
    "limits",
    "maps",
    "mountinfo",
    "mounts",
    "oom_score_adj",
    "stat",
    "statm",
    "status",
];

/// Those, looked up by the process that becomes the command.
pub(super) fn own_proc() -> Vec<PathBuf> {
    let folder = Path::new("/proc").join(std::process::id().to_string());
    OWN_PROC.iter().map(|file| folder.join(file)).collect()
}
