//! A process that serves and starts nothing: what it may not call from then on (seccomp(2)).
//!
//! A list of what is refused rather than of what is allowed: runtime, TLS, database and name service are libraries whose
//! calls change with their versions, and what must not happen is known.

use super::seccomp::{self, Answer, Argument, Rule};
use std::collections::BTreeMap;
use std::io;

const EPERM: Answer = Answer::Errno(libc::EPERM as u16);

/// Namespaces that a thread could be started in.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u32;

/// Refused whatever the arguments.
const REFUSED: &[libc::c_long] = &[
    // Another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    // Mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Files by number instead of by a path that Landlock judges; devices.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mknodat,
    // Somebody else's rights.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    // The kernel's large and young doors.
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The host itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLD: &[libc::c_long] =
    &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_mknod, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[libc::c_long] = &[libc::SYS_kexec_file_load];

/// Families of sockets that are served or spoken.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Refuses all of it for good, in this thread and in those it starts. Needs no_new_privs.
pub(crate) fn start_nothing() -> io::Result<()> {
    seccomp::install(&seccomp::compile(&rules(), Answer::Allow))
}

fn rules() -> BTreeMap<u32, Rule> {
    let mut rules: BTreeMap<u32, Rule> =
        REFUSED.iter().chain(OLD).map(|number| (*number as u32, Rule::always(EPERM))).collect();
    let threads = vec![
        (vec![Argument::Has(0, NEW_NAMESPACES)], EPERM),
        (vec![Argument::Has(0, libc::CLONE_THREAD as u32)], Answer::Allow),
    ];
    rules.insert(libc::SYS_clone as u32, Rule { rows: threads, otherwise: EPERM });
    // Its flags lie in memory, where a filter does not see them; libraries go back to clone.
    rules.insert(libc::SYS_clone3 as u32, Rule::always(Answer::Errno(libc::ENOSYS as u16)));
    // What types into a terminal that was inherited (CVE-2017-5226).
    let typing =
        [0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */].map(|request| (vec![Argument::Is(1, request)], EPERM)).into();
    rules.insert(libc::SYS_ioctl as u32, Rule { rows: typing, otherwise: Answer::Allow });
    let families = FAMILIES.map(|family| (vec![Argument::Is(0, family as u32)], Answer::Allow)).into();
    rules.insert(libc::SYS_socket as u32, Rule { rows: families, otherwise: Answer::Errno(libc::EAFNOSUPPORT as u16) });
    rules
}

#[cfg(test)]
mod tests {
    use super::super::acts;
    use super::super::clone::{self, Fork};
    use super::*;
    use crate::os::process;
    use std::ffi::CString;
    use std::os::fd::AsRawFd;

    static KEY: libc::c_char = b'i' as libc::c_char;

    /// In a process of its own, which exits with 0 where everything was as it must be.
    fn in_a_child(acts: impl FnOnce() -> bool) -> Option<i32> {
        // The test harness has threads, but the child uses nothing of theirs.
        // SAFETY: the child runs plain system calls on its own copy of this memory and ends with _exit.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => clone::exit_now(i32::from(!acts())),
            nix::unistd::ForkResult::Parent { child } => match nix::sys::wait::waitpid(child, None).unwrap() {
                nix::sys::wait::WaitStatus::Exited(_, code) => Some(code),
                _ => None,
            },
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "threads are what must still be started")]
    fn nothing_is_started_traced_mounted_or_typed_and_what_serves_still_works() {
        let path = CString::new("/bin/true").unwrap();
        let execute = || nix::unistd::execve(&path, std::slice::from_ref(&path), &[] as &[CString]).err();
        let opens = |family| rustix::net::socket(family, rustix::net::SocketType::DGRAM, None).is_ok();
        // No terminal: where the request is let through, the kernel says so.
        let null = std::fs::File::open("/dev/null").unwrap();
        let type_into = |request: u64| {
            // SAFETY: the request reads at most this byte.
            let result = unsafe { libc::ioctl(null.as_raw_fd(), request as _, &raw const KEY) };
            if result == -1 { nix::errno::Errno::last_raw() } else { 0 }
        };
        let refused = in_a_child(|| {
            rustix::thread::set_no_new_privs(true).is_ok()
                && start_nothing().is_ok()
                && execute() == Some(nix::errno::Errno::EPERM)
                && clone::fork_unchecked().is_err()
                && acts::trace() == libc::EPERM
                // EFAULT where it is open.
                && acts::mount() == libc::EPERM
                && nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER) == Err(nix::errno::Errno::EPERM)
                && type_into(0x5412) == libc::EPERM
                && type_into(0x541c) == libc::EPERM
                // The kernel reads 32 bits of the request.
                && type_into(0xffff_ffff_0000_5412) == libc::EPERM
                // Another request gets the kernel's own answer.
                && type_into(0x5413) == libc::ENOTTY
                && !opens(rustix::net::AddressFamily::PACKET)
                && !opens(rustix::net::AddressFamily::VSOCK)
                && opens(rustix::net::AddressFamily::UNIX)
                && opens(rustix::net::AddressFamily::INET)
                && std::thread::spawn(|| 7).join().is_ok_and(|seven| seven == 7)
        });
        assert_eq!(refused, Some(0));
        // The twin: without it the same acts are done.
        let free = in_a_child(|| {
            let forked = clone::fork_unchecked().is_ok_and(|fork| match fork {
                Fork::Child => clone::exit_now(0),
                Fork::Parent { pidfd, .. } => process::ended_well(&pidfd).unwrap_or(false),
            });
            let typed = [0x5412, 0x541c].map(type_into) == [libc::ENOTTY; 2];
            forked && typed && acts::trace() == libc::ESRCH && execute().is_none()
        });
        assert_eq!(free, Some(0));
    }
}
