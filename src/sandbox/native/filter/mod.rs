//! The system calls a command may make, as data with a reason per row.
//!
//! What is listed is allowed. What is refused on purpose, by name or by argument, answers EPERM, so
//! that the caller sees a refusal. Everything else answers ENOSYS, so that a call newer than this
//! table makes libc fall back instead of failing.

mod shared;
mod table;

use crate::model::{ExecMode, Network};
use crate::os::linux::seccomp::{Answer, Argument, Filter, Rule, compile};
use libc::*;
use std::collections::BTreeMap;
use table::{ALLOWED, ALLOWED_HERE, REFUSED, REFUSED_HERE, Row};

/// clone(2) flags that make a namespace; any one of them refuses the call. clone3 is not listed above,
/// so it answers ENOSYS: its flags lie in memory where a filter cannot look, and libc falls back to clone.
const NAMESPACE_FLAGS: c_int =
    CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

/// Terminal ioctls that type into somebody else's terminal (CVE-2017-5226, CVE-2023-28339), or have the kernel load a module
/// for what lies between a terminal and its reader (CVE-2017-2636).
const REFUSED_IOCTLS: &[u32] =
    &[0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */, 0x541d /* TIOCCONS */, 0x5423 /* TIOCSETD */];

/// Bits that SOCK_STREAM, SOCK_DGRAM and SOCK_RAW lack and every other type has.
const FURTHER_TYPES: u32 = 0xc;

/// fcntl(2): which signal is sent when something can be read or written; not in libc for every machine.
const F_SETSIG: u32 = 10;

/// personality(2): asking, and turning address randomisation off for a debugger's sake; nothing older.
const PERSONALITIES: &[u32] = &[0, 0x0004_0000, u32::MAX];

const REFUSE: Answer = Answer::Errno(EPERM as u16);
const UNKNOWN: Answer = Answer::Errno(ENOSYS as u16);

/// Which commands a filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In namespaces of their own.
    Walled(ExecMode),
    /// In the namespaces of a container, which it shares with whoever keeps it and with other commands.
    Contained(ExecMode),
    /// On the host's paths and among its processes (`landlocked.rs`).
    Landlocked(Network),
}

/// The table of all rows, by number.
fn rules(kind: Kind) -> BTreeMap<u32, Rule> {
    let mut rules = BTreeMap::new();
    let plain = |rows: &[&[Row]], answer| -> Vec<(u32, Rule)> {
        let calls = rows.iter().flat_map(|r| r.iter()).flat_map(|(_, calls)| calls.iter());
        calls.map(|number| (*number as u32, Rule::always(answer))).collect()
    };
    rules.extend(plain(&[ALLOWED, ALLOWED_HERE], Answer::Allow));
    rules.extend(plain(&[REFUSED, REFUSED_HERE], REFUSE));
    let only = |rows: Vec<Vec<Argument>>| Rule {
        rows: rows.into_iter().map(|row| (row, Answer::Allow)).collect(),
        otherwise: REFUSE,
    };
    let except = |rows: Vec<Vec<Argument>>| Rule {
        rows: rows.into_iter().map(|row| (row, REFUSE)).collect(),
        otherwise: Answer::Allow,
    };

    // TCP, UDP, ping: other protocols would have the kernel load a module for them.
    let protocols = [0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6];
    let inet = [AF_INET, AF_INET6].into_iter().flat_map(|family| {
        protocols.map(|protocol| vec![Argument::Is(0, family as u32), Argument::Is(2, protocol as u32)])
    });
    let mut families: Vec<_> = inet.collect();
    families.push(vec![Argument::Is(0, AF_UNIX as u32)]);
    // getifaddrs and getaddrinfo ask for addresses over NETLINK_ROUTE; every other netlink family is refused.
    families.push(vec![Argument::Is(0, AF_NETLINK as u32), Argument::Is(2, NETLINK_ROUTE as u32)]);
    let mut sockets = only(families);
    // Protocol 0 is whichever the type has: for some types one of a module (CVE-2017-6074).
    let further = [AF_INET, AF_INET6].map(|f| vec![Argument::Is(0, f as u32), Argument::Has(1, FURTHER_TYPES)]);
    sockets.rows.splice(0..0, further.map(|row| (row, REFUSE)));
    rules.insert(SYS_socket as u32, sockets);
    rules.insert(SYS_socketpair as u32, only(vec![vec![Argument::Is(0, AF_UNIX as u32)]]));
    rules.insert(SYS_personality as u32, only(PERSONALITIES.iter().map(|p| vec![Argument::Is(0, *p)]).collect()));
    rules.insert(SYS_clone as u32, except(vec![vec![Argument::Has(0, NAMESPACE_FLAGS as u32)]]));
    rules.insert(SYS_ioctl as u32, except(REFUSED_IOCTLS.iter().map(|r| vec![Argument::Is(1, *r)]).collect()));
    // A lease on what can only be read holds up whoever opens it for writing, on the host as well. And input must neither let
    // go on what a lockdown has stopped, nor end a child of it, whose end can be told by such a signal.
    let by_input = [SIGCONT, SIGKILL].map(|s| vec![Argument::Is(1, F_SETSIG), Argument::Is(2, s as u32)]);
    let lease = vec![Argument::Is(1, F_SETLEASE as u32)];
    rules.insert(SYS_fcntl as u32, except(by_input.into_iter().chain([lease]).collect()));
    // Huge pages are outside the bound on memory, and few on a host.
    for (number, flags_at, huge) in
        [(SYS_mmap, 3, MAP_HUGETLB as u32), (SYS_memfd_create, 1, MFD_HUGETLB), (SYS_shmget, 2, SHM_HUGETLB as u32)]
    {
        rules.insert(number as u32, except(vec![vec![Argument::Has(flags_at, huge)]]));
    }
    if matches!(kind, Kind::Walled(ExecMode::Allowlist) | Kind::Contained(ExecMode::Allowlist)) {
        // A memfd lies on no mount and in no folder, so neither noexec nor Landlock hold for it.
        let rows = vec![
            (vec![Argument::Has(1, MFD_HUGETLB)], REFUSE),
            (vec![Argument::Has(1, MFD_NOEXEC_SEAL)], Answer::Allow),
        ];
        rules.insert(SYS_memfd_create as u32, Rule { rows, otherwise: REFUSE });
    }
    for (number, condition, mode_at) in SET_ID_MAKERS {
        let row = condition.iter().copied().chain([Argument::Has(*mode_at, S_ISUID | S_ISGID)]).collect();
        rules.insert(*number as u32, except(vec![row]));
    }
    match kind {
        Kind::Walled(_) => {}
        // The limits of whoever keeps the command would be a way to end it, and to outlive the deadline.
        Kind::Contained(_) => shared::on_oneself_alone(&mut rules),
        Kind::Landlocked(network) => shared::without_namespaces(&mut rules, network),
    }
    rules
}

/// The filter of every sandbox of this kind.
pub(super) fn compile_filter(kind: Kind) -> Filter {
    compile(&rules(kind), UNKNOWN)
}

/// The filter beside it where there is a list: it lets everything pass, and every exec be seen.
pub(super) fn compile_exec_notice() -> Filter {
    let execs = [SYS_execve, SYS_execveat].map(|number| (number as u32, Rule::always(Answer::Ask)));
    compile(&BTreeMap::from(execs), Answer::Allow)
}

/// Flags with which open(2) looks at its mode: O_CREAT, and the bit of O_TMPFILE that is not O_DIRECTORY.
const CREATES: u32 = (O_CREAT | (O_TMPFILE & !O_DIRECTORY)) as u32;

/// What can set a set-id bit, when, and which argument is the mode. Such a file in a workspace would be a door
/// for whoever shares that folder on the host. openat2 is not allowed at all: its mode lies in memory.
const SET_ID_MAKERS: &[(c_long, &[Argument], u8)] = &[
    (SYS_fchmod, &[], 1),
    (SYS_fchmodat, &[], 2),
    (SYS_fchmodat2, &[], 2),
    (SYS_mknodat, &[], 2),
    (SYS_openat, &[Argument::Has(2, CREATES)], 3),
    #[cfg(target_arch = "x86_64")]
    (SYS_chmod, &[], 1),
    #[cfg(target_arch = "x86_64")]
    (SYS_mknod, &[], 1),
    #[cfg(target_arch = "x86_64")]
    (SYS_creat, &[], 1),
    #[cfg(target_arch = "x86_64")]
    (SYS_open, &[Argument::Has(1, CREATES)], 2),
];

/// How many system calls are allowed, and why the others are refused: for `sandbox explain`. `None` where
/// there is no such list.
pub(crate) fn allowed_system_calls() -> Option<(usize, Vec<&'static str>)> {
    let count = rules(Kind::Walled(ExecMode::Full)).values().filter(|rule| **rule != Rule::always(REFUSE)).count();
    Some((count, REFUSED.iter().chain(REFUSED_HERE).map(|(why, _)| *why).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_both_allowed_and_refused_and_none_is_listed_twice() {
        let all = |rows: &[&[Row]]| -> Vec<c_long> {
            rows.iter().flat_map(|r| r.iter()).flat_map(|(_, calls)| calls.iter().copied()).collect()
        };
        let allowed = all(&[ALLOWED, ALLOWED_HERE]);
        let refused = all(&[REFUSED, REFUSED_HERE]);
        let unique = |calls: &[c_long]| calls.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(unique(&allowed), allowed.len());
        assert_eq!(unique(&refused), refused.len());
        assert!(allowed.iter().all(|n| !refused.contains(n)));
    }

    #[test]
    fn clone3_and_openat2_are_unknown_because_their_flags_cannot_be_seen() {
        for number in [SYS_clone3, SYS_openat2, SYS_io_uring_setup + 400] {
            assert!(!rules(Kind::Walled(ExecMode::Full)).contains_key(&(number as u32)));
        }
    }
}
