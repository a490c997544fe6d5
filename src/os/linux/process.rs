//! Children by their pidfds, descendants by /proc, and prctl(2) on this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub(crate) use rustix::process::Signal;

/// A handle on this process.
pub(crate) fn own_pidfd() -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?)
}

/// Waits for a child to end and reaps it.
pub(crate) fn wait_pidfd(pidfd: &OwnedFd) -> io::Result<()> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))?;
    Ok(())
}

/// What a child that has ended exited with, and reaps it; `None` where a signal ended it.
pub(crate) fn exit_code(pidfd: &OwnedFd) -> Option<i32> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
    status.ok().flatten()?.exit_status()
}

/// Waits until a child has ended, without blocking the thread and without reaping it.
pub(crate) async fn ended(pidfd: &OwnedFd) {
    // SAFETY: the borrowed descriptor outlives its registration, which ends with this function.
    let registered = unsafe { tokio::io::unix::AsyncFd::register(pidfd.as_fd()) };
    if let Ok(pidfd) = registered {
        let _ = pidfd.readable().await;
    }
}

/// Orphans of our descendants become our children, not those of the host's init (PR_SET_CHILD_SUBREAPER, kernel 3.4).
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Asks a child to end.
pub(crate) fn terminate_pidfd(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::TERM);
}

/// Waits for a child to end, reaps it and says whether it exited with 0.
pub(crate) fn ended_well(pidfd: &OwnedFd) -> io::Result<bool> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))?;
    Ok(status.is_some_and(|status| status.exit_status() == Some(0)))
}

/// Threads of a user's processes on this host; they all count towards its RLIMIT_NPROC.
///
/// Not by the owner of a folder in /proc, which is root where a process is undumpable, as ours are.
pub(crate) fn threads_of(uid: u32) -> u32 {
    let of_status = |text: String| {
        let field = |name| text.lines().find_map(|line: &str| line.strip_prefix(name)?.split_whitespace().next());
        let is_theirs = field("Uid:")?.parse() == Ok(uid);
        field("Threads:")?.parse::<u32>().ok().filter(|_| is_theirs)
    };
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|item| of_status(std::fs::read_to_string(item.path().join("status")).ok()?)).sum()
}

/// Kills a child, whatever it is doing. A child that has ended already is left alone.
pub(crate) fn kill_pidfd(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
}

/// Has what the kernel told this process at its start (getauxval(3)) read while it can be: before kernel 6.4 that takes
/// /proc/self/auxv, which is root's for an undumpable process, and rustix panics where it needs it and it cannot be read.
pub(crate) fn learn_of_the_kernel() {
    let _ = rustix::param::page_size();
}

/// No core dump, no ptrace, no /proc/PID/mem for others of our uid (prctl(2), PR_SET_DUMPABLE).
pub(crate) fn make_undumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// The reverse, for a moment: files of an undumpable process in /proc belong to root, its own id maps among them.
pub(crate) fn make_dumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?)
}

/// Sends a signal to every process that descends from this one, as far as one look at /proc finds them, parents first.
///
/// Whoever forks and ends faster than it is read is missed: look again until there is nobody.
pub(crate) fn signal_descendants(signal: nix::sys::signal::Signal) {
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in brackets that may hold anything.
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
    };
    let items = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = items.filter_map(|item| item.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![std::process::id() as i32];
    let mut at = 0;
    while at < found.len() {
        let of = found[at];
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    for pid in &found[1..] {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), signal);
    }
}

/// Resident memory of this process in bytes, from /proc/self/statm.
pub(crate) fn resident_bytes() -> u64 {
    let pages =
        std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Raises the soft limit of open descriptors to the hard one: each connection needs one.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
