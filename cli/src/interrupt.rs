//! SIGINT and SIGTERM: the first asks the verb to save and stop, the second ends the process at once.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::Failure;

/// What shells add to the number of the signal that ended a process, for its exit code.
const SIGNAL_EXIT: i32 = 128;

/// Notices signals.
#[derive(Clone)]
pub struct Interrupt {
    received: Arc<AtomicUsize>,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Its name.
    pub fn name(self) -> &'static str {
        if self.0 == SIGINT { "SIGINT" } else { "SIGTERM" }
    }

    /// The exit code of a process that it ended: 130 or 143.
    pub fn exit_code(self) -> u8 {
        (SIGNAL_EXIT + self.0) as u8
    }
}

impl Interrupt {
    /// Catches both signals from now on.
    pub fn install() -> Result<Self, Failure> {
        let received = Arc::new(AtomicUsize::new(0));
        let is_second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Actions run in this order: the first signal finds the flag unset, and sets it for the next.
            let registered = flag::register_conditional_shutdown(signal, SIGNAL_EXIT + signal, Arc::clone(&is_second))
                .and_then(|_| flag::register(signal, Arc::clone(&is_second)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&received), signal as usize));
            registered.map_err(|error| Failure::io("catch signals of", "this process", &error))?;
        }
        Ok(Self { received })
    }

    /// The first signal that came, if one did.
    pub fn received(&self) -> Option<Signal> {
        match self.received.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(Signal(signal as i32)),
        }
    }
}

/// Makes writing beyond the allowed size of files an error with a message, instead of a signal that ends the process.
pub fn ignore_file_size_signal() {
    // Without the handler the process ends as it always did.
    #[cfg(unix)]
    let _ = flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_exit_codes_of_shells() {
        assert_eq!(
            [Signal(SIGINT), Signal(SIGTERM)].map(|signal| (signal.name(), signal.exit_code())),
            [("SIGINT", 130), ("SIGTERM", 143)]
        );
    }
}
