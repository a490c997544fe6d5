//! Forbidden acts, tried for their answer: 0 where the kernel did it, else the errno it refused with.
//!
//! Each is harmless where it succeeds, and is tried by a process that ends if one does. Arguments are chosen so that a
//! wall's own answer differs from that of a kernel without it.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrLike, UnixAddr, connect, socket};
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::CStr;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

/// What came of an act: 0, or an errno.
pub(crate) type Answer = i32;

fn answer(result: libc::c_long) -> Answer {
    if result == -1 { Errno::last_raw() } else { 0 }
}

fn errno<T>(result: Result<T, rustix::io::Errno>) -> Answer {
    result.map_or_else(rustix::io::Errno::raw_os_error, |_| 0)
}

/// Opens a file or folder for reading, following links.
pub(crate) fn read(path: &Path) -> Answer {
    errno(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()))
}

/// Makes a file.
pub(crate) fn create(path: &Path) -> Answer {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    errno(rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR))
}

/// Empties a file by its path, as truncate(2) does without opening it.
pub(crate) fn truncate(path: &CStr) -> Answer {
    // SAFETY: a C string and a number.
    answer(unsafe { libc::truncate(path.as_ptr(), 0) }.into())
}

/// Begins a TCP connection, without waiting for it.
pub(crate) fn connect_tcp(to: SocketAddrV4) -> Answer {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    reach(socket(AddressFamily::Inet, SockType::Stream, flags, None), &SockaddrIn::from(to))
}

/// Connects to an abstract unix socket.
pub(crate) fn connect_abstract(name: &[u8]) -> Answer {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match UnixAddr::new_abstract(name) {
        Ok(address) => reach(socket(AddressFamily::Unix, SockType::Stream, flags, None), &address),
        Err(e) => e as i32,
    }
}

fn reach(socket: nix::Result<OwnedFd>, address: &dyn SockaddrLike) -> Answer {
    let socket = match socket {
        Ok(socket) => socket,
        Err(e) => return e as i32,
    };
    connect(socket.as_raw_fd(), address).map_or_else(|e| e as i32, |()| 0)
}

/// Asks whether a process can be signalled.
pub(crate) fn signal(pid: i32) -> Answer {
    // SAFETY: two numbers; signal 0 is none.
    answer(unsafe { libc::kill(pid, 0) }.into())
}

/// Asks for the limits of another process.
pub(crate) fn limits_of(pid: i32) -> Answer {
    // SAFETY: null pointers ask for nothing and change nothing.
    answer(unsafe { libc::prlimit(pid, libc::RLIMIT_CPU, ptr::null(), ptr::null_mut()) }.into())
}

/// Gives a folder of ours the mode that it has.
pub(crate) fn change_mode(path: &Path) -> Answer {
    errno(rustix::fs::chmodat(CWD, path, Mode::RWXU, rustix::fs::AtFlags::empty()))
}

/// Sets no owner, which changes nothing but the time of the change.
pub(crate) fn change_owner(path: &Path) -> Answer {
    errno(rustix::fs::chownat(CWD, path, None, None, rustix::fs::AtFlags::empty()))
}

/// Sets the flags of what is no file: ENOTTY or EFAULT where it is open.
pub(crate) fn change_flags() -> Answer {
    const FS_IOC_SETFLAGS: libc::Ioctl = 0x4008_6602;
    // SAFETY: the kernel copies from user memory and answers EFAULT for null.
    answer(unsafe { libc::ioctl(0, FS_IOC_SETFLAGS, ptr::null::<u8>()) }.into())
}

/// Makes every process of this user nicer to those of a user that has none: ESRCH where it is open.
pub(crate) fn renice_user() -> Answer {
    // SAFETY: three numbers.
    answer(unsafe { libc::setpriority(libc::PRIO_USER, libc::id_t::MAX - 1, 0) }.into())
}

/// Takes a lease on standard input, or gives back the one that is not there: EAGAIN or EACCES where it is open.
pub(crate) fn lease() -> Answer {
    // SAFETY: numbers.
    answer(unsafe { libc::fcntl(0, libc::F_SETLEASE, libc::F_UNLCK) }.into())
}

/// Makes a pair of sockets that could send to any path.
pub(crate) fn datagram_pair() -> Answer {
    let pair = nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC);
    pair.map_or_else(|e| e as i32, |_| 0)
}

/// Opens a unix socket.
pub(crate) fn unix_socket() -> Answer {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_or_else(|e| e as i32, |_| 0)
}

/// Attaches to a process that cannot be there (pid_max is at most 2^22): ESRCH where ptrace(2) is open.
pub(crate) fn trace() -> Answer {
    // SAFETY: no pointer is used by this request.
    answer(unsafe { libc::ptrace(libc::PTRACE_SEIZE, i32::MAX, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) })
}

/// Mounts at no place: EFAULT where mount(2) is open.
pub(crate) fn mount() -> Answer {
    // SAFETY: the kernel copies from user memory and answers EFAULT for null.
    answer(unsafe { libc::mount(c"none".as_ptr(), ptr::null(), c"tmpfs".as_ptr(), 0, ptr::null()) }.into())
}

/// Makes a user namespace.
pub(crate) fn unshare_user() -> Answer {
    // SAFETY: a number; memory is not shared anew.
    answer(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
}

/// Sets up a ring at no place: EFAULT where io_uring is open.
pub(crate) fn io_uring() -> Answer {
    // SAFETY: the kernel copies from user memory and answers EFAULT for null.
    answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, ptr::null_mut::<u8>()) })
}

/// Types into the terminal at standard input: ENOTTY where there is none and the ioctl is open.
pub(crate) fn type_into_terminal() -> Answer {
    let byte: libc::c_char = 0;
    // SAFETY: TIOCSTI reads one byte, which outlives the call.
    answer(unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const byte) }.into())
}

/// Asks for a key of this process's keyring: ENOKEY or a key where keyrings are open.
pub(crate) fn keyring() -> Answer {
    const KEYCTL_GET_KEYRING_ID: libc::c_long = 0;
    const KEY_SPEC_PROCESS_KEYRING: libc::c_long = -2;
    // SAFETY: numbers.
    answer(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 0) })
}

/// Opens an internet socket.
pub(crate) fn internet_socket() -> Answer {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_or_else(|e| e as i32, |_| 0)
}

/// Makes memory that could be executed as a file: 0 where memfd_create(2) is open.
pub(crate) fn executable_memory() -> Answer {
    // SAFETY: a C string and a number. The descriptor goes with this process.
    answer(unsafe { libc::syscall(libc::SYS_memfd_create, c"proof".as_ptr(), libc::MFD_CLOEXEC) })
}

/// Executes a file with no arguments; does not come back where it is allowed.
pub(crate) fn execute(path: &CStr) -> Answer {
    let Err(error) = nix::unistd::execve(path, &[] as &[&CStr], &[] as &[&CStr]);
    error as i32
}

/// The pid of our parent as we see it: 0 where it is in another pid namespace.
pub(crate) fn parent() -> i32 {
    // SAFETY: a question without arguments.
    unsafe { libc::getppid() }
}
