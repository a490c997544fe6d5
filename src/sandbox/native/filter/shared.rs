//! What is narrowed for a command that shares with others what a namespace keeps apart elsewhere: in the Landlock tier the
//! host's processes, paths and sockets; in a container, whoever keeps the command.

use super::REFUSE;
use super::table::{Row, SYSTEM_V};
use crate::model::Network;
use crate::os::linux::seccomp::{Answer, Argument, Rule};
use libc::*;
use std::collections::BTreeMap;

/// What namespaces and read-only mounts keep apart elsewhere, and Landlock does not look at: calls that are refused
/// whatever the arguments.
const REFUSED_WITHOUT_NAMESPACES: &[Row] = &[
    ("owners, which Landlock leaves to the owner, even of what is open for reading alone", &[SYS_fchown, SYS_fchownat]),
    ("System V IPC, which belongs to all of a user's processes", SYSTEM_V),
    (
        "watching folders that cannot be read, out of the user's few watches",
        &[SYS_inotify_init1, SYS_inotify_add_watch],
    ),
];

#[cfg(target_arch = "x86_64")]
const REFUSED_WITHOUT_NAMESPACES_HERE: &[Row] = &[(
    "the same by older spellings",
    &[SYS_chown, SYS_lchown, SYS_utime, SYS_utimes, SYS_futimesat, SYS_inotify_init],
)];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_WITHOUT_NAMESPACES_HERE: &[Row] = &[];

/// Attributes: Landlock leaves them to the owner, even of what is open for reading alone, and does not look at reading them
/// by path. Answered as by a file system that has none: tools that would copy an ACL set the mode instead.
const WITHOUT_ATTRIBUTES: &[c_long] = &[
    SYS_getxattr,
    SYS_lgetxattr,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
];

/// Modes and times, which Landlock leaves to the owner: the keeper sets them, of what the command may write to.
const ASKED: &[c_long] = &[
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchmodat2,
    SYS_utimensat,
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
];

/// Calls that change another process of the same user, with what its arguments must be: 0 is oneself, where the argument
/// before does not say that it is a user.
const ON_ONESELF: &[(c_long, &[Argument])] = &[
    (SYS_prlimit64, &[Argument::Is(0, 0)]),
    (SYS_sched_setaffinity, &[Argument::Is(0, 0)]),
    (SYS_sched_setparam, &[Argument::Is(0, 0)]),
    (SYS_sched_setscheduler, &[Argument::Is(0, 0)]),
    (SYS_sched_setattr, &[Argument::Is(0, 0)]),
    (SYS_setpriority, &[Argument::Is(0, PRIO_PROCESS), Argument::Is(1, 0)]),
    (SYS_ioprio_set, &[Argument::Is(0, IOPRIO_WHO_PROCESS), Argument::Is(1, 0)]),
];
const IOPRIO_WHO_PROCESS: u32 = 1;
const PRIO_PROCESS: u32 = 0; // of another type in each libc

/// Families of ioctls that stay: terminals and what every descriptor knows; sockets.
const IOCTL_FAMILIES: [u32; 2] = [0x5400, 0x8900];

/// Further ioctls that stay. The others change files that are open for reading alone: flags (FS_IOC_SETFLAGS), fs-verity,
/// encryption, subvolumes.
const IOCTLS: [u32; 10] = [
    0x4004_9409, // FICLONE
    0x4020_940d, // FICLONERANGE
    0x8008_6601, // FS_IOC_GETFLAGS
    0x801c_581f, // FS_IOC_FSGETXATTR
    0xc020_660b, // FS_IOC_FIEMAP
    0x802c_542a, // TCGETS2
    0x402c_542b, // TCSETS2
    0x402c_542c, // TCSETSW2
    0x402c_542d, // TCSETSF2
    0x8004_5430, // TIOCGPTN
];

/// Limits, priorities and the like: of oneself alone.
pub(super) fn on_oneself_alone(rules: &mut BTreeMap<u32, Rule>) {
    let only = |row: Vec<Argument>| Rule { rows: vec![(row, Answer::Allow)], otherwise: REFUSE };
    for (number, arguments) in ON_ONESELF {
        rules.insert(*number as u32, only(arguments.to_vec()));
    }
}

/// Narrows the table for a command that shares the host's processes, paths and sockets.
pub(super) fn without_namespaces(rules: &mut BTreeMap<u32, Rule>, network: Network) {
    let refused = [REFUSED_WITHOUT_NAMESPACES, REFUSED_WITHOUT_NAMESPACES_HERE];
    for (_, calls) in refused.iter().flat_map(|rows| rows.iter()) {
        rules.extend(calls.iter().map(|number| (*number as u32, Rule::always(REFUSE))));
    }
    let unsupported = Rule::always(Answer::Errno(EOPNOTSUPP as u16));
    rules.extend(WITHOUT_ATTRIBUTES.iter().map(|number| (*number as u32, unsupported.clone())));
    // Rows that refuse set-id bits come first and stay.
    for number in ASKED {
        rules.entry(*number as u32).and_modify(|rule| rule.otherwise = Answer::Ask);
    }
    on_oneself_alone(rules);
    if let Some(ioctl) = rules.get_mut(&(SYS_ioctl as u32)) {
        let families = IOCTL_FAMILIES.map(|family| Argument::Family(1, family));
        let allowed = families.into_iter().chain(IOCTLS.map(|number| Argument::Is(1, number)));
        ioctl.rows.extend(allowed.map(|argument| (vec![argument], Answer::Allow)));
        ioctl.otherwise = REFUSE;
    }
    // Unix sockets lead to whatever listens on a path, the gateway and container engines among it; Landlock looks at them
    // from ABI 9 on. A pair of datagram sockets sends to paths too; SOCK_DGRAM and SOCK_RAW have this bit, others do not.
    if let Some(pair) = rules.get_mut(&(SYS_socketpair as u32)) {
        pair.rows.insert(0, (vec![Argument::Has(1, SOCK_DGRAM as u32)], REFUSE));
    }
    match (network, rules.get_mut(&(SYS_socket as u32))) {
        (Network::Host, Some(socket)) => {
            socket.rows.retain(|(row, _)| !row.contains(&Argument::Is(0, AF_UNIX as u32)));
        }
        _ => {
            for number in [SYS_socket, SYS_bind, SYS_listen, SYS_connect] {
                rules.insert(number as u32, Rule::always(REFUSE));
            }
        }
    }
}
