//! Allocation of what kernels read and write: tensors and weights.
#![forbid(unsafe_code)]

use aligned_vec::{AVec, RuntimeAlign};

use crate::ffi::huge_pages::{self, HUGE_PAGE};

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Memory aligned to a cache line, or to a huge page if it is at least as large as one.
pub type Aligned<T = f32> = AVec<T, RuntimeAlign>;

/// `length` copies of a value.
///
/// From the size of a huge page on, Linux is asked for huge pages. They never hold more than was asked for: the end that is less than one
/// has ordinary pages.
pub fn filled<T: Copy>(length: usize, value: T) -> Aligned<T> {
    let bytes = length * size_of::<T>();
    let is_large = cfg!(target_os = "linux") && bytes >= HUGE_PAGE;
    let mut memory: Aligned<T> = AVec::with_capacity(if is_large { HUGE_PAGE } else { LINE }, length);
    if is_large {
        huge_pages::request(memory.as_ptr().cast(), bytes);
    }
    memory.resize(length, value);
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_the_value_and_begins_at_a_cache_line() {
        for length in [0, 1, 100, HUGE_PAGE / 4, HUGE_PAGE + 3] {
            let memory = filled(length, 3.0_f32);
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
        let memory = filled(HUGE_PAGE, 1.0_f32);
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
