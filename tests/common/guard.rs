//! Buffers that end exactly where memory ends, so that one byte read or written too far stops the test.
//!
//! On unix the payload lies in its own mapping between two pages without access; sanitizers miss masked vector loads, the
//! pages do not. Elsewhere it lies between canaries, which notice writes only.

use std::ops::{Deref, DerefMut};

/// A signalling NaN that no computation produces: what fresh payloads and the memory beside them hold.
pub(crate) const CANARY: u32 = 0x7fa5_5aa5;

/// The side on which the payload touches memory without access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The payload's last byte is the last accessible one.
    End,
    /// The payload's first byte is the first accessible one.
    Start,
}

/// Both edges: run every kernel once with each.
pub(crate) const EDGES: [Edge; 2] = [Edge::End, Edge::Start];

/// A slice of `f32` flush against inaccessible memory, filled with [`CANARY`] at first.
pub(crate) struct GuardedBuffer {
    memory: memory::Mapping,
    /// Floats of accessible memory before the payload.
    before: usize,
    len: usize,
}

impl GuardedBuffer {
    /// `len` canaries, flush against `edge`.
    pub(crate) fn new(len: usize, edge: Edge) -> Self {
        let memory = memory::Mapping::new(len);
        let before = match edge {
            Edge::End => memory.floats().len() - memory::TRAILING - len,
            Edge::Start => memory::LEADING,
        };
        GuardedBuffer { memory, before, len }
    }

    /// A copy of `values`, flush against `edge`.
    pub(crate) fn from_slice(values: &[f32], edge: Edge) -> Self {
        let mut buffer = Self::new(values.len(), edge);
        buffer.copy_from_slice(values);
        buffer
    }

    /// An error if accessible memory beside the payload was written.
    pub(crate) fn check(&self) -> Result<(), String> {
        let floats = self.memory.floats();
        let payload = self.before..self.before + self.len;
        let damaged = (0..floats.len()).find(|index| !payload.contains(index) && floats[*index].to_bits() != CANARY);
        match damaged {
            None => Ok(()),
            Some(index) => Err(format!(
                "float {} of a buffer of {} was overwritten with {:?}",
                index as isize - self.before as isize,
                self.len,
                floats[index]
            )),
        }
    }
}

impl Deref for GuardedBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory.floats()[self.before..self.before + self.len]
    }
}

impl DerefMut for GuardedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory.floats_mut()[self.before..self.before + self.len]
    }
}

/// Whether reading the float at `offset` from the start of `buffer` kills the process; tried in a child.
#[cfg(unix)]
pub(crate) fn reading_kills(buffer: &GuardedBuffer, offset: isize) -> bool {
    let address = buffer.as_ptr().wrapping_offset(offset);
    // SAFETY: the child only lowers its own core limit, reads one float (it may die of that: the point of the test) and
    // exits without running anything of the parent's; all three are safe after a fork of a process with threads.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            std::hint::black_box(address.read_volatile());
            libc::_exit(0);
        }
        child
    };
    assert!(child > 0, "cannot fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: `child` is our own child and `status` outlives the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child, "cannot wait: {}", std::io::Error::last_os_error());
    libc::WIFSIGNALED(status) && [libc::SIGSEGV, libc::SIGBUS].contains(&libc::WTERMSIG(status))
}

#[cfg(unix)]
mod memory {
    use super::CANARY;
    use std::ptr::NonNull;

    /// Accessible floats that always precede the payload.
    pub(crate) const LEADING: usize = 0;
    /// Accessible floats that always follow the payload.
    pub(crate) const TRAILING: usize = 0;

    /// Pages of canaries between two pages without access.
    pub(crate) struct Mapping {
        base: NonNull<u8>,
        page: usize,
        accessible: usize,
    }

    // SAFETY: the mapping belongs to this value alone; access follows Rust's borrows of it.
    unsafe impl Send for Mapping {}
    // SAFETY: a shared mapping is only read.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        /// Whole pages for at least `len` floats.
        pub(crate) fn new(len: usize) -> Self {
            // SAFETY: asks for a constant of the system.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            let accessible = (len * size_of::<f32>()).next_multiple_of(page).max(page);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
            // SAFETY: a fresh anonymous mapping, placed by the system.
            let base = unsafe { libc::mmap(std::ptr::null_mut(), accessible + 2 * page, libc::PROT_NONE, flags, -1, 0) };
            assert_ne!(base, libc::MAP_FAILED, "cannot map memory: {}", std::io::Error::last_os_error());
            let base = NonNull::new(base.cast::<u8>()).expect("the system maps no page at 0");
            let mut mapping = Mapping { base, page, accessible };
            // SAFETY: the range is page-aligned and inside the mapping above.
            let status =
                unsafe { libc::mprotect(mapping.start().cast().as_ptr(), accessible, libc::PROT_READ | libc::PROT_WRITE) };
            assert_eq!(status, 0, "cannot open memory: {}", std::io::Error::last_os_error());
            mapping.floats_mut().fill(f32::from_bits(CANARY));
            mapping
        }

        /// All accessible memory.
        pub(crate) fn floats(&self) -> &[f32] {
            // SAFETY: readable, initialised (by the system, then by canaries), page-aligned, borrowed from `self`.
            unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.accessible / size_of::<f32>()) }
        }

        /// All accessible memory.
        pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
            // SAFETY: as in `floats`; writable, and `self` is borrowed exclusively.
            unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.accessible / size_of::<f32>()) }
        }

        fn start(&self) -> NonNull<f32> {
            // SAFETY: one page into a mapping of more than two.
            unsafe { self.base.byte_add(self.page) }.cast()
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: exactly the range that `new` mapped, which nothing borrows any more.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.accessible + 2 * self.page) };
        }
    }
}

#[cfg(not(unix))]
mod memory {
    use super::CANARY;

    /// Accessible floats that always precede the payload.
    pub(crate) const LEADING: usize = 1024;
    /// Accessible floats that always follow the payload.
    pub(crate) const TRAILING: usize = 1024;

    /// The payload between canaries.
    pub(crate) struct Mapping(Vec<f32>);

    impl Mapping {
        /// Room for `len` floats and the canaries.
        pub(crate) fn new(len: usize) -> Self {
            Mapping(vec![f32::from_bits(CANARY); LEADING + len + TRAILING])
        }

        /// Payload and canaries.
        pub(crate) fn floats(&self) -> &[f32] {
            &self.0
        }

        /// Payload and canaries.
        pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
            &mut self.0
        }
    }
}
