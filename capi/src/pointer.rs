//! From the pointers of C callers to references, with every check that is possible.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr::NonNull;
use std::slice;

use leanresnet::{Error, Result};

/// An argument that cannot be used.
pub(crate) fn invalid(what: &str, expected: impl Into<String>, got: impl Into<String>) -> Error {
    Error::Invalid { what: what.to_owned(), expected: expected.into(), got: got.into() }
}

/// Something of another length than it should have.
pub(crate) fn misshaped(what: &str, expected: impl Into<String>, got: impl Into<String>) -> Error {
    Error::Shape { what: what.to_owned(), expected: expected.into(), got: got.into() }
}

/// What a handle points to.
///
/// # Safety
/// C3 holds for `pointer`, and the result is used in the call that got it.
pub(crate) unsafe fn handle<'a, T: Sync>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: C3: NULL, or what `Output::set_handle` made of a box that nobody has released; T may be shared between threads.
    unsafe { pointer.as_ref() }.ok_or_else(|| invalid(what, "a handle", "NULL"))
}

/// Releases what a handle points to; of NULL, nothing.
///
/// # Safety
/// C3 and C4 hold for `pointer`.
pub(crate) unsafe fn release<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: C3: `Output::set_handle` made it of a box; C4: nobody else uses it, now or later.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// An array. The pointer to no elements may be NULL.
///
/// # Safety
/// C1 holds for `pointer` and `length`, every initialised T is valid, and the result is used in the call that got it.
pub(crate) unsafe fn elements<'a, T>(pointer: *const T, length: usize, what: &str) -> Result<&'a [T]> {
    if length == 0 {
        return Ok(&[]);
    }
    check(pointer, length, what)?;
    // SAFETY: not NULL, aligned, no longer than memory, by `check`; C1 for the rest.
    Ok(unsafe { slice::from_raw_parts(pointer, length) })
}

/// The name of a file: bytes as the system has them, UTF-8 where file names are no bytes.
///
/// # Safety
/// C2 holds for `pointer`, and the result is used in the call that got it.
pub(crate) unsafe fn file_name<'a>(pointer: *const c_char, what: &str) -> Result<&'a Path> {
    if pointer.is_null() {
        return Err(invalid(what, "a text", "NULL"));
    }
    // SAFETY: not NULL, and C2.
    let text = unsafe { CStr::from_ptr(pointer) };
    #[cfg(unix)]
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(text.to_bytes());
    #[cfg(not(unix))]
    let name = text.to_str().map_err(|_| invalid(what, "UTF-8", text.to_string_lossy()))?;
    Ok(Path::new(name))
}

/// Places of the caller's for results.
pub(crate) struct Output<T> {
    first: NonNull<T>,
    length: usize,
}

impl<T> Output<T> {
    /// A place for one result.
    ///
    /// # Safety
    /// C1 holds for `pointer`, and the result is used in the call that got it.
    pub(crate) unsafe fn new(pointer: *mut T, what: &str) -> Result<Self> {
        // SAFETY: the same promise.
        unsafe { Self::array(pointer, 1, what) }
    }

    /// Places for an array of results. The pointer to no places may be NULL.
    ///
    /// # Safety
    /// C1 holds for `pointer` and `length`, and the result is used in the call that got it.
    pub(crate) unsafe fn array(pointer: *mut T, length: usize, what: &str) -> Result<Self> {
        let first = if length == 0 { NonNull::dangling() } else { check(pointer, length, what)? };
        Ok(Self { first, length })
    }

    /// Number of places.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Writes the first result.
    ///
    /// # Panics
    /// If there is no place for one.
    pub(crate) fn set(&self, value: T) {
        assert!(self.length > 0, "a place for a result");
        // SAFETY: not NULL and aligned by `check`; C1 for the rest.
        unsafe { self.first.write(value) };
    }

    /// Writes all results.
    ///
    /// # Panics
    /// If they are not as many as there are places.
    pub(crate) fn copy_from(&self, values: &[T])
    where
        T: Copy,
    {
        assert_eq!(values.len(), self.length, "as many results as places");
        // SAFETY: the places are not NULL, aligned, and as many as the values; C1 for the rest. `copy` minds no overlap.
        unsafe { self.first.as_ptr().copy_from(values.as_ptr(), values.len()) };
    }
}

impl<T> Output<*mut T> {
    /// A place for a handle, which is NULL until it is set.
    ///
    /// # Safety
    /// That of [`Output::new`].
    pub(crate) unsafe fn handle(pointer: *mut *mut T, what: &str) -> Result<Self> {
        // SAFETY: the same promise.
        let output = unsafe { Self::new(pointer, what) }?;
        output.set(std::ptr::null_mut());
        Ok(output)
    }

    /// Writes a handle, which [`release`] takes back.
    pub(crate) fn set_handle(&self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// What can be checked of a pointer to `length` elements, one or more.
fn check<T>(pointer: *const T, length: usize, what: &str) -> Result<NonNull<T>> {
    let Some(first) = NonNull::new(pointer.cast_mut()) else { return Err(invalid(what, "an address", "NULL")) };
    if !pointer.is_aligned() {
        let expected = format!("an address that is a multiple of {}", align_of::<T>());
        return Err(invalid(what, expected, format!("{pointer:p}")));
    }
    match length.checked_mul(size_of::<T>()) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(first),
        _ => Err(misshaped(what, "a length that fits memory", format!("{length} values"))),
    }
}
