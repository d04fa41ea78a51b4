//! Huge pages: memory whose addresses the processor translates 2 MiB at a time instead of 4 KiB.

/// Bytes of a huge page on the systems that are asked for them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Asks the system to back the whole huge pages of a range with such, which works best before the range is first written.
///
/// Only a wish: where the system has none, or refuses, the range has ordinary pages. What it holds does not change.
#[cfg(target_os = "linux")]
pub(crate) fn request(address: *const u8, bytes: usize) {
    let first = address.addr().next_multiple_of(HUGE_PAGE);
    let end = address.addr().saturating_add(bytes) / HUGE_PAGE * HUGE_PAGE;
    if first < end {
        let first = address.wrapping_add(first - address.addr()).cast_mut();
        // SAFETY: this advice changes how pages are backed and never what they hold, whoever owns them; of a range that is not
        // mapped the system returns an error.
        unsafe { libc::madvise(first.cast(), end - first.addr(), libc::MADV_HUGEPAGE) };
    }
}

/// Nothing: other systems are not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn request(_: *const u8, _: usize) {}
