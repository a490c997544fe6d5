//! The recipe the child follows, from the fork to the exec: one reason, one call, one named step.
//!
//! It has two halves. The first builds what every command of this shape shares and may be done before there
//! is one; the second begins with the launcher's brief. The order matters: mounts before Landlock (a landlocked
//! process may not mount), the bounding set before the uid (dropping it needs a capability), no_new_privs before
//! Landlock and seccomp, seccomp last. A step that fails ends the child with its name on the status pipe; the
//! command is then never executed. A child serves one command and is never used again.

use super::brief::Brief;
use super::monitor::{Evidence, Report};
use super::secrets;
use super::step::{Failure, Step, Steps, at, at_path};
use super::tree::{Owner, Tree};
use crate::model::{Network, Secret, Tier};
use crate::os;
use crate::os::linux::clone;
use crate::os::linux::landlock::Grant;
use crate::os::linux::seccomp::{self, Filter};
use crate::os::linux::title::Title;
use crate::os::linux::{capabilities, landlock, netns, rlimits, userns};
use crate::sandbox::environment::HOME;
use crate::sandbox::plan::{Bind, Shown, WORKSPACE};
use nix::sched::CloneFlags;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What must be known before there is a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) network: Network,
    pub(super) scratch_bytes: u64,
}

/// Everything the first half needs.
pub(super) struct Base<'a> {
    pub(super) owner: Owner,
    pub(super) shape: Shape,
    /// What every sandbox shows of the host.
    pub(super) system: &'a [Bind],
    pub(super) landlock_abi: u8,
    pub(super) filter: &'a Filter,
    /// Where this process's arguments and environment lie; the init shows neither.
    pub(super) title: Title,
}

/// Follows the recipe; the child's whole life. Orders come over `channel`, reports go to `status`.
pub(super) fn live(base: Base<'_>, launcher: &OwnedFd, channel: OwnedFd, status: OwnedFd) -> ! {
    // A panic must not unwind into the launcher's frames: this process is a copy of it.
    let life = std::panic::AssertUnwindSafe(|| {
        let [status, channel, launcher] = match descriptors(launcher, channel, status) {
            Ok(kept) => kept,
            // Without a status pipe there is nobody to tell; the launcher sees the silence.
            Err(_) => clone::exit_now(1),
        };
        let Err(Failure { step, errno, text }) = serve(&base, &launcher, channel, &status);
        let _ = (&status).write_all(&Report::Failed { step, errno, text }.encode());
    });
    let _ = std::panic::catch_unwind(life);
    clone::exit_now(1)
}

fn serve(base: &Base<'_>, launcher: &File, channel: File, status: &File) -> Result<Infallible, Failure> {
    if base.owner.tier == Tier::UserNamespace {
        at(Step::UserMap, os::process::make_dumpable())?;
        at(Step::UserMap, userns::map_self(base.owner.uid, base.owner.gid))?;
    }
    // The command inherits it all: what the launcher ignores, or blocks, is not the command's affair.
    clone::reset_signals();
    // When the host itself runs short, a command goes before anything else. Raising it needs no right (proc(5)).
    at(Step::Limits, fs::write("/proc/self/oom_score_adj", "900"))?;
    let tree = Tree::base(&base.owner, base.system, base.shape.scratch_bytes)?;
    surroundings(base)?;

    let mut brief = match at(Step::Brief, Brief::receive(channel))? {
        Some(brief) => brief,
        // A spare that is not needed any more, or whose launcher is gone.
        None => clone::exit_now(0),
    };
    // Now, not at the fork: a cgroup namespace begins at the group one is in, and we have been moved since.
    at(Step::Cgroup, nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).map_err(Into::into))?;
    at(Step::Descriptors, take_stdio(&brief))?;
    let (files, variables) = secrets::part(std::mem::take(&mut brief.secrets));
    tree.complete(&base.owner, &brief.named, &files)?;
    drop(files);
    enter(&brief.cwd)?;
    at(Step::Limits, rlimits::apply(brief.rlimits))?;
    privileges(&base.owner)?;
    at(Step::DieWithRunner, die_with_launcher(launcher))?;
    // After the change of ids, which resets it; the command's own exec makes it dumpable for itself again.
    at(Step::Undumpable, os::process::make_undumpable())?;
    at(Step::NoNewPrivs, rustix::thread::set_no_new_privs(true).map_err(Into::into))?;
    at(Step::Landlock, enforce_landlock(base.landlock_abi, &brief.named))?;
    at(Step::Seccomp, seccomp::install(base.filter))?;
    // As late as can be, and not before the init is hidden from debuggers.
    let entries = at(Step::SecretVariables, secrets::entries(&variables))?;
    drop(variables);
    let evidence = read_back()?;
    let _ = { status }.write_all(&Report::Walled(evidence).encode());
    start(&brief, entries, status)
}

/// Where our own descriptors stand in the child, right after the command's 0, 1 and 2.
const KEPT: [i32; 3] = [3, 4, 5];
const FIRST_FREE: i32 = 6;

/// Lets go of everything the launcher holds, other runs' pipes among it, but what is ours: status, channel, launcher.
fn descriptors(launcher: &OwnedFd, channel: OwnedFd, status: OwnedFd) -> io::Result<[File; 3]> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // Lifted above every fixed number first, so that no placing overwrites what is still needed.
    let nothing = null.as_fd();
    let wanted = [&nothing, &nothing, &nothing, &status.as_fd(), &channel.as_fd(), &launcher.as_fd()];
    let lifted = wanted.map(|fd| clone::lift_fd(fd, FIRST_FREE));
    // Their copies stand at fixed numbers from here on, perhaps at their own: closed with all else, not one by one.
    std::mem::forget((null, channel, status));
    for (number, fd) in lifted.into_iter().enumerate() {
        clone::place_fd(fd?, number as i32)?;
    }
    clone::close_from(FIRST_FREE)?;
    let kept = KEPT.map(|number| File::from(clone::adopt_fd(number)));
    for fd in &kept {
        // The command must not inherit them through its exec.
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(kept)
}

/// Puts the command's own stdio at 0, 1 and 2.
fn take_stdio(brief: &Brief) -> io::Result<()> {
    for (number, fd) in brief.stdio.iter().enumerate() {
        clone::place_fd(fd.as_raw_fd(), number as i32)?;
    }
    Ok(())
}

/// Inside the new root: the working folder, reached from the workspace without leaving it.
fn enter(cwd: &Path) -> Steps {
    let enter = || {
        let workspace = os::fs::open_path(Path::new(WORKSPACE))?;
        let folder = if cwd.as_os_str().is_empty() { workspace } else { os::fs::open_dir_beneath(&workspace, cwd)? };
        Ok(rustix::process::fchdir(folder)?)
    };
    at_path(Step::WorkingFolder, &PathBuf::from(WORKSPACE).join(cwd), enter())
}

/// What surrounds every command alike.
fn surroundings(base: &Base<'_>) -> Steps {
    at(Step::HostName, nix::unistd::sethostname("sandbox").map_err(Into::into))?;
    if base.shape.network == Network::None {
        at(Step::Loopback, netns::bring_up_loopback())?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    os::linux::title::blank(base.title);
    at(Step::CloseDoors, capabilities::close_the_doors())
}

fn privileges(owner: &Owner) -> Steps {
    at(Step::Identity, identity(owner))?;
    at(Step::DropAll, capabilities::drop_all())?;
    at(Step::Proof, cannot_return(owner))
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
fn die_with_launcher(launcher: &File) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if os::process::wait_readable(launcher, Some(std::time::Duration::ZERO))? {
        return Err(io::Error::other("the launcher is gone"));
    }
    Ok(())
}

fn enforce_landlock(abi: u8, named: &[(Bind, Option<OwnedFd>)]) -> io::Result<()> {
    let mut rules = vec![
        (Path::new("/"), Grant::ReadExecute),
        (Path::new(WORKSPACE), Grant::ReadWriteExecute),
        (Path::new("/tmp"), Grant::ReadWriteExecute),
        (Path::new(HOME), Grant::ReadWriteExecute),
        (Path::new("/dev"), Grant::Device),
        (Path::new("/dev/shm"), Grant::ReadWriteExecute),
    ];
    let is_read_only = |(bind, _): &(Bind, _)| bind.target == Path::new(WORKSPACE) && bind.shown == Shown::ReadOnly;
    if named.iter().any(is_read_only) {
        rules.retain(|(path, _)| *path != Path::new(WORKSPACE));
    }
    let writable = named.iter().filter(|(bind, _)| bind.shown == Shown::Writable);
    rules.extend(writable.map(|(bind, _)| (bind.target.as_path(), Grant::ReadWriteExecute)));
    landlock::restrict(abi, rules)
}

/// Asks the kernel what it holds of this process and refuses to go on if it is not what was built.
///
/// By system calls, not by /proc/self/status: the same facts at a tenth of the cost.
fn read_back() -> Steps<Evidence> {
    let step = Step::ReadBack;
    let no_capabilities = at(step, capabilities::are_all_empty())?;
    let no_new_privs = at(step, rustix::thread::no_new_privs().map_err(Into::into))?;
    let filtered = at(step, seccomp::is_filtered())?;
    let surprise = if !no_new_privs {
        Some("no_new_privs is not set")
    } else if !no_capabilities {
        Some("a capability set is not empty")
    } else if !filtered {
        Some("the system-call filter is not installed")
    } else if std::process::id() != 1 {
        Some("this is not the init of a pid namespace")
    } else {
        None
    };
    match surprise {
        None => Ok(Evidence { seccomp_filters: 1, no_new_privs, no_capabilities }),
        Some(what) => Err(Failure { step, errno: 0, text: what.to_owned() }),
    }
}

/// Forks the command from the walled init, waits for it and reports its end.
fn start(brief: &Brief, entries: Vec<Secret<Vec<u8>>>, status: &File) -> Result<std::convert::Infallible, Failure> {
    let env = at(Step::SecretVariables, secrets::environment(&brief.env, &entries))?;
    let command = clone::spawn_borrowing(|| {
        let _ = rustix::process::setsid();
        let error = clone::exec_first(&brief.candidates, &brief.argv, &env);
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        let _ = { status }.write_all(&Report::ExecFailed { errno }.encode());
    });
    // The command has its own copy now, or there is no command.
    drop(entries);
    let command = at(Step::Start, command)?;
    // The command alone holds its output now: when it and its children let go, the reader sees the end.
    for number in 0..3 {
        drop(clone::adopt_fd(number));
    }
    let report = reap_until(command);
    let _ = { status }.write_all(&report.encode());
    // With its init, the kernel kills everything left in the pid namespace (pid_namespaces(7)).
    clone::exit_now(0)
}

/// Reaps orphans as init must, until the command itself ends.
fn reap_until(command: i32) -> Report {
    use nix::sys::wait::{WaitStatus, wait};
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == command => return Report::Exited(code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == command => {
                return Report::Signaled(signal as u8);
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Report::Signaled(libc::SIGKILL as u8),
        }
    }
}

/// The namespaces of a sandbox, but for the cgroup namespace, which comes later.
pub(super) fn namespaces(tier: Tier, network: Network) -> CloneFlags {
    let mut flags =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if network == Network::None {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if tier == Tier::UserNamespace {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    flags
}
