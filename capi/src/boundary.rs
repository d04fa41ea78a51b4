//! The guard between C and Rust: results become statuses, and no panic passes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use leanresnet::Result;

use crate::error::ErrorText;
use crate::status::Status;

/// Where the outcome of a call goes besides its status.
pub(crate) struct Boundary {
    error: *mut ErrorText,
}

impl Boundary {
    /// For a function that reports by its status alone.
    pub(crate) fn status_only() -> Self {
        Self { error: std::ptr::null_mut() }
    }

    /// For a function that was given a place for the reason, or NULL.
    ///
    /// # Safety
    /// C1 holds for `error`.
    pub(crate) unsafe fn new(error: *mut ErrorText) -> Self {
        Self { error }
    }

    /// Does the work of a function.
    pub(crate) fn run(self, work: impl FnOnce() -> Result<()>) -> Status {
        let (status, text) = outcome(work);
        if !self.error.is_null() {
            // SAFETY: C1; bytes have no alignment.
            unsafe { self.error.write(ErrorText::new(&text)) };
        }
        status
    }
}

/// Unwind safety: what a panic leaves behind is either dropped by the caller's caller, or a session, whose runs begin anew.
fn outcome(work: impl FnOnce() -> Result<()>) -> (Status, String) {
    let work = || work().map_err(|error| (Status::from(error.kind()), error.to_string()));
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => (Status::Ok, String::new()),
        Ok(Err(failure)) => failure,
        Err(panic) => (Status::Bug, format!("a defect of leanresnet: {}", message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use leanresnet::Error;

    use super::*;

    /// The status and the text that a caller gets.
    fn run(work: impl FnOnce() -> Result<()>) -> (Status, String) {
        let mut error = MaybeUninit::uninit();
        // SAFETY: C1: a place for one text.
        let status = unsafe { Boundary::new(error.as_mut_ptr()) }.run(work);
        // SAFETY: `run` writes the text, whatever the outcome.
        (status, unsafe { error.assume_init() }.text())
    }

    #[test]
    fn panics_end_as_a_status() {
        let number = 7;
        assert_eq!(run(|| panic!("plain")), (Status::Bug, "a defect of leanresnet: plain".to_owned()));
        assert_eq!(run(|| panic!("number {number}")), (Status::Bug, "a defect of leanresnet: number 7".to_owned()));
        let unusual = run(|| std::panic::panic_any(7));
        assert_eq!(unusual, (Status::Bug, "a defect of leanresnet: a panic without a message".to_owned()));
        assert_eq!(Boundary::status_only().run(|| panic!("unheard")), Status::Bug);
    }

    #[test]
    fn every_kind_of_error_has_its_status() {
        let invalid = || Error::Invalid { what: "x".into(), expected: "1".into(), got: "2".into() };
        assert_eq!(run(|| Ok(())), (Status::Ok, String::new()));
        assert_eq!(run(|| Err(invalid())), (Status::Usage, "x; expected 1, got 2".to_owned()));
        let statuses = [
            Error::Io { action: "read", path: "x".into(), source: std::io::ErrorKind::NotFound.into() },
            invalid(),
            Error::Model { source_name: "x".into(), what: "y".into(), expected: "1".into(), got: "2".into() },
            Error::Diverged { step: 1, layer: "head".into() },
            Error::Panicked { message: "x".into() },
        ]
        .map(|error| run(|| Err(error)).0);
        assert_eq!(statuses, [Status::Failure, Status::Usage, Status::Data, Status::Diverged, Status::Bug]);
        assert_eq!(Boundary::status_only().run(|| Err(invalid())), Status::Usage);
    }
}
