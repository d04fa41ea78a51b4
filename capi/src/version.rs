//! Which version of the library runs.

use std::ffi::{CStr, c_char};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version holds no NUL"),
};

/// The version of the library that runs, as in LEANRESNET_VERSION, which is that of the header.
///
/// The text is never NULL and lives as long as the program.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn leanresnet_version() -> *const c_char {
    VERSION.as_ptr()
}
