//! What functions return.

use std::ffi::{CStr, c_char, c_int};

use leanresnet::ErrorKind;

/// What a function returns. The numbers are those of the command-line tool's exit codes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is done.
    Ok = 0,
    /// The system failed: a file that cannot be read.
    Failure = 1,
    /// The call is wrong: NULL, a length that does not fit, an option out of range, an instruction set that this machine lacks.
    Usage = 2,
    /// The model is damaged, of another format, or no model at all.
    Data = 3,
    /// Training diverged. No function of this header trains; the number is taken.
    Diverged = 4,
    /// A defect of leanresnet, whose panic was caught. Please report it with the error's message.
    Bug = 101,
}

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Status::Usage,
            ErrorKind::Data => Status::Data,
            ErrorKind::Diverged => Status::Diverged,
            ErrorKind::Bug => Status::Bug,
            _ => Status::Failure,
        }
    }
}

impl Status {
    fn text(status: c_int) -> &'static CStr {
        // An integer and not the enumeration: callers of C can pass any.
        match status {
            0 => c"ok",
            1 => c"failure of the system",
            2 => c"wrong use",
            3 => c"bad model",
            4 => c"training diverged",
            101 => c"defect of leanresnet",
            _ => c"unknown status",
        }
    }
}

/// A status in a few words, for programs that pass no `leanresnet_error`.
///
/// Any number may be passed. The text is never NULL and lives as long as the program.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn leanresnet_status_text(status: c_int) -> *const c_char {
    Status::text(status).as_ptr()
}
