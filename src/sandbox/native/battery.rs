//! Prove, then run: a fixed battery of forbidden acts, tried inside the finished walls by the init before there is a
//! command, and the kernel's own word about what it holds of this process.
//!
//! Silent non-enforcement is the worst failure of a sandbox: a wall that was asked for and is not there. So none is
//! believed. Each act has one answer that only its wall gives; any other ends the child, and nothing is executed.

use super::step::{Failure, Step, Steps, at};
use super::walls::Walls;
use crate::crypto;
use crate::model::{Network, Tier};
use crate::os::linux::acts::{self, Answer};
use crate::os::linux::{capabilities, seccomp};
use crate::sandbox::plan::PROOF;
use libc::{EACCES, ECONNREFUSED, ENETUNREACH, ENOENT, ENOSYS, EPERM, EROFS};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

/// What the launcher knows of itself and its host, for acts that must not reach them.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// A folder of the gateway's own that no sandbox may see.
    pub(super) hidden: Option<PathBuf>,
    /// The name of an abstract socket on which the launcher listens.
    pub(super) abstract_name: Vec<u8>,
    /// The launcher's own namespaces by their kernel names.
    pub(super) namespaces: Vec<(&'static str, u64)>,
    pub(super) landlock_abi: u8,
    /// The launcher's pid on the host.
    pub(super) launcher: i32,
    /// Where a command of the tier without namespaces may not write although it could.
    pub(super) proof: PathBuf,
}

/// Namespaces by their names in /proc/PID/ns.
pub(super) const NAMESPACES: &[&str] = &["mnt", "pid", "ipc", "uts", "cgroup", "net", "user"];

impl Facts {
    /// The launcher's own namespaces.
    pub(super) fn own_namespaces() -> Vec<(&'static str, u64)> {
        NAMESPACES.iter().filter_map(|name| Some((*name, namespace(name).ok()?))).collect()
    }
}

/// The inode of one of our namespaces (namespaces(7)).
fn namespace(name: &str) -> io::Result<u64> {
    let text = fs::read_link(format!("/proc/self/ns/{name}"))?;
    let number = text.to_str().and_then(|t| t.split(['[', ']']).nth(1)).and_then(|n| n.parse().ok());
    number.ok_or_else(|| io::Error::other("the kernel names no namespace"))
}

/// One forbidden act.
struct Act {
    name: &'static str,
    /// What is shown behind it if it fails.
    forbidden: &'static str,
    /// The answers that only the wall gives; none where the act is not forbidden by these walls.
    expected: fn(&Walls, &Facts) -> &'static [Answer],
    attempt: fn(&Facts) -> Answer,
}

const ALWAYS_EPERM: fn(&Walls, &Facts) -> &'static [Answer] = |_, _| &[EPERM];

/// A discard service on a network for documentation (RFC 5737): where there is no route, nothing is sent.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);

// Acts that more than one battery has.

const WRITE_ROOT: Act = Act {
    name: "write-root",
    forbidden: "write to /",
    expected: |_, _| &[EROFS],
    attempt: |_| acts::create(Path::new("/vambrace-proof")),
};
const EXECUTE_UNLISTED: Act = Act {
    name: "execute-unlisted",
    forbidden: "execute what is not on the list",
    expected: |walls, _| if walls.allowed.is_some() { &[EACCES] } else { &[] },
    attempt: |_| acts::execute(c"/run/loader/unlisted"),
};
const EXECUTABLE_MEMORY: Act = Act {
    name: "executable-memory",
    forbidden: "make a file in memory that could be executed",
    expected: |walls, _| if walls.allowed.is_some() { &[EPERM] } else { &[] },
    attempt: |_| acts::executable_memory(),
};
const PTRACE: Act =
    Act { name: "ptrace", forbidden: "trace a process", expected: ALWAYS_EPERM, attempt: |_| acts::trace() };
const MOUNT: Act = Act { name: "mount", forbidden: "mount", expected: ALWAYS_EPERM, attempt: |_| acts::mount() };
const USER_NAMESPACE: Act = Act {
    name: "user-namespace",
    forbidden: "make a user namespace",
    expected: ALWAYS_EPERM,
    attempt: |_| acts::unshare_user(),
};
const IO_URING: Act =
    Act { name: "io-uring", forbidden: "use io_uring", expected: ALWAYS_EPERM, attempt: |_| acts::io_uring() };
const KEYRING: Act =
    Act { name: "keyring", forbidden: "use kernel keyrings", expected: ALWAYS_EPERM, attempt: |_| acts::keyring() };
const TERMINAL_INPUT: Act = Act {
    name: "terminal-input",
    forbidden: "type into a terminal",
    expected: ALWAYS_EPERM,
    attempt: |_| acts::type_into_terminal(),
};

const BATTERY: &[Act] = &[
    Act {
        name: "see-state",
        forbidden: "see the gateway's own state",
        expected: |_, facts| if facts.hidden.is_some() { &[ENOENT] } else { &[] },
        attempt: |facts| facts.hidden.as_deref().map_or(ENOENT, acts::read),
    },
    Act {
        name: "see-host",
        forbidden: "see the host's /sys",
        expected: |_, _| &[ENOENT],
        attempt: |_| acts::read(Path::new("/sys/kernel")),
    },
    Act {
        name: "write-system",
        forbidden: "write to /usr",
        expected: |_, _| &[EROFS],
        attempt: |_| acts::create(Path::new("/usr/vambrace-proof")),
    },
    WRITE_ROOT,
    Act {
        name: "truncate",
        forbidden: "empty a read-only file",
        expected: |_, _| &[EROFS],
        attempt: |_| acts::truncate(c"/etc/hostname"),
    },
    Act {
        name: "landlock",
        forbidden: "write where Landlock grants nothing",
        expected: |_, _| &[EACCES],
        attempt: |_| acts::create(&Path::new(PROOF).join("file")),
    },
    EXECUTE_UNLISTED,
    EXECUTABLE_MEMORY,
    Act {
        name: "connect-out",
        forbidden: "connect to another host",
        expected: |walls, _| if walls.has_own_network() { &[ENETUNREACH] } else { &[] },
        attempt: |_| acts::connect_tcp(OUTSIDE),
    },
    Act {
        name: "abstract-socket",
        forbidden: "connect to an abstract socket of the host",
        expected: |walls, facts| match walls.network {
            Network::None | Network::Allowlist => &[ECONNREFUSED],
            // Landlock's scopes came with ABI 6; before, the host's network brings its abstract sockets with it.
            Network::Host if facts.landlock_abi >= 6 => &[EPERM],
            Network::Host => &[],
        },
        attempt: |facts| acts::connect_abstract(&facts.abstract_name),
    },
    PTRACE,
    MOUNT,
    USER_NAMESPACE,
    IO_URING,
    KEYRING,
    TERMINAL_INPUT,
];

/// The battery of the tier without namespaces: what Landlock and the filter refuse on the host's own paths.
const LANDLOCKED: &[Act] = &[
    Act {
        name: "see-state",
        forbidden: "read the gateway's own state",
        expected: |_, facts| if facts.hidden.is_some() { &[EACCES] } else { &[] },
        attempt: |facts| facts.hidden.as_deref().map_or(EACCES, acts::read),
    },
    Act {
        name: "see-host",
        forbidden: "read the host's /sys",
        expected: |_, _| &[EACCES],
        attempt: |_| acts::read(Path::new("/sys/kernel")),
    },
    Act {
        name: "landlock",
        forbidden: "write where Landlock grants nothing",
        expected: |_, _| &[EACCES],
        attempt: |facts| acts::create(&facts.proof.join("file")),
    },
    Act {
        name: "processes",
        forbidden: "list the host's processes",
        expected: |_, _| &[EACCES],
        attempt: |_| acts::read(Path::new("/proc")),
    },
    Act {
        name: "see-connections",
        forbidden: "read the host's connections",
        expected: |_, _| &[EACCES],
        attempt: |_| acts::read(Path::new("/proc/self/net/tcp")),
    },
    Act {
        name: "signal",
        forbidden: "signal the launcher",
        expected: |_, _| &[EPERM],
        attempt: |facts| acts::signal(facts.launcher),
    },
    Act {
        name: "signal-keeper",
        forbidden: "signal the keeper",
        expected: |_, _| &[EPERM],
        attempt: |_| acts::signal(acts::parent()),
    },
    Act {
        name: "priority",
        forbidden: "change the priority of all processes of a user",
        expected: |_, _| &[EPERM],
        attempt: |_| acts::renice_user(),
    },
    Act {
        name: "limits",
        forbidden: "change the limits of the launcher",
        expected: |_, _| &[EPERM],
        attempt: |facts| acts::limits_of(facts.launcher),
    },
    Act {
        name: "internet",
        forbidden: "open an internet socket",
        expected: |walls, _| if walls.has_own_network() { &[EPERM] } else { &[] },
        attempt: |_| acts::internet_socket(),
    },
    Act {
        name: "unix-socket",
        forbidden: "open a unix socket",
        expected: ALWAYS_EPERM,
        attempt: |_| acts::unix_socket(),
    },
    Act {
        name: "datagrams",
        forbidden: "open sockets that send to any path",
        expected: ALWAYS_EPERM,
        attempt: |_| acts::datagram_pair(),
    },
    Act {
        name: "mode",
        forbidden: "change the mode of a file it may not write to",
        // ENOSYS where the keeper cannot be asked, because something outside of us listens to this process already.
        expected: |_, _| &[EPERM, ENOSYS],
        attempt: |facts| acts::change_mode(&facts.proof),
    },
    Act {
        name: "owner",
        forbidden: "change owners",
        expected: ALWAYS_EPERM,
        attempt: |facts| acts::change_owner(&facts.proof),
    },
    Act {
        name: "file-flags",
        forbidden: "change flags of files",
        expected: ALWAYS_EPERM,
        attempt: |_| acts::change_flags(),
    },
    Act { name: "lease", forbidden: "hold up writers by a lease", expected: ALWAYS_EPERM, attempt: |_| acts::lease() },
    PTRACE,
    MOUNT,
    USER_NAMESPACE,
    IO_URING,
    KEYRING,
    TERMINAL_INPUT,
];

/// The battery inside a container: what its engine refuses, and what Landlock and the filter add.
const CONTAINED: &[Act] = &[
    Act {
        name: "see-host",
        forbidden: "read /sys of the host's kernel",
        expected: |_, facts| if facts.landlock_abi > 0 { &[EACCES] } else { &[] },
        attempt: |_| acts::read(Path::new("/sys/kernel/notes")),
    },
    WRITE_ROOT,
    Act {
        name: "landlock",
        forbidden: "write where Landlock grants nothing",
        expected: |_, facts| if facts.landlock_abi > 0 { &[EACCES] } else { &[] },
        attempt: |facts| acts::create(&facts.proof.join("file")),
    },
    EXECUTE_UNLISTED,
    EXECUTABLE_MEMORY,
    Act {
        name: "signal",
        forbidden: "signal whoever keeps the command",
        expected: |_, facts| if facts.landlock_abi >= 6 { &[EPERM] } else { &[] },
        attempt: |facts| acts::signal(facts.launcher),
    },
    Act {
        name: "limits",
        forbidden: "set limits of whoever keeps the command",
        expected: ALWAYS_EPERM,
        attempt: |facts| acts::limits_of(facts.launcher),
    },
    Act {
        name: "connect-out",
        forbidden: "connect to another host",
        expected: |walls, _| if walls.network == Network::None { &[ENETUNREACH] } else { &[] },
        attempt: |_| acts::connect_tcp(OUTSIDE),
    },
    PTRACE,
    MOUNT,
    USER_NAMESPACE,
    IO_URING,
    KEYRING,
    TERMINAL_INPUT,
];

/// The acts of a tier.
fn battery(tier: Tier) -> &'static [Act] {
    match tier {
        Tier::Landlock => LANDLOCKED,
        Tier::Container => CONTAINED,
        Tier::UserNamespace | Tier::Root => BATTERY,
    }
}

/// One row of what was proved, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) act: String,
    pub(crate) what: String,
    /// What the kernel answered.
    pub(crate) answer: String,
}

/// What came of the battery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proved {
    /// Each act by its number in the battery, with the answer.
    pub(super) answers: Vec<(u8, Answer)>,
    /// SHA-256 in hex of the mount table, point and flags; `-` where the mounts are the host's.
    pub(super) mounts: String,
}

impl Proved {
    /// SHA-256 in hex over all of it.
    pub(super) fn digest(&self, tier: Tier) -> String {
        let mut text = String::new();
        for row in self.rows(tier) {
            text.push_str(&format!("{} {}\n", row.act, row.answer));
        }
        text.push_str(&format!("mounts {}\n", self.mounts));
        crypto::hex(&crypto::sha256(&[text.as_bytes()]))
    }

    /// As a text for the status pipe: `number:answer` for each act, then the digest of the mounts.
    pub(super) fn encode(&self) -> String {
        let answers: Vec<String> = self.answers.iter().map(|(number, answer)| format!("{number}:{answer}")).collect();
        format!("{} {}", answers.join(","), self.mounts)
    }

    /// The reverse; `None` for what is no such text.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let (answers, mounts) = text.split_once(' ')?;
        let pair = |pair: &str| {
            let (number, answer) = pair.split_once(':')?;
            Some((number.parse().ok()?, answer.parse().ok()?))
        };
        let answers = answers.split(',').filter(|a| !a.is_empty()).map(pair).collect::<Option<_>>()?;
        Some(Proved { answers, mounts: mounts.to_owned() })
    }

    /// As rows for a person.
    pub(super) fn rows(&self, tier: Tier) -> Vec<Proof> {
        let row = |(number, answer): &(u8, Answer)| {
            let act = battery(tier).get(usize::from(*number))?;
            Some(Proof { act: act.name.into(), what: act.forbidden.into(), answer: words(*answer) })
        };
        let mut rows: Vec<Proof> = self.answers.iter().filter_map(row).collect();
        let read_back = READ_BACK.iter().filter(|(_, _, least)| tier >= *least);
        rows.extend(read_back.map(|(act, what, _)| Proof {
            act: (*act).into(),
            what: (*what).into(),
            answer: "holds".into(),
        }));
        rows
    }
}

/// What is read back rather than tried; a child that reports at all has found each of them to hold.
const READ_BACK: &[(&str, &str, Tier)] = &[
    ("no-new-privs", "no_new_privs is set", Tier::Landlock),
    ("seccomp", "a system-call filter is installed", Tier::Landlock),
    ("capabilities", "no capability can be had", Tier::Landlock),
    ("descriptors", "nothing is open but what was placed", Tier::Landlock),
    ("namespaces", "no namespace is the launcher's, but those that the profile shares", Tier::UserNamespace),
    (
        "processes",
        "no process but this one is visible, and its parent is in no namespace of its own",
        Tier::UserNamespace,
    ),
    ("mounts", "every mount has the flags of the plan", Tier::UserNamespace),
];

fn words(answer: Answer) -> String {
    match answer {
        0 => "done".into(),
        errno => format!("{:?}", nix::errno::Errno::from_raw(errno)),
    }
}

/// Tries every act, and asks the kernel for the rest.
///
/// Reading back comes first: the last acts would change this process if a wall were missing.
pub(super) fn prove(walls: &Walls, facts: &Facts, open: usize) -> Steps<Proved> {
    read_back(open, at(Step::Proof, capabilities::are_all_empty())?)?;
    read_back_namespaces(walls, facts)?;
    let table = at(Step::Proof, fs::read_to_string("/proc/self/mountinfo"))?;
    let mounts = mounts(&table, walls).map_err(surprise)?;
    Ok(Proved { answers: attempt(BATTERY, walls, facts)?, mounts })
}

/// The same where we make no namespaces, by the process that becomes the command.
pub(super) fn prove_landlocked(walls: &Walls, facts: &Facts, open: usize) -> Steps<Proved> {
    read_back(open, at(Step::Proof, capabilities::are_none_held())?)?;
    Ok(Proved { answers: attempt(battery(walls.tier), walls, facts)?, mounts: "-".into() })
}

fn attempt(acts: &[Act], walls: &Walls, facts: &Facts) -> Steps<Vec<(u8, Answer)>> {
    let mut answers = Vec::with_capacity(acts.len());
    for (number, act) in acts.iter().enumerate() {
        let expected = (act.expected)(walls, facts);
        if expected.is_empty() {
            continue;
        }
        let answer = (act.attempt)(facts);
        if !expected.contains(&answer) {
            let expected: Vec<String> = expected.iter().map(|e| words(*e)).collect();
            return Err(surprise(format!(
                "a command could {} ({}: {}, expected {})",
                act.forbidden,
                act.name,
                words(answer),
                expected.join(" or ")
            )));
        }
        answers.push((number as u8, answer));
    }
    Ok(answers)
}

fn surprise(text: String) -> Failure {
    Failure { step: Step::Proof, errno: 0, text }
}

/// What the kernel holds of this process. By system calls where there are some, at a tenth of the cost of reading /proc.
fn read_back(open: usize, no_capabilities: bool) -> Steps {
    let step = Step::Proof;
    let wrong = if !at(step, rustix::thread::no_new_privs().map_err(Into::into))? {
        Some("no_new_privs is not set")
    } else if !at(step, seccomp::is_filtered())? {
        Some("the system-call filter is not installed")
    } else if !no_capabilities {
        Some("a capability set is not empty")
    } else if at(step, open_descriptors())? != open {
        Some("a descriptor is open that was not placed")
    } else {
        None
    };
    wrong.map_or(Ok(()), |what| Err(surprise(what.into())))
}

fn read_back_namespaces(walls: &Walls, facts: &Facts) -> Steps {
    let step = Step::Proof;
    if std::process::id() != 1 || acts::parent() != 0 {
        return Err(surprise("this is not the init of a pid namespace".into()));
    }
    if at(step, visible_processes())? != 1 {
        return Err(surprise("other processes are visible".into()));
    }
    for (name, launchers) in &facts.namespaces {
        let shares = match *name {
            "net" => !walls.has_own_network(),
            "user" => walls.tier == Tier::Root,
            _ => false,
        };
        let own = at(step, namespace(name))?;
        if (own == *launchers) != shares {
            let word = if shares { "is not" } else { "is" };
            return Err(surprise(format!("the {name} namespace {word} the launcher's")));
        }
    }
    Ok(())
}

fn visible_processes() -> io::Result<usize> {
    let is_process = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    Ok(fs::read_dir("/proc")?.filter_map(Result::ok).filter(|item| is_process(&item.file_name())).count())
}

fn open_descriptors() -> io::Result<usize> {
    // One is the folder that is being read.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// Compares the mount table (proc_pid_mountinfo(5)) with the plan and gives its digest.
fn mounts(table: &str, walls: &Walls) -> Result<String, String> {
    let writable = walls.writable();
    let mut digested = String::new();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(flags)) = (fields.next(), fields.next()) else {
            return Err(format!("a mount cannot be read: {line:?}"));
        };
        let place = PathBuf::from(unescaped(point));
        let has = |flag: &str| flags.split(',').any(|f| f == flag);
        // Mounts of the host below what is shown have the flags of what shows them.
        let holder =
            writable.iter().filter(|(path, _)| place.starts_with(path)).max_by_key(|(path, _)| path.as_os_str().len());
        let is_device = place.starts_with("/dev") && !place.starts_with("/dev/shm");
        let is_terminals = place == Path::new("/dev/pts");
        let may_write = walls.is_written(&place) || is_device || place == Path::new(PROOF);
        let may_execute = holder.is_none_or(|(_, executable)| *executable) && !is_device && place != Path::new(PROOF);
        let wrong = if !has("nosuid") {
            Some("honours set-id bits")
        } else if has("rw") && !may_write {
            Some("is writable")
        } else if has("rw") && !may_execute && !has("noexec") {
            Some("is writable and executable")
        } else if !(has("nodev") || is_device || is_terminals) {
            Some("honours device nodes")
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(format!("the mount at {} {what}", place.display()));
        }
        digested.push_str(&format!("{point} {flags}\n"));
    }
    Ok(crypto::hex(&crypto::sha256(&[digested.as_bytes()])))
}

/// Octal escapes of the kernel: space, tab, newline, backslash.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}
