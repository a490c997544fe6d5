//! Turns a table of system calls into one BPF program and installs it (seccomp(2)).
//!
//! The program is ours rather than a library's because its shape is a cost of every launch: the
//! kernel runs a new filter once for each system call to fill its cache of calls that are always
//! allowed (kernel 5.11), and a linear list of 300 comparisons took 0.6 ms of a 1 ms launch. A
//! binary search over ranges of numbers takes microseconds. It also answers wrong architectures and
//! the x32 numbers of x86-64 itself: both kill the process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A condition on one argument, compared in its lower 32 bits as the kernel reads an `int`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Argument {
    /// Argument `index` equals this value.
    Is(u8, u32),
    /// Argument `index` has a bit of this mask.
    Has(u8, u32),
    /// Argument `index`, but for its lowest eight bits, equals this value: a family of ioctls.
    Family(u8, u32),
}

/// What a system call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Allow,
    Errno(u16),
    /// A process that listens (`notify`) is asked first; ENOSYS where none does.
    Ask,
}

impl Answer {
    fn code(self) -> u32 {
        match self {
            Answer::Allow => libc::SECCOMP_RET_ALLOW,
            Answer::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Answer::Ask => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// The rule for one system call: the first row whose conditions all hold gives the answer, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) rows: Vec<(Vec<Argument>, Answer)>,
    pub(crate) otherwise: Answer,
}

impl Rule {
    /// The same answer whatever the arguments.
    pub(crate) fn always(answer: Answer) -> Self {
        Rule { rows: Vec::new(), otherwise: answer }
    }
}

/// A program ready to be installed.
pub(crate) struct Filter(Vec<libc::sock_filter>);

/// The architecture whose numbers `libc::SYS_*` are (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Numbers from here on are x32's on x86-64; no other architecture comes near.
const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const GO: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const NUMBER_AT: u32 = 0; // offsets in struct seccomp_data
const ARCH_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// Compiles a table; calls that are not in it get `default`.
pub(crate) fn compile(rules: &BTreeMap<u32, Rule>, default: Answer) -> Filter {
    let mut program = vec![
        op(LOAD, 0, 0, ARCH_AT),
        op(EQUAL, 1, 0, ARCH),
        op(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        op(LOAD, 0, 0, NUMBER_AT),
        op(AT_LEAST, 0, 1, X32_BIT),
        op(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    search(&ranges(rules, default), &mut program);
    Filter(program)
}

/// The whole number line as ranges of the same rule, each from its first number on.
fn ranges(rules: &BTreeMap<u32, Rule>, default: Answer) -> Vec<(u32, Rule)> {
    let unlisted = Rule::always(default);
    let mut line: Vec<(u32, Rule)> = vec![(0, unlisted.clone())];
    let mut push = |from: u32, rule: &Rule| match line.last_mut() {
        Some((start, last)) if *start == from => *last = rule.clone(),
        Some((_, last)) if last == rule => {}
        _ => line.push((from, rule.clone())),
    };
    for (number, rule) in rules {
        push(*number, rule);
        if !rules.contains_key(&(number + 1)) {
            push(number + 1, &unlisted);
        }
    }
    line
}

/// Binary search: the accumulator holds the number, each leaf is a rule.
fn search(line: &[(u32, Rule)], program: &mut Vec<libc::sock_filter>) {
    let [_, _, ..] = line else {
        if let Some((_, rule)) = line.first() {
            leaf(rule, program);
        }
        return;
    };
    let (low, high) = line.split_at(line.len() / 2);
    let mut below = Vec::new();
    search(low, &mut below);
    // A conditional jump reaches 255 instructions; further it needs an unconditional one to help.
    match u8::try_from(below.len()) {
        Ok(over) => program.push(op(AT_LEAST, over, 0, high[0].0)),
        Err(_) => {
            program.push(op(AT_LEAST, 0, 1, high[0].0));
            program.push(op(GO, 0, 0, below.len() as u32));
        }
    }
    program.append(&mut below);
    search(high, program);
}

fn leaf(rule: &Rule, program: &mut Vec<libc::sock_filter>) {
    for (conditions, answer) in &rule.rows {
        // One that fails jumps behind the row's return.
        let length = |condition: &Argument| if matches!(condition, Argument::Family(..)) { 3 } else { 2 };
        for (index, condition) in conditions.iter().enumerate() {
            let behind = (conditions[index + 1..].iter().map(length).sum::<usize>() + 1) as u8;
            let (half, jump, value) = match *condition {
                Argument::Is(argument, value) => (lower_half(argument), EQUAL, value),
                Argument::Has(argument, mask) => (lower_half(argument), BITS, mask),
                Argument::Family(argument, value) => (lower_half(argument), EQUAL, value),
            };
            program.push(op(LOAD, 0, 0, half));
            if matches!(condition, Argument::Family(..)) {
                program.push(op(AND, 0, 0, !0xff));
            }
            program.push(op(jump, 0, behind, value));
        }
        program.push(op(RETURN, 0, 0, answer.code()));
    }
    program.push(op(RETURN, 0, 0, rule.otherwise.code()));
}

/// Where the lower 32 bits of an argument lie.
fn lower_half(argument: u8) -> u32 {
    let big_endian = if cfg!(target_endian = "big") { 4 } else { 0 };
    ARGUMENTS_AT + 8 * u32::from(argument) + big_endian
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

impl Filter {
    /// As the kernel takes it; it reads the instructions and writes nothing.
    fn program(&self) -> libc::sock_fprog {
        libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() }
    }
}

/// Installs a filter on this process for good. Needs no_new_privs.
pub(crate) fn install(filter: &Filter) -> io::Result<()> {
    let program = filter.program();
    // SAFETY: the kernel reads `len` instructions from `filter`, both alive for the call, and writes nothing.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The same, with a descriptor over which what is answered with `Ask` is asked; none where another filter of this process
/// has one already, of which there can be one.
pub(crate) fn install_with_listener(filter: &Filter) -> io::Result<Option<OwnedFd>> {
    // Whoever has asked can be killed meanwhile, but is not interrupted by other signals (kernel 5.19).
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV;
    let made = match install_listening(filter, flags) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            install_listening(filter, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)
        }
        made => made,
    };
    match made {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => install(filter).map(|()| None),
        made => made.map(Some),
    }
}

fn install_listening(filter: &Filter, flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let program = filter.program();
    // SAFETY: the kernel reads `len` instructions from `filter`, both alive for the call, and writes nothing.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
        made => Ok(unsafe { OwnedFd::from_raw_fd(made as i32) }),
    }
}

const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Whether a filter is installed on this process, by the kernel's word (prctl(2), PR_GET_SECCOMP).
pub(crate) fn is_filtered() -> io::Result<bool> {
    // SAFETY: a question without pointers; its answer is a mode.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    if mode == -1 { Err(io::Error::last_os_error()) } else { Ok(mode == libc::SECCOMP_MODE_FILTER as libc::c_int) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, for one call.
    fn run(filter: &Filter, arch: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let word = |at: u32| match at {
            NUMBER_AT => number,
            ARCH_AT => arch,
            at if (at - ARGUMENTS_AT) % 8 == 4 => 0,
            at => arguments[((at - ARGUMENTS_AT) / 8) as usize],
        };
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let op = filter.0[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { op.jt } else { op.jf });
            match op.code {
                LOAD => accumulator = word(op.k),
                AT_LEAST => at += jump(accumulator >= op.k),
                EQUAL => at += jump(accumulator == op.k),
                BITS => at += jump(accumulator & op.k != 0),
                AND => accumulator &= op.k,
                GO => at += op.k as usize,
                RETURN => return op.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_number_gets_its_own_answer_and_every_other_the_default() {
        let mut rules = BTreeMap::new();
        for number in [0, 1, 2, 5, 6, 9, 300, 301, 450] {
            rules.insert(number, Rule::always(Answer::Allow));
        }
        rules.insert(7, Rule::always(Answer::Errno(1)));
        let filter = compile(&rules, Answer::Errno(38));
        for number in 0..600 {
            let expected = rules.get(&number).map_or(Answer::Errno(38), |r| r.otherwise);
            assert_eq!(run(&filter, ARCH, number, [0; 6]), expected.code(), "{number}");
        }
    }

    #[test]
    fn a_foreign_architecture_and_an_x32_number_kill() {
        let filter = compile(&BTreeMap::from([(1, Rule::always(Answer::Allow))]), Answer::Allow);
        assert_eq!(run(&filter, ARCH ^ 1, 1, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(run(&filter, ARCH, X32_BIT | 1, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(run(&filter, ARCH, 1, [0; 6]), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn rows_are_tried_in_order_and_all_conditions_of_a_row_must_hold() {
        let rule = Rule {
            rows: vec![
                (vec![Argument::Is(0, 16), Argument::Is(2, 0)], Answer::Allow),
                (vec![Argument::Has(1, 0x60)], Answer::Errno(1)),
            ],
            otherwise: Answer::Errno(2),
        };
        let filter = compile(&BTreeMap::from([(41, rule)]), Answer::Errno(38));
        let answer = |arguments| run(&filter, ARCH, 41, arguments);
        assert_eq!(answer([16, 0, 0, 0, 0, 0]), Answer::Allow.code());
        assert_eq!(answer([16, 0, 1, 0, 0, 0]), Answer::Errno(2).code());
        assert_eq!(answer([15, 0x40, 0, 0, 0, 0]), Answer::Errno(1).code());
        assert_eq!(answer([15, 0x20, 0, 0, 0, 0]), Answer::Errno(1).code());
        assert_eq!(answer([15, 0x80, 0, 0, 0, 0]), Answer::Errno(2).code());
    }

    #[test]
    fn a_family_is_all_numbers_but_for_the_lowest_eight_bits() {
        let row = |conditions| (conditions, Answer::Allow);
        let rows = vec![row(vec![Argument::Family(1, 0x5400), Argument::Is(2, 7)]), row(vec![Argument::Is(1, 9)])];
        let rule = Rule { rows, otherwise: Answer::Ask };
        let filter = compile(&BTreeMap::from([(16, rule)]), Answer::Errno(38));
        let answer = |command, argument| run(&filter, ARCH, 16, [0, command, argument, 0, 0, 0]);
        for command in [0x5400, 0x5401, 0x54ff] {
            assert_eq!(answer(command, 7), Answer::Allow.code());
            assert_eq!(answer(command, 8), Answer::Ask.code());
        }
        assert_eq!(answer(9, 0), Answer::Allow.code());
        assert_eq!(answer(0x5500, 7), libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(answer(0x4000_5401, 7), libc::SECCOMP_RET_USER_NOTIF);
    }
}
