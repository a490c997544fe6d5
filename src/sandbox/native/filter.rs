//! The system calls a command may make, as data with a reason per row.
//!
//! What is listed is allowed. What is refused on purpose, by name or by argument, answers EPERM, so
//! that the caller sees a refusal. Everything else answers ENOSYS, so that a call newer than this
//! table makes libc fall back instead of failing.

use crate::model::{ExecMode, Network};
use crate::os::linux::seccomp::{Answer, Argument, Filter, Rule, compile};
use libc::*;
use std::collections::BTreeMap;

type Row = (&'static str, &'static [c_long]);

/// System V IPC (sysvipc(7)).
const SYSTEM_V: &[c_long] = &[
    SYS_shmget,
    SYS_shmat,
    SYS_shmdt,
    SYS_shmctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_semctl,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
];

/// Allowed with any argument.
const ALLOWED: &[Row] = &[
    (
        "read and write what is open",
        &[
            SYS_read,
            SYS_write,
            SYS_readv,
            SYS_writev,
            SYS_pread64,
            SYS_pwrite64,
            SYS_preadv,
            SYS_pwritev,
            SYS_preadv2,
            SYS_pwritev2,
            SYS_lseek,
            SYS_sendfile,
            SYS_splice,
            SYS_tee,
            SYS_vmsplice,
            SYS_copy_file_range,
            SYS_readahead,
            SYS_fadvise64,
        ],
    ),
    (
        "open and close; the mounts and Landlock decide what",
        &[SYS_openat, SYS_close, SYS_close_range, SYS_dup, SYS_dup3, SYS_fcntl, SYS_flock],
    ),
    (
        "ask about files",
        &[
            SYS_fstat,
            SYS_newfstatat,
            SYS_statx,
            SYS_statfs,
            SYS_fstatfs,
            SYS_faccessat,
            SYS_faccessat2,
            SYS_readlinkat,
            SYS_getdents64,
            SYS_getcwd,
            SYS_getxattr,
            SYS_lgetxattr,
            SYS_fgetxattr,
            SYS_listxattr,
            SYS_llistxattr,
            SYS_flistxattr,
        ],
    ),
    (
        "change files; the mounts and Landlock decide which",
        &[
            SYS_mkdirat,
            SYS_unlinkat,
            SYS_renameat,
            SYS_renameat2,
            SYS_linkat,
            SYS_symlinkat,
            SYS_fchmod,
            SYS_fchmodat,
            SYS_fchmodat2,
            SYS_fchown,
            SYS_fchownat,
            SYS_utimensat,
            SYS_truncate,
            SYS_ftruncate,
            SYS_fallocate,
            SYS_fsync,
            SYS_fdatasync,
            SYS_sync_file_range,
            SYS_syncfs,
            SYS_umask,
            SYS_setxattr,
            SYS_lsetxattr,
            SYS_fsetxattr,
            SYS_removexattr,
            SYS_lremovexattr,
            SYS_fremovexattr,
            SYS_chdir,
            SYS_fchdir,
            // FIFOs and sockets by mknod; device nodes need a capability and a mount without nodev.
            SYS_mknodat,
        ],
    ),
    (
        "memory of the process itself",
        &[
            SYS_mmap,
            SYS_munmap,
            SYS_mremap,
            SYS_mprotect,
            SYS_madvise,
            SYS_brk,
            SYS_msync,
            SYS_mincore,
            SYS_mlock,
            SYS_mlock2,
            SYS_munlock,
            SYS_mlockall,
            SYS_munlockall,
            SYS_memfd_create,
            SYS_membarrier,
            SYS_pkey_mprotect,
            SYS_pkey_alloc,
            SYS_pkey_free,
            SYS_get_mempolicy,
            SYS_mbind,
            SYS_set_mempolicy,
        ],
    ),
    (
        "processes and threads; clone's flags are looked at below",
        &[
            SYS_clone,
            SYS_execve,
            SYS_execveat,
            SYS_exit,
            SYS_exit_group,
            SYS_wait4,
            SYS_waitid,
            SYS_set_tid_address,
            SYS_gettid,
            SYS_getpid,
            SYS_getppid,
            SYS_getpgid,
            SYS_setpgid,
            SYS_getsid,
            SYS_setsid,
            SYS_futex,
            SYS_get_robust_list,
            SYS_set_robust_list,
            SYS_rseq,
            SYS_sched_yield,
            SYS_sched_getaffinity,
            SYS_sched_setaffinity,
            SYS_sched_getparam,
            SYS_sched_setparam,
            SYS_sched_getscheduler,
            SYS_sched_setscheduler,
            SYS_sched_getattr,
            SYS_sched_setattr,
            SYS_sched_get_priority_max,
            SYS_sched_get_priority_min,
            SYS_sched_rr_get_interval,
            SYS_getpriority,
            SYS_setpriority,
            SYS_ioprio_get,
            SYS_ioprio_set,
            SYS_getcpu,
            SYS_pidfd_open,
            SYS_pidfd_send_signal,
        ],
    ),
    (
        "signals, within the pid namespace",
        &[
            SYS_kill,
            SYS_tkill,
            SYS_tgkill,
            SYS_rt_sigaction,
            SYS_rt_sigprocmask,
            SYS_rt_sigreturn,
            SYS_rt_sigpending,
            SYS_rt_sigtimedwait,
            SYS_rt_sigqueueinfo,
            SYS_rt_tgsigqueueinfo,
            SYS_rt_sigsuspend,
            SYS_sigaltstack,
            SYS_restart_syscall,
            SYS_signalfd4,
        ],
    ),
    (
        "identity: asking, and setting to what one is already",
        &[
            SYS_getuid,
            SYS_geteuid,
            SYS_getgid,
            SYS_getegid,
            SYS_getresuid,
            SYS_getresgid,
            SYS_getgroups,
            SYS_setuid,
            SYS_setgid,
            SYS_setreuid,
            SYS_setregid,
            SYS_setresuid,
            SYS_setresgid,
            SYS_setgroups,
            SYS_setfsuid,
            SYS_setfsgid,
            SYS_capget,
            SYS_capset,
        ],
    ),
    ("limits: asking, and lowering", &[SYS_getrlimit, SYS_setrlimit, SYS_prlimit64, SYS_getrusage, SYS_times]),
    (
        "waiting for events",
        &[
            SYS_ppoll,
            SYS_pselect6,
            SYS_epoll_create1,
            SYS_epoll_ctl,
            SYS_epoll_pwait,
            SYS_epoll_pwait2,
            SYS_eventfd2,
            SYS_pipe2,
            SYS_timerfd_create,
            SYS_timerfd_settime,
            SYS_timerfd_gettime,
            SYS_inotify_init1,
            SYS_inotify_add_watch,
            SYS_inotify_rm_watch,
        ],
    ),
    (
        "time: asking and sleeping",
        &[
            SYS_clock_gettime,
            SYS_clock_getres,
            SYS_clock_nanosleep,
            SYS_nanosleep,
            SYS_gettimeofday,
            SYS_getitimer,
            SYS_setitimer,
            SYS_timer_create,
            SYS_timer_settime,
            SYS_timer_gettime,
            SYS_timer_getoverrun,
            SYS_timer_delete,
        ],
    ),
    (
        "sockets that are open; which kinds can be made is looked at below",
        &[
            SYS_bind,
            SYS_listen,
            SYS_accept,
            SYS_accept4,
            SYS_connect,
            SYS_getsockname,
            SYS_getpeername,
            SYS_sendto,
            SYS_recvfrom,
            SYS_sendmsg,
            SYS_recvmsg,
            SYS_sendmmsg,
            SYS_recvmmsg,
            SYS_shutdown,
            SYS_setsockopt,
            SYS_getsockopt,
        ],
    ),
    ("System V and POSIX IPC, within the ipc namespace", SYSTEM_V),
    (
        "the rest of what libc needs",
        &[
            SYS_uname,
            SYS_sysinfo,
            SYS_getrandom,
            SYS_ioctl,
            SYS_prctl,
            SYS_seccomp,
            SYS_landlock_create_ruleset,
            SYS_landlock_add_rule,
            SYS_landlock_restrict_self,
            SYS_sync,
        ],
    ),
];

/// Calls only x86-64 has: older spellings of the ones above.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[Row] = &[(
    "older spellings",
    &[
        SYS_open,
        SYS_creat,
        SYS_stat,
        SYS_lstat,
        SYS_access,
        SYS_readlink,
        SYS_getdents,
        SYS_mkdir,
        SYS_rmdir,
        SYS_unlink,
        SYS_rename,
        SYS_link,
        SYS_symlink,
        SYS_chmod,
        SYS_chown,
        SYS_lchown,
        SYS_utime,
        SYS_utimes,
        SYS_futimesat,
        SYS_mknod,
        SYS_dup2,
        SYS_pipe,
        SYS_poll,
        SYS_select,
        SYS_epoll_create,
        SYS_epoll_wait,
        SYS_eventfd,
        SYS_signalfd,
        SYS_inotify_init,
        SYS_fork,
        SYS_vfork,
        SYS_getpgrp,
        SYS_alarm,
        SYS_pause,
        SYS_time,
        SYS_arch_prctl,
    ],
)];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[Row] = &[];

/// Refused with EPERM whatever the arguments.
const REFUSED: &[Row] = &[
    (
        "walls are built before, not from inside: the mount family",
        &[
            SYS_mount,
            SYS_umount2,
            SYS_pivot_root,
            SYS_chroot,
            SYS_fsopen,
            SYS_fsconfig,
            SYS_fsmount,
            SYS_fspick,
            SYS_move_mount,
            SYS_open_tree,
            SYS_mount_setattr,
            SYS_OPEN_TREE_ATTR,
        ],
    ),
    ("new namespaces give new capabilities and new kernel surface", &[SYS_unshare, SYS_setns]),
    (
        "other processes' memory, descriptors and secrets",
        &[
            SYS_ptrace,
            SYS_process_vm_readv,
            SYS_process_vm_writev,
            SYS_process_madvise,
            SYS_process_mrelease,
            SYS_pidfd_getfd,
            SYS_kcmp,
        ],
    ),
    (
        "a second system-call engine that seccomp does not see",
        &[SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register],
    ),
    ("contexts of asynchronous I/O are counted for the whole host", &[SYS_io_setup]),
    ("programs and probes in the kernel", &[SYS_bpf, SYS_perf_event_open, SYS_userfaultfd]),
    ("keyrings are not in a namespace", &[SYS_add_key, SYS_request_key, SYS_keyctl]),
    (
        "handles reach files that no path shows (CVE-2014-3519, shocker)",
        &[SYS_open_by_handle_at, SYS_name_to_handle_at],
    ),
    (
        "the kernel itself",
        &[
            SYS_init_module,
            SYS_finit_module,
            SYS_delete_module,
            SYS_kexec_load,
            SYS_reboot,
            SYS_swapon,
            SYS_swapoff,
            SYS_acct,
            SYS_quotactl,
            SYS_quotactl_fd,
            SYS_syslog,
            SYS_vhangup,
            SYS_nfsservctl,
            SYS_lookup_dcookie,
            SYS_fanotify_init,
            SYS_fanotify_mark,
            SYS_migrate_pages,
            SYS_move_pages,
        ],
    ),
    (
        "the host's clock and name",
        &[SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname],
    ),
];
const SYS_OPEN_TREE_ATTR: c_long = 467; // kernel 6.15; not in libc yet

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[Row] = &[
    ("ports and segments of the machine", &[SYS_iopl, SYS_ioperm, SYS_modify_ldt]),
    ("old doors to the kernel", &[SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl, SYS_kexec_file_load]),
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[Row] = &[];

/// clone(2) flags that make a namespace; any one of them refuses the call. clone3 is not listed above,
/// so it answers ENOSYS: its flags lie in memory where a filter cannot look, and libc falls back to clone.
const NAMESPACE_FLAGS: c_int =
    CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

/// Terminal ioctls that type into somebody else's terminal (CVE-2017-5226, CVE-2023-28339).
const REFUSED_IOCTLS: &[u32] = &[0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */, 0x541d /* TIOCCONS */];

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
fn on_oneself_alone(rules: &mut BTreeMap<u32, Rule>) {
    let only = |row: Vec<Argument>| Rule { rows: vec![(row, Answer::Allow)], otherwise: REFUSE };
    for (number, arguments) in ON_ONESELF {
        rules.insert(*number as u32, only(arguments.to_vec()));
    }
}

/// Narrows the table for a command that shares the host's processes, paths and sockets.
fn without_namespaces(rules: &mut BTreeMap<u32, Rule>, network: Network) {
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
    // A lease on what is open for reading holds up whoever opens it for writing.
    let lease = vec![(vec![Argument::Is(1, F_SETLEASE as u32)], REFUSE)];
    rules.insert(SYS_fcntl as u32, Rule { rows: lease, otherwise: Answer::Allow });
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
    rules.insert(SYS_socket as u32, only(families));
    rules.insert(SYS_socketpair as u32, only(vec![vec![Argument::Is(0, AF_UNIX as u32)]]));
    rules.insert(SYS_personality as u32, only(PERSONALITIES.iter().map(|p| vec![Argument::Is(0, *p)]).collect()));
    rules.insert(SYS_clone as u32, except(vec![vec![Argument::Has(0, NAMESPACE_FLAGS as u32)]]));
    rules.insert(SYS_ioctl as u32, except(REFUSED_IOCTLS.iter().map(|r| vec![Argument::Is(1, *r)]).collect()));
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
        Kind::Contained(_) => on_oneself_alone(&mut rules),
        Kind::Landlocked(network) => without_namespaces(&mut rules, network),
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
