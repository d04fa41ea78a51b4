//! Memory of tensors and weights.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use super::huge_pages::{self, HUGE_PAGE};

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Memory that nothing was written to, freed when its last part is.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is never reached through itself, only through its disjoint parts.
unsafe impl Send for Block {}
// SAFETY: as for `Send`.
unsafe impl Sync for Block {}

impl Block {
    /// At least `bytes` bytes from the start of a cache line on.
    ///
    /// More than half a huge page begins with one, and the system is asked for such. An end that fills more than half of one becomes a whole
    /// one; a shorter end has ordinary pages.
    fn new(bytes: usize) -> Arc<Self> {
        let is_large = cfg!(target_os = "linux") && bytes > HUGE_PAGE / 2;
        let whole = bytes.next_multiple_of(HUGE_PAGE);
        let (bytes, alignment) = match is_large {
            true if whole - bytes < HUGE_PAGE / 2 => (whole, HUGE_PAGE),
            true => (bytes, HUGE_PAGE),
            false => (bytes.max(1), LINE),
        };
        let layout = Layout::from_size_align(bytes, alignment).expect("sizes that fit the address space");
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        if is_large {
            huge_pages::request(start.as_ptr(), bytes);
        }
        Arc::new(Block { start, layout })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `alloc` gave this memory for this layout, and all parts of it are gone.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A slice of values that begins at a cache line.
pub struct Aligned<T = f32> {
    start: NonNull<T>,
    length: usize,
    /// Values that there is room for; all of them were written once.
    capacity: usize,
    /// Owns the memory.
    _block: Arc<Block>,
}

// SAFETY: the values are reached through this alone, as those of a `Box<[T]>` are.
unsafe impl<T: Send> Send for Aligned<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Sync> Sync for Aligned<T> {}

impl<T: Copy> Aligned<T> {
    /// `length` times the same value.
    pub fn filled(length: usize, value: T) -> Self {
        Arena::new(length * size_of::<T>()).filled(length, value)
    }

    /// Values that there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes it `length` times the same value, and allocates only if there is no room for so many.
    pub(crate) fn refill(&mut self, length: usize, value: T) {
        if length > self.capacity {
            *self = Aligned::filled(length, value);
        }
        self.length = length;
        self.fill(value);
    }

    /// The same values in an arena.
    pub(crate) fn moved_to(&self, arena: &mut Arena) -> Self {
        arena.part(self.length, |values| values.copy_from_slice(as_uninitialised(self)))
    }
}

fn as_uninitialised<T: Copy>(values: &[T]) -> &[MaybeUninit<T>] {
    // SAFETY: `MaybeUninit<T>` has the layout of T, and its values need not be anything.
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

impl<T: Copy> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        self.moved_to(&mut Arena::new(size_of_val::<[T]>(self)))
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the part has at least `length` values, written when it was made, and lives as long as the block.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; parts of a block are disjoint, and `self` is borrowed uniquely.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

/// One block for many slices, so that small ones share huge pages.
pub(crate) struct Arena {
    block: Arc<Block>,
    used: usize,
}

impl Arena {
    /// Room for slices of so many bytes together, with what they need to begin at cache lines.
    pub(crate) fn new(bytes: usize) -> Self {
        Arena { block: Block::new(bytes), used: 0 }
    }

    /// Bytes that a slice takes.
    pub(crate) fn bytes_of<T>(length: usize) -> usize {
        (length * size_of::<T>()).next_multiple_of(LINE)
    }

    /// `length` times the same value; in memory of its own if there is no room left.
    pub(crate) fn filled<T: Copy>(&mut self, length: usize, value: T) -> Aligned<T> {
        self.part(length, |values| values.fill(MaybeUninit::new(value)))
    }

    /// A slice whose values `write` writes, all of them.
    fn part<T: Copy>(&mut self, length: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Aligned<T> {
        const { assert!(align_of::<T>() <= LINE) };
        if length * size_of::<T>() > self.block.layout.size() - self.used {
            return Arena::new(length * size_of::<T>()).part(length, write);
        }
        // SAFETY: the part ends within the block, as was just asked.
        let start = unsafe { self.block.start.add(self.used) }.cast::<T>();
        // SAFETY: the memory is valid and aligned (blocks begin at cache lines, and so do parts), no other part has it, and nothing is
        // asked of its values.
        write(unsafe { slice::from_raw_parts_mut(start.as_ptr().cast(), length) });
        self.used = (self.used + Arena::bytes_of::<T>(length)).min(self.block.layout.size());
        Aligned { start, length, capacity: length, _block: Arc::clone(&self.block) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_an_arena_are_disjoint_and_outlive_it() {
        let mut arena = Arena::new(Arena::bytes_of::<f32>(5) + Arena::bytes_of::<u16>(7));
        let mut first = arena.filled(5, 1.0_f32);
        let second = arena.filled(7, 2_u16);
        // There is no room left for this one.
        let third = arena.filled(3, 3.0_f64);
        drop(arena);
        first.fill(4.0);
        assert_eq!((&first[..], &second[..], &third[..]), (&[4.0; 5][..], &[2; 7][..], &[3.0; 3][..]));
        assert_eq!(second.as_ptr().addr() - first.as_ptr().addr(), LINE);
        assert!(third.as_ptr().addr().is_multiple_of(LINE));
    }

    #[test]
    fn refilled_memory_stays_where_it_is_if_there_is_room() {
        let mut memory = Aligned::filled(8, 1.0_f32);
        let place = memory.as_ptr();
        memory.refill(3, 2.0);
        assert_eq!((&memory[..], memory.as_ptr()), (&[2.0; 3][..], place));
        memory.refill(8, 0.0);
        assert_eq!((&memory[..], memory.as_ptr()), (&[0.0; 8][..], place));
        memory.refill(9, 5.0);
        assert_eq!(memory[..], [5.0; 9]);
    }

    #[test]
    fn memory_holds_the_value_and_begins_at_a_cache_line() {
        for length in [0, 1, 100, HUGE_PAGE / 4, HUGE_PAGE + 3] {
            let memory = Aligned::filled(length, 3.0_f32);
            assert!(memory.len() == length && memory.iter().all(|&value| value == 3.0));
            assert!(memory.as_ptr().addr().is_multiple_of(LINE));
        }
    }

    /// The system says which mappings were asked for by the flag `hg`; whether it has the pages at the moment is another question.
    #[test]
    #[cfg(target_os = "linux")]
    fn large_memory_is_asked_for_in_huge_pages() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage/enabled").exists() {
            eprintln!("skipped: no huge pages in this system");
            return;
        }
        let memory = Aligned::filled(HUGE_PAGE, 1.0_f32);
        let address = memory.as_ptr().addr();
        assert!(address.is_multiple_of(HUGE_PAGE));
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let range = |line: &str| {
            let (first, last) = line.split_once(' ')?.0.split_once('-')?;
            Some(usize::from_str_radix(first, 16).ok()?..usize::from_str_radix(last, 16).ok()?)
        };
        let mapping = maps.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&address)));
        let flags = mapping.into_iter().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
    }
}
