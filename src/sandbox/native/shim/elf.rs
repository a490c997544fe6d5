//! What the shim reads of an ELF file, on a machine of 64 bits (elf(5)).

use super::kernel;

/// The head of an ELF file (elf(5)).
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 4],
    pub(crate) class: u8,
    pub(crate) order: u8,
    pub(crate) ident: [u8; 10],
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) version: u32,
    pub(crate) entry: u64,
    pub(crate) headers: u64,
    pub(crate) sections: u64,
    pub(crate) flags: u32,
    pub(crate) size: u16,
    pub(crate) header_size: u16,
    pub(crate) header_count: u16,
    pub(crate) section_size: u16,
    pub(crate) section_count: u16,
    pub(crate) section_names: u16,
}

impl Header {
    pub(crate) const CLASS_64: u8 = 2;
    pub(crate) const LITTLE_ENDIAN: u8 = 1;
    pub(crate) const SHARED: u16 = 3;
    #[cfg(target_arch = "x86_64")]
    pub(crate) const MACHINE: u16 = 62;
    #[cfg(target_arch = "aarch64")]
    pub(crate) const MACHINE: u16 = 183;

    pub(crate) fn is_of_this_machine(&self) -> bool {
        self.magic == *b"\x7fELF"
            && self.class == Self::CLASS_64
            && self.order == Self::LITTLE_ENDIAN
            && self.machine == Self::MACHINE
            && usize::from(self.header_size) == size_of::<Segment>()
    }
}

/// A program header (elf(5)).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: usize,
    pub(crate) address: usize,
    pub(crate) physical: usize,
    pub(crate) in_file: usize,
    pub(crate) in_memory: usize,
    pub(crate) align: usize,
}

impl Segment {
    pub(crate) const LOAD: u32 = 1;
    pub(crate) const INTERP: u32 = 3;
    pub(crate) const PHDR: u32 = 6;
    pub(crate) const EXECUTE: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const READ: u32 = 4;

    pub(crate) const NONE: Self =
        Self { kind: 0, flags: 0, offset: 0, address: 0, physical: 0, in_file: 0, in_memory: 0, align: 0 };

    pub(crate) fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// How it may be used, in the kernel's words (mmap(2)).
    pub(crate) fn protection(&self) -> usize {
        let given = |flag, protection| if self.is(flag) { protection } else { 0 };
        given(Self::READ, kernel::READ) | given(Self::WRITE, kernel::WRITE) | given(Self::EXECUTE, kernel::EXECUTE)
    }

    /// Whether these bytes of the file's are mapped by it, readable.
    pub(crate) fn shows(&self, address: usize, length: usize) -> bool {
        let end = self.address.checked_add(self.in_file);
        let holds = address >= self.address && end.zip(address.checked_add(length)).is_some_and(|(end, e)| e <= end);
        self.kind == Self::LOAD && self.is(Self::READ) && holds
    }
}
