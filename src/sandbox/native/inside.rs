//! The recipe the child follows, from the fork to the exec: one reason, one call, one named step.
//!
//! It has two halves. The first builds every wall, proves them, and needs no command; the second begins with the
//! launcher's brief and starts it. The order matters: mounts before Landlock (a landlocked process may not mount), the
//! bounding set before the uid (dropping it needs a capability), no_new_privs before Landlock and seccomp, seccomp last,
//! the battery after it. A step that fails ends the child with its name on the status pipe; the command is then never
//! executed. A child serves one command and is never used again.

use super::battery::{self, Facts};
use super::brief::Brief;
use super::files;
use super::guard;
use super::monitor::{Evidence, Report};
use super::secrets::{self, Held};
use super::step::{Failure, Step, Steps, at, at_path};
use super::tree::{Owner, Tree};
use super::walls::Walls;
use super::witness::Witness;
use crate::model::{LONGEST_SECRET, Network, Secret, SecretUse, Tier};
use crate::os;
use crate::os::Sealed;
use crate::os::handover;
use crate::os::linux::seccomp::{self, Filter};
use crate::os::linux::title::Title;
use crate::os::linux::{capabilities, clone, landlock, netns, pty, rlimits, userns};
use crate::os::process::Signal;
use crate::sandbox::plan::{Bind, WORKSPACE};
use nix::sched::CloneFlags;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Everything the first half needs. Descriptors are the launcher's own numbers, of which the child has copies.
pub(super) struct Base<'a> {
    pub(super) owner: Owner,
    pub(super) walls: &'a Walls,
    /// For each bind of the walls the namespace whose map shows its owner as us, if one is needed.
    pub(super) mappings: Vec<Option<BorrowedFd<'a>>>,
    /// Secrets that are to be files.
    pub(super) files: Vec<(&'a SecretUse, &'a Sealed)>,
    /// What every sandbox shows of the host.
    pub(super) system: &'a [Bind],
    pub(super) filter: &'a Filter,
    pub(super) facts: &'a Facts,
    /// Where this process's arguments and environment lie; the init shows neither.
    pub(super) title: Title,
}

/// What the child keeps open while it builds.
pub(super) struct Kept {
    pub(super) status: File,
    pub(super) channel: File,
    pub(super) launcher: File,
    mappings: Vec<Option<File>>,
    files: Vec<Held>,
}

/// The byte with which the launcher says that the child is where it belongs in the control groups.
pub(super) const ADMITTED: u8 = b'g';

/// Follows the recipe; the child's whole life. Orders come over `channel`, reports go to `status`.
pub(super) fn live(base: Base<'_>, launcher: &OwnedFd, channel: OwnedFd, status: OwnedFd) -> ! {
    // A panic must not unwind into the launcher's frames: this process is a copy of it.
    let life = std::panic::AssertUnwindSafe(|| {
        let mut kept = match Kept::take(&base, launcher, channel, status) {
            Ok(kept) => kept,
            // Without a status pipe there is nobody to tell; the launcher sees the silence.
            Err(_) => clone::exit_now(1),
        };
        let Err(Failure { step, errno, text }) = serve(&base, &mut kept);
        let _ = kept.status.write_all(&Report::Failed { step, errno, text }.encode());
    });
    let _ = std::panic::catch_unwind(life);
    clone::exit_now(1)
}

fn serve(base: &Base<'_>, kept: &mut Kept) -> Result<Infallible, Failure> {
    let executables = build(base, kept)?;
    let brief = match at(Step::Brief, Brief::receive(&kept.channel))? {
        Some(brief) => brief,
        // A spare that is not needed any more, or whose launcher is gone.
        None => clone::exit_now(0),
    };
    start(brief, kept, executables.as_deref())
}
/// Where our own descriptors stand in the child, right after the command's 0, 1 and 2.
pub(super) const FIRST_KEPT: i32 = 3;

impl Kept {
    /// Lets go of everything the launcher holds, other runs' pipes among it, but what this child needs.
    fn take(base: &Base<'_>, launcher: &OwnedFd, channel: OwnedFd, status: OwnedFd) -> io::Result<Self> {
        Self::of(&base.mappings, &base.files, launcher, channel, status)
    }

    fn of(
        mappings: &[Option<BorrowedFd<'_>>],
        files: &[(&SecretUse, &Sealed)],
        launcher: &OwnedFd,
        channel: OwnedFd,
        status: OwnedFd,
    ) -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let mut wanted =
            vec![null.as_fd(), null.as_fd(), null.as_fd(), status.as_fd(), channel.as_fd(), launcher.as_fd()];
        wanted.extend(mappings.iter().flatten());
        wanted.extend(files.iter().map(|(_, value)| value.as_fd()));
        // Lifted above every fixed number first, so that no placing overwrites what is still needed.
        let first_free = wanted.len() as i32;
        let lifted: Vec<io::Result<i32>> = wanted.iter().map(|fd| clone::lift_fd(fd, first_free)).collect();
        // Their copies stand at fixed numbers from here on, perhaps at their own: closed with all else, not one by one.
        std::mem::forget((null, channel, status));
        for (number, fd) in lifted.into_iter().enumerate() {
            clone::place_fd(fd?, number as i32)?;
        }
        clone::close_from(first_free)?;
        let mut placed = (FIRST_KEPT..first_free).map(|number| File::from(clone::adopt_fd(number)));
        let mut next = || -> io::Result<File> {
            let fd = placed.next().ok_or_else(|| io::Error::other("a descriptor is missing"))?;
            // The command must not inherit it through its exec.
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
            Ok(fd)
        };
        let (status, channel, launcher) = (next()?, next()?, next()?);
        let mappings = mappings.iter().map(|m| m.map(|_| next()).transpose()).collect::<io::Result<_>>()?;
        let secret = |(wanted, _): &(&SecretUse, &Sealed), fd: File| -> io::Result<Held> {
            Ok(((*wanted).clone(), Sealed::check(fd.into(), LONGEST_SECRET)?))
        };
        let files = files.iter().map(|file| secret(file, next()?)).collect::<io::Result<_>>()?;
        Ok(Kept { status, channel, launcher, mappings, files })
    }

    /// The same for a child without a tree of its own.
    pub(super) fn bare(launcher: &OwnedFd, channel: OwnedFd, status: OwnedFd) -> io::Result<Self> {
        Self::of(&[], &[], launcher, channel, status)
    }
}

/// The first half: every wall, and the proof that it stands.
fn build(base: &Base<'_>, kept: &mut Kept) -> Steps<Option<Vec<PathBuf>>> {
    if base.owner.tier == Tier::UserNamespace {
        at(Step::UserMap, os::process::make_dumpable())?;
        at(Step::UserMap, userns::map_self(base.owner.uid, base.owner.gid))?;
    }
    // The command inherits it all: what the launcher ignores, or blocks, is not the command's affair.
    clone::reset_signals();
    // When the host itself runs short, a command goes before anything else. Raising it needs no right (proc(5)).
    at(Step::Limits, fs::write("/proc/self/oom_score_adj", "900"))?;
    let mounts = at(Step::Private, File::open("/proc/self/ns/mnt"))?;
    let tree = Tree::base(&base.owner, base.system, base.walls)?;
    let (mappings, files) = (std::mem::take(&mut kept.mappings), std::mem::take(&mut kept.files));
    tree.complete(&base.owner, base.walls, &mappings, &files)?;
    drop((mappings, files));
    let executables = base.walls.allowed.as_deref().map(|listed| guard::raise(listed, base.walls)).transpose()?;
    // A cgroup namespace begins at the group one is in: the launcher says when it has moved us to our own.
    at(Step::Cgroup, wait_for_admission(&kept.channel))?;
    at(Step::Namespaces, nix::sched::unshare(inner_namespaces(base.walls.network)).map_err(Into::into))?;
    let doors = surroundings(base)?;
    at_path(Step::WorkingFolder, Path::new(WORKSPACE), rustix::process::chdir(WORKSPACE).map_err(Into::into))?;
    at(Step::Limits, rlimits::apply(base.walls.rlimits))?;
    privileges(&base.owner)?;
    at(Step::DieWithRunner, die_with_launcher(&kept.launcher, Signal::KILL))?;
    // After the change of ids, which resets it; the command's own exec makes it dumpable for itself again.
    at(Step::Undumpable, os::process::make_undumpable())?;
    at(Step::NoNewPrivs, rustix::thread::set_no_new_privs(true).map_err(Into::into))?;
    at(Step::Landlock, landlock::restrict(base.facts.landlock_abi, &base.walls.grants(executables.as_deref())))?;
    at(Step::Seccomp, seccomp::install(base.filter))?;
    hand_over(&kept.channel, Some(mounts), doors)?;
    let proved = battery::prove(base.walls, base.facts, FIRST_KEPT as usize + 3)?;
    let evidence = Evidence { seccomp_filters: 1, no_new_privs: true, no_capabilities: true, proved };
    let _ = { &kept.status }.write_all(&Report::Walled(evidence).encode());
    Ok(executables)
}

/// Waits until the launcher has moved us into our control group.
pub(super) fn wait_for_admission(channel: &File) -> io::Result<()> {
    let mut word = [0];
    { channel }.read_exact(&mut word)?;
    if word[0] != ADMITTED {
        return Err(io::Error::other("the launcher said something else than that we are in our control group"));
    }
    Ok(())
}

/// Gives the launcher the mount namespace to hold, and the doors if there are some.
///
/// While it holds the namespace, its mounts are not taken down by our exit, for which somebody waits, but after it.
pub(super) fn hand_over(channel: &File, mounts: Option<File>, doors: Vec<OwnedFd>) -> Steps {
    let handed: Vec<BorrowedFd<'_>> = mounts.iter().map(AsFd::as_fd).chain(doors.iter().map(AsFd::as_fd)).collect();
    let sent = handover::send(channel, &[HANDED], &handed);
    // Without doors nothing is lost but time.
    if doors.is_empty() { Ok(()) } else { at(Step::Doors, sent.map(|_| ())) }
}

/// The byte beside which stand the mount namespace and the doors; beside which stands the master of the terminal.
pub(super) const HANDED: u8 = b'h';
pub(super) const TERMINAL: u8 = b't';

/// What the launcher may say while the command runs.
pub(super) const FREEZE: u8 = b'f';
pub(super) const THAW: u8 = b'c';

/// Puts the command's own stdio at 0, 1 and 2, or a terminal that is made for it.
pub(super) fn take_stdio(brief: &Brief, channel: &File) -> io::Result<()> {
    let Some(size) = brief.terminal else {
        for (number, fd) in brief.stdio.iter().enumerate() {
            clone::place_fd(fd.as_raw_fd(), number as i32)?;
        }
        return Ok(());
    };
    let (master, terminal) = pty::open(size)?;
    handover::send(channel, &[TERMINAL], &[master.as_fd()])?;
    (0..3).try_for_each(|number| clone::place_fd(terminal.as_raw_fd(), number))
}

/// The working folder, reached from the workspace without ending outside of it.
///
/// Inside the walls and without privilege: links on the way lead to what the command could enter as well, and where it
/// ends is looked at.
fn enter(cwd: &Path) -> Steps {
    enter_folder(Path::new(WORKSPACE), cwd)
}

/// The same for a workspace that stands elsewhere.
pub(super) fn enter_folder(workspace: &Path, cwd: &Path) -> Steps {
    let enter = || {
        if !cwd.as_os_str().is_empty() {
            rustix::process::chdir(cwd)?;
        }
        match std::env::current_dir()?.starts_with(workspace) {
            true => Ok(()),
            false => Err(io::Error::other("it leads out of the workspace")),
        }
    };
    at_path(Step::WorkingFolder, &workspace.join(cwd), enter())
}

/// What surrounds every command alike.
fn surroundings(base: &Base<'_>) -> Steps<Vec<OwnedFd>> {
    at(Step::HostName, nix::unistd::sethostname("sandbox").map_err(Into::into))?;
    if base.walls.has_own_network() {
        at(Step::Loopback, netns::bring_up_loopback())?;
    }
    let doors = match base.walls.network {
        Network::Allowlist => {
            at(Step::Doors, netns::route_locally().and_then(|()| netns::open_doors(&base.walls.ports)))?
        }
        Network::None | Network::Host => Vec::new(),
    };
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    os::linux::title::blank(base.title);
    at(Step::CloseDoors, capabilities::close_the_doors())?;
    Ok(doors)
}

fn privileges(owner: &Owner) -> Steps {
    at(Step::Identity, identity(owner))?;
    at(Step::DropAll, capabilities::drop_all())?;
    at(Step::Return, cannot_return(owner))
}

/// Takes the ids and looks whether they were given (setuid(2) may fail at RLIMIT_NPROC).
fn identity(owner: &Owner) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    if owner.tier == Tier::Root {
        setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        if !getgroups()?.is_empty() {
            return Err(io::Error::other("supplementary groups remain"));
        }
    }
    let (uids, gids) = (getresuid()?, getresgid()?);
    if [uids.real, uids.effective, uids.saved] != [uid; 3] || [gids.real, gids.effective, gids.saved] != [gid; 3] {
        return Err(io::Error::other("the ids are not the ones asked for"));
    }
    Ok(())
}

/// Tries to become root again, which must fail: a drop that did not happen is found here (CVE class of setuid(2)).
fn cannot_return(owner: &Owner) -> io::Result<()> {
    let root = nix::unistd::Uid::from_raw(0);
    if owner.uid != 0 && nix::unistd::setresuid(root, root, root).is_ok() {
        return Err(io::Error::other("root could be taken back"));
    }
    Ok(())
}

/// The whole sandbox dies with the launcher. The signal is cleared by a change of ids, so it is set after; the
/// launcher may have died before that, which its pidfd tells (a pipe would not: another child may hold its end).
pub(super) fn die_with_launcher(launcher: &File, signal: Signal) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    if os::process::wait_readable(launcher, Some(std::time::Duration::ZERO))? {
        return Err(io::Error::other("the launcher is gone"));
    }
    Ok(())
}

/// The second half: takes what is the command's own, starts it, waits for it and reports its end.
fn start(mut brief: Brief, kept: &Kept, executables: Option<&[PathBuf]>) -> Result<Infallible, Failure> {
    at(Step::Descriptors, take_stdio(&brief, &kept.channel))?;
    enter(&brief.cwd)?;
    at(Step::Limits, rlimits::bound_cpu(brief.cpu_seconds))?;
    if let Some(act) = &brief.file {
        let report = Report::Exited(files::perform(Path::new(WORKSPACE), act));
        let _ = { &kept.status }.write_all(&report.encode());
        clone::exit_now(0);
    }
    let has_terminal = brief.terminal.is_some();
    // As late as can be, and not before the init is hidden from debuggers.
    let secrets = std::mem::take(&mut brief.secrets);
    let entries = at(Step::SecretVariables, secrets::entries(&secrets))?;
    drop(secrets);
    let status = &kept.status;
    let ends = at(Step::Start, Ends::watch(Everybody::Reachable))?;
    let witness = executables.map(|listed| Witness::begin(listed, status)).transpose();
    let mut witness = at(Step::Guard, witness)?;
    let command = spawn(&brief, has_terminal, entries, status, witness.is_some())?;
    drop(brief);
    // The command alone holds its output now: when it and its children let go, the reader sees the end.
    for number in 0..3 {
        drop(clone::adopt_fd(number));
    }
    let report = ends.of(command, &kept.channel, witness.as_mut().map(|witness| witness as &mut dyn Overseer));
    let _ = { status }.write_all(&report.encode());
    // With its init, the kernel kills everything left in the pid namespace (pid_namespaces(7)).
    clone::exit_now(0)
}

fn spawn(
    brief: &Brief,
    has_terminal: bool,
    entries: Vec<Secret<Vec<u8>>>,
    status: &File,
    is_witnessed: bool,
) -> Steps<i32> {
    let env = at(Step::SecretVariables, secrets::environment(&brief.env, &entries))?;
    let mut child = || {
        clone::unblock_signals();
        let _ = rustix::process::setsid();
        if has_terminal {
            let _ = pty::control_standard_input();
        }
        let bounded = rlimits::bound_files();
        let error = bounded.err().unwrap_or_else(|| clone::exec_first(&brief.candidates, &brief.argv, &env));
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        let _ = { status }.write_all(&Report::ExecFailed { errno }.encode());
    };
    // Whoever looks at an exec cannot wait for it at the same time.
    let command = if is_witnessed { clone::spawn_copying(child) } else { clone::spawn_borrowing(&mut child) };
    // The command has its own copy now, or there is no command.
    drop(entries);
    at(Step::Start, command)
}

/// Whoever is asked by what the command's filter answers with `Answer::Ask`.
pub(super) trait Overseer {
    /// Readable when a call waits.
    fn listener(&self) -> &OwnedFd;

    /// Takes one call and answers it; false when nobody is left who could make one.
    fn serve(&mut self) -> bool;
}

/// Whom a signal to everybody of a sandbox is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Everybody {
    /// All whom this process may signal: those of its pid namespace, or of its Landlock domain.
    Reachable,
    /// All that descend from it, looked for in /proc: where neither keeps others apart.
    Descendants,
}

/// The ends of our children, as a descriptor (signalfd(2)).
pub(super) struct Ends(nix::sys::signalfd::SignalFd, Everybody);

impl Ends {
    pub(super) fn watch(everybody: Everybody) -> io::Result<Self> {
        use nix::sys::signal::{SigSet, Signal};
        use nix::sys::signalfd::{SfdFlags, SignalFd};
        // To the init of a pid namespace nobody sends the second; to a keeper the launcher does.
        let mut ends = SigSet::from(Signal::SIGCHLD);
        ends.add(Signal::SIGTERM);
        ends.thread_block()?;
        Ok(Ends(SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?, everybody))
    }

    /// Reaps orphans as init must, until the command itself ends. Meanwhile the launcher may have everything stopped.
    ///
    /// It says so over its channel, not by a signal: the command could send those as well.
    pub(super) fn of(self, command: i32, channel: &File, overseer: Option<&mut dyn Overseer>) -> Report {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut is_open = true;
        let mut is_held = false;
        let mut overseer = overseer;
        loop {
            if let Some(report) = reap(command) {
                return report;
            }
            let mut fds = vec![PollFd::new(&self.0, PollFlags::IN)];
            let orders = is_open.then_some(channel.as_fd());
            let calls = overseer.as_ref().map(|overseer| overseer.listener().as_fd());
            fds.extend(orders.iter().chain(&calls).map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
            let again = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            match poll(&mut fds, Some(&again).filter(|_| is_held)) {
                Ok(0) => stop_all(self.1),
                Ok(_) => {}
                Err(_) => continue,
            }
            let mut ready = fds[1..].iter().map(|fd| !fd.revents().is_empty());
            let is_ordered = orders.is_some() && ready.next() == Some(true);
            let is_asked = calls.is_some() && ready.next() == Some(true);
            while let Ok(Some(signal)) = self.0.read_signal() {
                if signal.ssi_signo == libc::SIGTERM as u32 && std::process::id() != 1 {
                    return Report::Signaled(libc::SIGKILL as u8);
                }
            }
            if is_ordered {
                is_open = obey(channel, &mut is_held, self.1);
            }
            if is_asked {
                overseer = overseer.take().and_then(|overseer| overseer.serve().then_some(overseer));
            }
        }
    }
}

/// Everything that has ended by now; what became of the command, if it is among it.
fn reap(command: i32) -> Option<Report> {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == command => return Some(Report::Exited(code as u8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == command => {
                return Some(Report::Signaled(signal as u8));
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Some(Report::Signaled(libc::SIGKILL as u8)),
        }
    }
}

/// Stops or continues every process of the sandbox but this one; false when the launcher has let go.
fn obey(mut channel: &File, is_held: &mut bool, everybody: Everybody) -> bool {
    let mut word = [0];
    match channel.read(&mut word) {
        Ok(1) => {}
        Err(e) if e.kind() == io::ErrorKind::Interrupted => return true,
        _ => return false,
    }
    match word[0] {
        FREEZE => stop_all(everybody),
        THAW => signal_all(everybody, nix::sys::signal::Signal::SIGCONT),
        _ => return true,
    }
    *is_held = word[0] == FREEZE;
    true
}

/// Stops everything, until it is told otherwise again and again.
///
/// One call reaches all: the kernel walks its list under a lock that a fork needs too (kill(2), pid -1). But whoever is in
/// a call that continues others at that moment ends it first, and takes the stop back. So it is said more often than
/// anybody can be in such a call each time.
fn stop_all(everybody: Everybody) {
    const TIMES: usize = 64;
    for _ in 0..TIMES {
        signal_all(everybody, nix::sys::signal::Signal::SIGSTOP);
    }
}

/// Sends a signal to everything in this pid namespace but its init, or in this keeper's Landlock domain but the keeper;
/// or to all that descends from this process.
pub(super) fn signal_all(everybody: Everybody, signal: nix::sys::signal::Signal) {
    match everybody {
        Everybody::Reachable => drop(nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), signal)),
        Everybody::Descendants => os::process::signal_descendants(signal),
    }
}

/// The namespaces that the fork makes: whoever builds the tree must be in them.
pub(super) fn outer_namespaces(tier: Tier) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if tier == Tier::UserNamespace {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    flags
}

/// Those that the child makes for itself: a network namespace costs more than all others together, and while the child
/// makes it the launcher can serve somebody else.
pub(super) fn inner_namespaces(network: Network) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    if network != Network::Host {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    flags
}
