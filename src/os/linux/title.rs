//! What /proc/PID/cmdline and environ show of a process (proc(5)): the memory its arguments lie in.
//!
//! A sandbox's init is a copy of the launcher. Its arguments name folders of the host, and the
//! environment of `sandbox run` is the caller's own; neither is for the command's eyes.

use std::io;

/// Where the kernel finds the arguments and the environment of this process and its forks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Title {
    start: usize,
    end: usize,
}

impl Title {
    /// Reads it from /proc/self/stat: fields 48 to 51, arg_start to env_end (kernel 3.5).
    pub(crate) fn find() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/stat")?;
        // The second field is a name in brackets that may hold anything; the third follows the last bracket.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<usize>().ok()).unwrap_or(0);
        let (start, middle, end) = (field(48), field(49), field(51));
        if start == 0 || end < start || field(50) < middle {
            return Err(io::Error::other("the kernel does not say where the arguments of this process lie"));
        }
        Ok(Title { start, end })
    }
}

/// Overwrites both with a short name and zeroes.
///
/// For a forked child that reads neither any more.
pub(crate) fn blank(title: Title) {
    let name = b"sandbox-init";
    let length = title.end - title.start;
    // SAFETY: the kernel put both strings there, on the stack of the first thread, writable and contiguous (execve(2));
    // this is the forked child's own copy of it, with one thread, and nothing reads it after this.
    let memory = unsafe { std::slice::from_raw_parts_mut(title.start as *mut u8, length) };
    memory.fill(0);
    let shown = name.len().min(length.saturating_sub(1));
    memory[..shown].copy_from_slice(&name[..shown]);
    let _ = rustix::thread::set_name(c"sandbox-init");
}
