//! The recipe the child follows, from the fork to the exec: one reason, one call, one named step.
//!
//! Everything that can be prepared was prepared by the launcher. The order matters: mounts before
//! Landlock (a landlocked process may not mount), capabilities before the uid (dropping the bounding
//! set needs one), no_new_privs before Landlock and seccomp, seccomp last. A step that fails ends the
//! child with its name on the status pipe; the command is then never executed.

use super::monitor::{Evidence, Report};
use crate::model::{Network, Tier};
use crate::os;
use crate::os::linux::clone;
use crate::os::linux::landlock::Grant;
use crate::os::linux::mounts::{self, Attributes, Reach};
use crate::os::linux::rlimits::Rlimits;
use crate::os::linux::seccomp::{self, Filter};
use crate::os::linux::title::Title;
use crate::os::linux::{capabilities, landlock, netns, rlimits, userns};
use crate::sandbox::environment::HOME;
use crate::sandbox::plan::{Bind, MASKED_PROC, Shown, WORKSPACE};
use nix::sched::CloneFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

macro_rules! steps {
    ($($name:ident = $words:literal,)*) => {
        /// A named step of the recipe.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Step { $($name,)* }

        impl Step {
            const ALL: &[Step] = &[$(Step::$name,)*];

            /// What is being done, in a few words.
            pub(super) fn words(self) -> &'static str {
                match self { $(Step::$name => $words,)* }
            }

            pub(super) fn from_number(number: u8) -> Option<Step> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }
    };
}

steps! {
    Descriptors = "place the command's descriptors",
    Close = "close inherited descriptors",
    UserMap = "map the user namespace",
    Private = "detach mount propagation",
    OpenNamed = "open a folder of the profile",
    OpenSystem = "open a part of the system",
    IdMap = "map the owner of the workspace (the file system must know id-mapped mounts)",
    Root = "make an empty root",
    Attach = "attach a mount",
    Devices = "make /dev",
    Proc = "mount /proc",
    Mask = "mask a part of /proc",
    Scratch = "make /tmp and the home folder",
    SealRoot = "make the root read-only",
    Pivot = "change the root",
    WorkingFolder = "enter the working folder",
    HostName = "set the host name",
    Loopback = "bring up the loopback of the network namespace",
    Limits = "set resource limits",
    CloseDoors = "empty the bounding set and lock the secure bits",
    Identity = "take the sandbox's uid and gid",
    DropAll = "empty the capability sets",
    Proof = "prove that root is gone",
    DieWithRunner = "tie this process to the launcher",
    Undumpable = "hide the init from debuggers",
    NoNewPrivs = "set no_new_privs",
    Landlock = "enforce Landlock",
    Seccomp = "install the system-call filter",
    ReadBack = "read the walls back from the kernel",
    Gate = "enter the control group",
    Start = "start the command",
}

/// Everything the child needs, made before the fork.
pub(super) struct Recipe<'a> {
    pub(super) tier: Tier,
    /// The ids the command runs under.
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) binds: &'a [Bind],
    /// Beside each bind: the namespace whose map shows its owner as us, if one is needed.
    pub(super) mappings: Vec<Option<BorrowedFd<'a>>>,
    pub(super) network: Network,
    pub(super) scratch_bytes: u64,
    pub(super) rlimits: Rlimits,
    pub(super) landlock_abi: u8,
    pub(super) filter: &'a Filter,
    /// Where this process's arguments and environment lie; the init shows neither.
    pub(super) title: Title,
    pub(super) cwd: &'a Path,
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    /// What the command gets as 0, 1 and 2.
    pub(super) stdio: [BorrowedFd<'a>; 3],
}

/// A step's failure on its way to the status pipe.
struct Failure {
    step: Step,
    errno: i32,
    text: String,
}

type Steps<T = ()> = Result<T, Failure>;

fn at<T>(step: Step, result: io::Result<T>) -> Steps<T> {
    result.map_err(|e| fail(step, &e, ""))
}

fn at_path<T>(step: Step, path: &Path, result: io::Result<T>) -> Steps<T> {
    result.map_err(|e| fail(step, &e, &path.display().to_string()))
}

fn fail(step: Step, error: &io::Error, text: &str) -> Failure {
    match error.raw_os_error() {
        Some(errno) => Failure { step, errno, text: text.to_owned() },
        None => Failure {
            step,
            errno: 0,
            text: if text.is_empty() { error.to_string() } else { format!("{text}: {error}") },
        },
    }
}

/// Runs the recipe; the child's whole life. `gate` says go, `status` takes the reports.
pub(super) fn live(recipe: Recipe<'_>, gate: File, status: File) -> ! {
    // A panic must not unwind into the launcher's frames: this process is a copy of it.
    let life = std::panic::AssertUnwindSafe(|| match build(&recipe, gate, status) {
        Ok(never) => match never {},
        Err((failure, status)) => {
            let Failure { step, errno, text } = failure;
            let _ = (&status).write_all(&Report::Failed { step, errno, text }.encode());
        }
    });
    let _ = std::panic::catch_unwind(life);
    clone::exit_now(1)
}

fn build(recipe: &Recipe<'_>, gate: File, status: File) -> Result<std::convert::Infallible, (Failure, File)> {
    let kept = descriptors(recipe, &gate, &status);
    // Their copies stand at fixed numbers now, perhaps at their own: they are closed with all else, not one by one.
    std::mem::forget(gate);
    let (status, gate) = match kept {
        Ok(kept) => {
            std::mem::forget(status);
            kept
        }
        Err(failure) => return Err((failure, status)),
    };
    match walls(recipe, gate, &status) {
        Ok(evidence) => {
            let _ = (&status).write_all(&Report::Walled(evidence).encode());
            let Err(failure) = start(recipe, &status);
            Err((failure, status))
        }
        Err(failure) => Err((failure, status)),
    }
}

fn walls(recipe: &Recipe<'_>, gate: File, status: &File) -> Steps<Evidence> {
    if recipe.tier == Tier::UserNamespace {
        at(Step::UserMap, userns::map_self(recipe.uid, recipe.gid))?;
    }
    tree(recipe)?;
    // The launcher's own descriptors, and those of other runs, end here.
    at(Step::Close, clone::close_from(FIRST_FREE))?;
    enter(recipe)?;
    surroundings(recipe)?;
    privileges(recipe)?;
    at(Step::DieWithRunner, die_with_launcher(status))?;
    os::linux::title::blank(recipe.title);
    // After the change of ids, which resets it; the command's own exec makes it dumpable for itself again.
    at(Step::Undumpable, os::process::make_undumpable())?;
    at(Step::NoNewPrivs, rustix::thread::set_no_new_privs(true).map_err(Into::into))?;
    at(Step::Landlock, enforce_landlock(recipe))?;
    at(Step::Seccomp, seccomp::install(recipe.filter))?;
    let evidence = read_back()?;
    wait_for_go(gate)?;
    Ok(evidence)
}

/// Where the status pipe stands in the child, right after the command's 0, 1 and 2.
const STATUS: i32 = 3;
const GATE: i32 = 4;

/// Descriptors the launcher means the child to use stand here or above, out of the way of the fixed numbers.
pub(super) const FIRST_FREE: i32 = 5;

/// Puts the command's stdio at 0, 1, 2 and the two pipes behind them.
fn descriptors(recipe: &Recipe<'_>, gate: &File, status: &File) -> Steps<(File, File)> {
    let wanted = [&recipe.stdio[0], &recipe.stdio[1], &recipe.stdio[2], &status.as_fd(), &gate.as_fd()];
    // Lifted above every fixed number first, so that no placing overwrites what is still needed.
    let lifted = wanted.map(|fd| clone::lift_fd(fd, FIRST_FREE));
    for (number, fd) in lifted.into_iter().enumerate() {
        at(Step::Descriptors, fd.and_then(|fd| clone::place_fd(fd, number as i32)))?;
    }
    let kept = [STATUS, GATE].map(|number| File::from(clone::adopt_fd(number)));
    for fd in &kept {
        // The command must not inherit them through its exec.
        at(Step::Descriptors, rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).map_err(Into::into))?;
    }
    let [status, gate] = kept;
    Ok((status, gate))
}

/// The launcher writes one byte once we are in our control group, which takes it about as long as we take for
/// the walls. Its death reads as the end of the pipe.
fn wait_for_go(mut gate: File) -> Steps {
    at(Step::Gate, io::Read::read_exact(&mut gate, &mut [0]))
}

const SYSTEM: Attributes = Attributes { read_only: true, no_exec: false, no_dev: true };
const WRITABLE: Attributes = Attributes { read_only: false, no_exec: false, no_dev: true };
const SCRATCH: Attributes = Attributes { read_only: false, no_exec: true, no_dev: true };
const DEVICE: Attributes = Attributes { read_only: false, no_exec: true, no_dev: false };
const SEALED: Attributes = Attributes { read_only: true, no_exec: true, no_dev: true };

/// Builds the tree on an empty tmpfs and makes it the root.
fn tree(recipe: &Recipe<'_>) -> Steps {
    at(Step::Private, mounts::make_all_private())?;
    // All sources first: the new root is attached over /usr, and from then on old paths lead astray.
    let mut trees = Vec::with_capacity(recipe.binds.len());
    for (bind, mapping) in recipe.binds.iter().zip(&recipe.mappings) {
        if let Some(tree) = open_tree(bind, *mapping)? {
            trees.push((bind, tree));
        }
    }
    let root = at(Step::Root, empty_root(recipe))?;
    at(Step::Root, skeleton(recipe))?;
    // Before the binds: one may lie below /tmp and must not be covered.
    at(Step::Scratch, scratch(recipe, root.as_fd()))?;
    for (bind, tree) in &trees {
        at_path(Step::Attach, &bind.target, attach(root.as_fd(), tree.as_fd(), &bind.target))?;
    }
    at(Step::Devices, devices(root.as_fd()))?;
    at(Step::Proc, proc(root.as_fd()))?;
    mask(root.as_fd())?;
    at(Step::SealRoot, mounts::set_attributes(root.as_fd(), SEALED, Reach::ThisMount))?;
    at(Step::Pivot, mounts::pivot_into(root.as_fd()))
}

/// A detached copy of what is to be shown, with its flags; `None` where it is missing and may be.
fn open_tree(bind: &Bind, mapping: Option<BorrowedFd<'_>>) -> Steps<Option<OwnedFd>> {
    let (step, opened) = if bind.named {
        (Step::OpenNamed, mounts::open_without_links(&bind.source))
    } else {
        (Step::OpenSystem, mounts::open_path(&bind.source))
    };
    let source = match opened {
        Err(e) if !bind.required && e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => at_path(step, &bind.source, opened)?,
    };
    if bind.named && !at_path(step, &bind.source, os::fs::owner(&source))?.2 {
        at_path(step, &bind.source, Err(io::Error::other("it is not a folder")))?;
    }
    let reach = if mapping.is_some() { Reach::ThisMount } else { Reach::WholeTree };
    let tree = at_path(step, &bind.source, mounts::clone_tree(source.as_fd(), reach))?;
    if let Some(mapping) = mapping {
        at_path(Step::IdMap, &bind.source, mounts::set_id_map(tree.as_fd(), mapping))?;
    }
    let attributes = match bind.shown {
        Shown::ReadOnly => SYSTEM,
        Shown::Writable => WRITABLE,
        Shown::Device => DEVICE,
    };
    at_path(step, &bind.source, mounts::set_attributes(tree.as_fd(), attributes, Reach::WholeTree))?;
    Ok(Some(tree))
}

/// A tmpfs that holds mount points, links and the scratch folders, attached where /usr was.
fn empty_root(recipe: &Recipe<'_>) -> io::Result<OwnedFd> {
    let size = recipe.scratch_bytes.to_string();
    let options = [(c"mode", "0755"), (c"size", size.as_str()), (c"nr_inodes", "65536")];
    let root = mounts::new_filesystem(c"tmpfs", &options, SCRATCH)?;
    mounts::attach(root.as_fd(), rustix::fs::CWD, Path::new("/usr"))?;
    rustix::process::fchdir(root.as_fd())?;
    Ok(root)
}

/// Makes a mount point of the right kind below the root we stand in, and attaches there.
fn attach(root: BorrowedFd<'_>, tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let relative = target.strip_prefix("/").unwrap_or(target);
    let (_, _, is_dir) = os::fs::owner(&tree)?;
    if is_dir {
        fs::create_dir_all(relative)?;
    } else {
        if let Some(folder) = relative.parent() {
            fs::create_dir_all(folder)?;
        }
        File::create(relative)?;
    }
    mounts::attach(tree, root, relative)
}

/// What is made rather than shown: folders, a user database of our own, and /bin, /lib and so on as
/// links where the host is merged (hier(7)).
fn skeleton(recipe: &Recipe<'_>) -> io::Result<()> {
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        // The host's own root is still above us; the new one is only where we stand.
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, name)?;
        }
    }
    for folder in ["dev", "etc", "home", "root", "run", "srv", "opt", "var", "sys", "mnt", "media"] {
        fs::create_dir_all(folder)?;
    }
    let (uid, gid) = (recipe.uid, recipe.gid);
    fs::write(
        "etc/passwd",
        format!("root:x:0:0::/root:/bin/sh\nagent:x:{uid}:{gid}::{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
    )?;
    fs::write("etc/group", format!("root:x:0:\nagent:x:{gid}:\nnogroup:x:65534:\n"))?;
    fs::write("etc/hostname", "sandbox\n")?;
    fs::write("etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n")
}

fn devices(root: BorrowedFd<'_>) -> io::Result<()> {
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, Path::new("dev").join(name))?;
    }
    fs::create_dir("dev/pts")?;
    // An instance of its own: no terminal of the host is in it.
    let pts = mounts::new_filesystem(c"devpts", &[(c"ptmxmode", "0666"), (c"mode", "0600")], DEVICE)?;
    mounts::attach(pts.as_fd(), root, Path::new("dev/pts"))
}

fn proc(root: BorrowedFd<'_>) -> io::Result<()> {
    fs::create_dir("proc")?;
    let proc = mounts::new_filesystem(c"proc", &[], SEALED)?;
    mounts::attach(proc.as_fd(), root, Path::new("proc"))
}

fn mask(root: BorrowedFd<'_>) -> Steps {
    for name in MASKED_PROC {
        let target = Path::new("proc").join(name);
        let Ok(kind) = fs::symlink_metadata(&target) else { continue };
        let cover = if kind.is_dir() { "mnt" } else { "dev/null" };
        let attach = || {
            let cover = mounts::clone_tree(mounts::open_path(Path::new(cover))?.as_fd(), Reach::ThisMount)?;
            mounts::set_attributes(cover.as_fd(), SEALED, Reach::ThisMount)?;
            mounts::attach(cover.as_fd(), root, &target)
        };
        at_path(Step::Mask, &target, attach())?;
    }
    Ok(())
}

/// Writable corners of the root's own tmpfs, each as a mount of its own that stays writable when the root does not.
fn scratch(recipe: &Recipe<'_>, root: BorrowedFd<'_>) -> io::Result<()> {
    let home = HOME.trim_start_matches('/');
    let workspace = WORKSPACE.trim_start_matches('/');
    let mut corners = vec![("tmp", 0o1777), ("dev/shm", 0o1777), (home, 0o700)];
    if !recipe.binds.iter().any(|b| b.target == Path::new(WORKSPACE)) {
        corners.push((workspace, 0o700));
    }
    for (path, mode) in corners {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if recipe.tier == Tier::Root {
            std::os::unix::fs::chown(path, Some(recipe.uid), Some(recipe.gid))?;
        }
        let folder = mounts::open_path(Path::new(path))?;
        let corner = mounts::clone_tree(folder.as_fd(), Reach::ThisMount)?;
        mounts::attach(corner.as_fd(), root, Path::new(path))?;
    }
    symlink("/tmp", "var/tmp")
}

/// Inside the new root: the working folder, reached from the workspace without leaving it.
fn enter(recipe: &Recipe<'_>) -> Steps {
    let enter = || {
        let workspace = os::fs::open_path(Path::new(WORKSPACE))?;
        let folder = if recipe.cwd.as_os_str().is_empty() {
            workspace
        } else {
            os::fs::open_dir_beneath(&workspace, recipe.cwd)?
        };
        Ok(rustix::process::fchdir(folder)?)
    };
    at_path(Step::WorkingFolder, &PathBuf::from(WORKSPACE).join(recipe.cwd), enter())
}

fn surroundings(recipe: &Recipe<'_>) -> Steps {
    at(Step::HostName, nix::unistd::sethostname("sandbox").map_err(Into::into))?;
    if recipe.network == Network::None {
        at(Step::Loopback, netns::bring_up_loopback())?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    at(Step::Limits, rlimits::apply(recipe.rlimits))
}

fn privileges(recipe: &Recipe<'_>) -> Steps {
    at(Step::CloseDoors, capabilities::close_the_doors())?;
    at(Step::Identity, identity(recipe))?;
    at(Step::DropAll, capabilities::drop_all())?;
    at(Step::Proof, cannot_return(recipe))
}

/// Takes the ids and looks whether they were given (setuid(2) may fail at RLIMIT_NPROC).
fn identity(recipe: &Recipe<'_>) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(recipe.uid), Gid::from_raw(recipe.gid));
    if recipe.tier == Tier::Root {
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
fn cannot_return(recipe: &Recipe<'_>) -> io::Result<()> {
    let root = nix::unistd::Uid::from_raw(0);
    if recipe.uid != 0 && nix::unistd::setresuid(root, root, root).is_ok() {
        return Err(io::Error::other("root could be taken back"));
    }
    Ok(())
}

/// The whole sandbox dies with the launcher. The signal is cleared by a change of ids, so it is set after;
/// the launcher may have died before that, which the broken status pipe tells.
fn die_with_launcher(status: &File) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if os::process::is_orphaned(status) { Err(io::Error::other("the launcher is gone")) } else { Ok(()) }
}

fn enforce_landlock(recipe: &Recipe<'_>) -> io::Result<()> {
    let mut rules = vec![
        (Path::new("/"), Grant::ReadExecute),
        (Path::new(WORKSPACE), Grant::ReadWriteExecute),
        (Path::new("/tmp"), Grant::ReadWriteExecute),
        (Path::new(HOME), Grant::ReadWriteExecute),
        (Path::new("/dev"), Grant::Device),
        (Path::new("/dev/shm"), Grant::ReadWriteExecute),
    ];
    let read_only_workspace =
        recipe.binds.iter().any(|b| b.target == Path::new(WORKSPACE) && b.shown == Shown::ReadOnly);
    if read_only_workspace {
        rules.retain(|(path, _)| *path != Path::new(WORKSPACE));
    }
    let named = recipe.binds.iter().filter(|b| b.named && b.shown == Shown::Writable);
    rules.extend(named.map(|b| (b.target.as_path(), Grant::ReadWriteExecute)));
    landlock::restrict(recipe.landlock_abi, rules)
}

/// Reads what the kernel says of this process and refuses to go on if it is not what was built.
fn read_back() -> Steps<Evidence> {
    let step = Step::ReadBack;
    let text = at(step, fs::read_to_string("/proc/self/status"))?;
    let field = |name: &str| {
        text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
    };
    let no_capabilities =
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].iter().all(|set| field(set) == "0000000000000000");
    let evidence = Evidence {
        seccomp_filters: field("Seccomp_filters").parse().unwrap_or(0),
        no_new_privs: field("NoNewPrivs") == "1",
        no_capabilities,
    };
    let surprise = if !evidence.no_new_privs {
        Some("NoNewPrivs is not 1")
    } else if !no_capabilities {
        Some("a capability set is not empty")
    } else if field("Seccomp") != "2" || evidence.seccomp_filters == 0 {
        Some("the system-call filter is not installed")
    } else if field("NSpid").split_whitespace().last() != Some("1") {
        Some("this is not the init of a pid namespace")
    } else {
        None
    };
    match surprise {
        None => Ok(evidence),
        Some(what) => Err(Failure { step, errno: 0, text: what.to_owned() }),
    }
}

/// Forks the command from the walled init, waits for it and reports its end.
fn start(recipe: &Recipe<'_>, status: &File) -> Result<std::convert::Infallible, Failure> {
    let command = match at(Step::Start, clone::fork_plain())? {
        None => {
            let _ = rustix::process::setsid();
            clone::reset_signals();
            let error = clone::exec_first(&recipe.candidates, &recipe.argv, &recipe.env);
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            let _ = { status }.write_all(&Report::ExecFailed { errno }.encode());
            clone::exit_now(127)
        }
        Some(pid) => pid,
    };
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

/// The namespaces of a sandbox.
pub(super) fn namespaces(tier: Tier, network: Network) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    if network == Network::None {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if tier == Tier::UserNamespace {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    flags
}
