//! The shim that stands where the ELF loader was: it runs the real one for the kernel, and for nobody else.
//!
//! No part of the crate: `build.rs` makes a program of these files, and `native/loader.rs` carries its bytes. It lies
//! over the loader's own path and has Landlock's EXECUTE. The real loader, in /run/loader, has not, so that
//! `ld.so /usr/bin/id` runs nothing that is not on the list. Entered by the kernel as the interpreter of a program, it
//! maps the loader as the kernel would have, and jumps to it with the stack as it was. Executed itself, it refuses.
//!
//! It keeps true: nothing is run that was not checked; what cannot be done ends with one line and exit 126. It leaves
//! no descriptor open and asks the kernel for nothing but openat, pread64, mmap, close, write and exit_group.
//!
//! Nobody has relocated it: no static of it may hold an address, so tables of strings are not for here.

#![no_std]
#![no_main]
// A loop that copies must not become a call of memcpy: there is no C library to call.
#![no_builtins]

mod elf;
mod kernel;

use core::arch::global_asm;
use core::ops::Range;
use elf::{Header, Segment};

/// Why a program is not started; the whole line.
type Fault = &'static str;

const BY_ITSELF: Fault = "vambrace: the loader runs no programs by itself here\n";
const NO_VECTOR: Fault = "vambrace: not started: the kernel's auxiliary vector was not understood\n";
const NO_NAME: Fault = "vambrace: not started: the program's headers do not tell its loader\n";
const NO_FILE: Fault = "vambrace: not started: the program's loader is not in /run/loader\n";
const NO_LOADER: Fault = "vambrace: not started: the file in /run/loader is not a loader of this machine\n";
const NO_MEMORY: Fault = "vambrace: not started: the loader cannot be mapped\n";
const BROKEN: Fault = "vambrace: not started: a fault of the guarded loader\n";

/// Like a shell's "found, but cannot be executed".
const EXIT_REFUSED: usize = 126;

const FOLDER: &[u8] = b"/run/loader/";
/// NAME_MAX and the byte that ends a string.
const NAME_BYTES: usize = 256;
/// Real loaders have a dozen.
const LOADER_SEGMENTS: usize = 32;
/// Real loaders take a quarter of a MiB, and musl's, a whole C library, one.
const LOADER_SPAN: usize = 64 << 20;
const MAX_ALIGN: usize = 64 << 10;

// The stack pointer at entry is where argc lies. It is kept in a register that a call preserves and is the loader's
// afterwards; the other registers are as empty as the kernel leaves them: rdx and x0 would be taken for a function to
// call at exit. On x86-64 the target waits below the stack, where no signal can come yet: exec(2) took every handler.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "xor ebp, ebp",
    "mov rbx, rsp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {start}",
    "mov rsp, rbx",
    "mov [rsp - 8], rax",
    "xor eax, eax",
    "xor ebx, ebx",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor esi, esi",
    "xor edi, edi",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "xor r12d, r12d",
    "xor r13d, r13d",
    "xor r14d, r14d",
    "xor r15d, r15d",
    "jmp qword ptr [rsp - 8]",
    start = sym start,
);

// x16 is the register that an indirect jump may use (AAPCS64), also onto a landing pad of branch target identification.
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    ".type _start, %function",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x19, sp",
    "mov x0, sp",
    "bl {start}",
    "mov sp, x19",
    "mov x16, x0",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17",
    "mov x\\n, xzr",
    ".endr",
    ".irp n, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30",
    "mov x\\n, xzr",
    ".endr",
    "br x16",
    start = sym start,
);

/// Gets the stack as the kernel made it, returns the address to go on at.
extern "C" fn start(stack: *mut usize) -> usize {
    match load(stack) {
        Ok(entry) => entry,
        Err(fault) => refuse(fault),
    }
}

fn load(stack: *mut usize) -> Result<usize, Fault> {
    let vector = Vector::above(stack)?;
    // The kernel writes the address of the interpreter here: 0 where there is none, and we were executed ourselves.
    if vector.base == 0 {
        return Err(BY_ITSELF);
    }
    let path = loader_path(&vector)?;
    let file = kernel::open(&path).ok_or(NO_FILE)?;
    let loader = Loader::read(&file, vector.page)?;
    let bias = loader.map(&file, vector.page)?;
    file.close();
    // musl finds itself by it; glibc looks at its own code.
    // SAFETY: the slot lies in the vector that was just walked, on our own stack.
    unsafe { vector.base_slot.write(bias) };
    Ok(bias.wrapping_add(loader.entry))
}

fn refuse(line: Fault) -> ! {
    kernel::complain(line);
    kernel::exit(EXIT_REFUSED)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Without a look at what is said: its addresses were never relocated.
    refuse(BROKEN)
}

/// What the compiler takes for granted, in place of a C library.
mod taken_for_granted {
    // SAFETY: as in C.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
        for n in 0..length {
            // SAFETY: the caller's.
            unsafe { to.add(n).write(from.add(n).read()) };
        }
        to
    }

    // SAFETY: as in C.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
        for n in 0..length {
            // SAFETY: the caller's.
            unsafe { to.add(n).write(byte as u8) };
        }
        to
    }

    /// The core library, built to unwind, names it; nothing unwinds here.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}
}

/// What the kernel tells a new program (getauxval(3)).
struct Vector {
    headers: usize,
    header_count: usize,
    page: usize,
    base: usize,
    base_slot: *mut usize,
}

impl Vector {
    const PHDR: usize = 3;
    const PHENT: usize = 4;
    const PHNUM: usize = 5;
    const PAGESZ: usize = 6;
    const BASE: usize = 7;

    /// Finds it above argc, the arguments and the environment.
    fn above(stack: *mut usize) -> Result<Self, Fault> {
        let (mut headers, mut header_count, mut header_size, mut page) = (0, 0, 0, 0);
        let mut base_slot = core::ptr::null_mut();
        // SAFETY: the kernel put a count, so many pointers, a null, pointers up to a null and pairs of words up to
        // a pair that begins with 0 there, and nothing has run before us that could have changed it.
        unsafe {
            let arguments = *stack;
            let mut at = stack.add(1).add(arguments).add(1);
            while *at != 0 {
                at = at.add(1);
            }
            at = at.add(1);
            while *at != 0 {
                match *at {
                    Self::PHDR => headers = *at.add(1),
                    Self::PHENT => header_size = *at.add(1),
                    Self::PHNUM => header_count = *at.add(1),
                    Self::PAGESZ => page = *at.add(1),
                    Self::BASE => base_slot = at.add(1),
                    _ => {}
                }
                at = at.add(2);
            }
        }
        let page_is_one = page.is_power_of_two() && (4096..=MAX_ALIGN).contains(&page);
        if base_slot.is_null() || !page_is_one || header_size != size_of::<Segment>() {
            return Err(NO_VECTOR);
        }
        // SAFETY: it is the second word of a pair that was found above.
        let base = unsafe { *base_slot };
        Ok(Self { headers, header_count, page, base, base_slot })
    }

    /// The program headers of the program, where they lie in memory.
    fn segments(&self) -> impl Iterator<Item = Segment> {
        let headers = self.headers as *const Segment;
        // SAFETY: the kernel mapped the program and says that so many headers lie there.
        (0..self.header_count).map(move |n| unsafe { headers.add(n).read_unaligned() })
    }
}

/// /run/loader/NAME with the byte that ends it.
type LoaderPath = [u8; FOLDER.len() + NAME_BYTES];

/// The last component of PT_INTERP, below our folder.
fn loader_path(vector: &Vector) -> Result<LoaderPath, Fault> {
    let interp = vector.segments().find(|s| s.kind == Segment::INTERP).ok_or(NO_NAME)?;
    if !vector.segments().any(|s| s.shows(interp.address, interp.in_file)) {
        return Err(NO_NAME);
    }
    let text = bias(vector)?.wrapping_add(interp.address) as *const u8;
    let mut path: LoaderPath = [0; _];
    for (to, from) in path.iter_mut().zip(FOLDER) {
        *to = *from;
    }
    let mut length = 0;
    for n in 0..interp.in_file {
        // SAFETY: a segment of the program maps these bytes readable, that was asked above.
        match unsafe { text.add(n).read() } {
            0 => {
                let name = path.get(FOLDER.len()..FOLDER.len() + length).unwrap_or_default();
                return if matches!(name, b"" | b"." | b"..") { Err(NO_NAME) } else { Ok(path) };
            }
            // What stood there was a folder. The bytes behind the end of a shorter name must be zeros again.
            b'/' => {
                path.iter_mut().skip(FOLDER.len()).for_each(|b| *b = 0);
                length = 0;
            }
            byte if length < NAME_BYTES - 1 => {
                *path.get_mut(FOLDER.len() + length).ok_or(NO_NAME)? = byte;
                length += 1;
            }
            _ => return Err(NO_NAME),
        }
    }
    Err(NO_NAME)
}

/// What was added to the addresses in the program's headers.
fn bias(vector: &Vector) -> Result<usize, Fault> {
    if let Some(own) = vector.segments().find(|s| s.kind == Segment::PHDR) {
        return Ok(vector.headers.wrapping_sub(own.address));
    }
    // Some linkers leave PT_PHDR out. The ELF header is on the same page as a rule, and is at offset 0.
    let page = vector.headers & !(vector.page - 1);
    if page == 0 || vector.headers - page < size_of::<Header>() {
        return Err(NO_NAME);
    }
    // SAFETY: the program headers lie on this page, behind a whole ELF header, so all of it is mapped.
    let header = unsafe { &*(page as *const Header) };
    let is_the_one = header.is_of_this_machine()
        && header.headers == (vector.headers - page) as u64
        && usize::from(header.header_count) == vector.header_count;
    let first = vector.segments().find(|s| s.kind == Segment::LOAD && s.offset == 0);
    match first {
        Some(first) if is_the_one => Ok(page.wrapping_sub(first.address)),
        _ => Err(NO_NAME),
    }
}

/// The real loader's segments, checked.
struct Loader {
    segments: [Segment; LOADER_SEGMENTS],
    count: usize,
    entry: usize,
    /// Addresses from the first byte to the last, on whole pages.
    span: Range<usize>,
    align: usize,
}

impl Loader {
    fn read(file: &kernel::File, page: usize) -> Result<Self, Fault> {
        let mut header = core::mem::MaybeUninit::<Header>::uninit();
        if file.read(header.as_mut_ptr().cast(), size_of::<Header>(), 0) != Some(size_of::<Header>()) {
            return Err(NO_LOADER);
        }
        // SAFETY: every byte was read from the file, and any bytes are a header.
        let header = unsafe { header.assume_init() };
        let count = usize::from(header.header_count);
        if !header.is_of_this_machine() || header.kind != Header::SHARED || !(1..=LOADER_SEGMENTS).contains(&count) {
            return Err(NO_LOADER);
        }
        let mut segments = [Segment::NONE; LOADER_SEGMENTS];
        let length = count * size_of::<Segment>();
        let offset = header.headers as usize;
        if offset > isize::MAX as usize || file.read(segments.as_mut_ptr().cast(), length, offset) != Some(length) {
            return Err(NO_LOADER);
        }
        let entry = header.entry as usize;
        let mut loader = Self { segments, count, entry, span: 0..0, align: page };
        loader.check(page).ok_or(NO_LOADER)?;
        Ok(loader)
    }

    fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().take(self.count).filter(|s| s.kind == Segment::LOAD)
    }

    /// Works out span and alignment. `None` for what the kernel would not map either, and for what no loader needs.
    fn check(&mut self, page: usize) -> Option<()> {
        let (mut lowest, mut end, mut align) = (None, 0, page);
        let mut enters = false;
        for s in self.loads() {
            let last = s.address.checked_add(s.in_memory)?;
            let fits = s.in_file <= s.in_memory
                && s.offset.checked_add(s.in_file)? <= isize::MAX as usize
                && (s.offset ^ s.address) & (page - 1) == 0
                && s.align <= MAX_ALIGN
                && (s.align == 0 || s.align.is_power_of_two())
                // In ascending order and on pages of their own, as the standard has it.
                && (lowest.is_none() || s.address & !(page - 1) >= end)
                // What lies behind the file's end has to be zeroed.
                && (s.in_file == s.in_memory || s.is(Segment::WRITE));
            if !fits {
                return None;
            }
            enters |= s.is(Segment::EXECUTE) && (s.address..last).contains(&self.entry);
            align = align.max(s.align);
            lowest = lowest.or(Some(s.address));
            end = last.checked_add(page - 1)? & !(page - 1);
        }
        self.align = align;
        self.span = (lowest? & !(align - 1))..end;
        (enters && self.span.len() <= LOADER_SPAN).then_some(())
    }

    /// Maps it at an address that the kernel chooses; returns what was added to those in its headers.
    fn map(&self, file: &kernel::File, page: usize) -> Result<usize, Fault> {
        // One range for all of it, so that nothing else can lie in between. What alignment leaves over stays reserved:
        // no munmap, for no seccomp filter has to know of us.
        let room = kernel::Room::reserve(self.span.len() + (self.align - page)).ok_or(NO_MEMORY)?;
        let bias = up(room.start(), self.align).wrapping_sub(self.span.start);
        for s in self.loads() {
            Self::map_segment(s, bias, &room, file, page).ok_or(NO_MEMORY)?;
        }
        Ok(bias)
    }

    fn map_segment(s: &Segment, bias: usize, room: &kernel::Room, file: &kernel::File, page: usize) -> Option<()> {
        let start = bias.wrapping_add(s.address);
        let first = start & !(page - 1);
        let file_end = start + s.in_file;
        let mut mapped = first;
        if s.in_file > 0 {
            room.map_file(first..file_end, s.protection(), file, s.offset - (start - first))?;
            mapped = up(file_end, page);
            if s.is(Segment::WRITE) {
                room.clear(file_end..mapped)?;
            }
        }
        let end = up(start + s.in_memory, page);
        if end > mapped { room.map_zeros(mapped..end, s.protection()) } else { Some(()) }
    }
}

/// The next multiple of a power of two. By mask: a division would bring a panic along, and that an address.
fn up(address: usize, align: usize) -> usize {
    (address + (align - 1)) & !(align - 1)
}
