//! Memory for keys: pages of their own that are not swapped out, not dumped, and zeroed when let go.

use rustix::mm::{MapFlags, ProtFlags, mlock, mmap_anonymous, munmap};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// A value in pages of its own. What it points to elsewhere is not covered: it should hold everything inline.
pub(crate) struct Locked<T> {
    value: NonNull<T>,
    length: usize,
    is_locked: bool,
}

// SAFETY: it owns its value alone, as a Box does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: a shared reference to it gives a shared reference to the value, as with a Box.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Moves a value into pages of its own. Where the limit on locked memory (RLIMIT_MEMLOCK) does not allow more, they
    /// may be swapped out, which `is_locked` tells; all else holds.
    ///
    /// # Errors
    /// Where the kernel gives no memory.
    pub(crate) fn new(value: T) -> io::Result<Self> {
        let page = rustix::param::page_size();
        assert!(align_of::<T>() <= page, "no value of ours is aligned to more than a page");
        let length = size_of::<T>().max(1).next_multiple_of(page);
        // SAFETY: a fresh private mapping at an address of the kernel's choice aliases nothing.
        let mapped =
            unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        let value_at = NonNull::new(mapped.cast::<T>()).ok_or_else(|| io::Error::other("a mapping at address 0"))?;
        // SAFETY: the range is the mapping made above, whole.
        let is_locked = unsafe { mlock(mapped, length) }.is_ok();
        // SAFETY: the range is the mapping made above, whole.
        unsafe { super::system::memory::keep_to_this_process(mapped, length) };
        // SAFETY: the mapping is writable, large enough, aligned to a page, and nobody else knows of it.
        unsafe { value_at.write(value) };
        Ok(Locked { value: value_at, length, is_locked })
    }

    /// Whether the kernel keeps the pages in memory.
    pub(crate) fn is_locked(&self) -> bool {
        self.is_locked
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: initialised in `new`, and valid until `drop`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        let mapped = self.value.as_ptr();
        // SAFETY: the value is valid and is not used again after this.
        unsafe { ptr::drop_in_place(mapped) };
        let bytes = ptr::slice_from_raw_parts_mut(mapped.cast::<u8>(), self.length);
        // SAFETY: the mapping is ours, writable and so long; any bytes are valid as u8.
        zeroize::Zeroize::zeroize(unsafe { &mut *bytes });
        // SAFETY: made by `new`, and nothing refers to it any more.
        let _ = unsafe { munmap(mapped.cast(), self.length) };
    }
}

impl<T> std::fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locked(…)")
    }
}

/// The process's allocator: the system's, but memory is zeroed before it is given back.
///
/// Secrets come in and go out through buffers of libraries (WebSocket, TLS, JSON) that zero nothing; freed, they would lie
/// about until something else is written there. A block that grows is moved, and what it leaves is zeroed too.
#[derive(Debug)]
pub(crate) struct Wiping;

// SAFETY: every block comes from the system's allocator and goes back to it with the layout it came with; `realloc` is the
// trait's own, made of the other two.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about the layout are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's to give back, so nobody else uses it, and it is so long.
        unsafe { ptr::write_bytes(block, 0, layout.size()) };
        // Writes to memory that is freed next would be left out by the compiler if nothing could see them.
        std::hint::black_box(block);
        // SAFETY: allocated above with this layout.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that holds an address (proc(5), smaps).
    fn flags_at(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-'))
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            }
            if inside && line.starts_with("VmFlags:") {
                return line.to_owned();
            }
        }
        panic!("no mapping at {address:x}");
    }

    #[test]
    fn a_key_lies_in_pages_that_are_locked_and_not_dumped_and_not_inherited() {
        let key = Locked::new([7u8; 32]).unwrap();
        assert!(key.is_locked(), "raise RLIMIT_MEMLOCK above 64 KiB for this test");
        let flags = flags_at(key.as_ptr().addr());
        for flag in [" lo", " dd", " wf"] {
            assert!(flags.contains(flag), "{flag} is not in {flags}");
        }
        assert_eq!((*key, format!("{key:?}").as_str()), ([7; 32], "Locked(…)"));
    }

    #[test]
    fn a_value_is_dropped_once() {
        let counted = std::sync::Arc::new(());
        let locked = Locked::new(std::sync::Arc::clone(&counted)).unwrap();
        assert_eq!(std::sync::Arc::strong_count(&locked), 2);
        drop(locked);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }
}
