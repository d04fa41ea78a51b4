//! The guard pages end the process; this says which kernel was at work.

#[cfg(unix)]
pub(crate) use unix::{enter, report_the_trial};

#[cfg(unix)]
mod unix {
    use std::cell::Cell;
    use std::sync::{Mutex, PoisonError};

    thread_local! {
        /// The trial that this thread runs; never freed, so that a signal handler may read it at any time.
        static TRIAL: Cell<&'static str> = const { Cell::new("no trial") };
    }

    /// Every name: what can still be reached is no leak to a sanitizer.
    static NAMES: Mutex<Vec<&str>> = Mutex::new(Vec::new());

    /// Remembers what this thread runs from now on.
    pub(crate) fn enter(trial: &str) {
        let name: &'static str = Box::leak(trial.to_string().into_boxed_str());
        NAMES.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        TRIAL.set(name);
    }

    /// From now on, an access outside memory prints the thread's trial before the process dies.
    pub(crate) fn report_the_trial() {
        let handler: extern "C" fn(i32) = print_and_die;
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            // SAFETY: the handler does nothing but write(2), signal(2) and a read of a constant-initialised thread-local without
            // destructor, all of which a signal handler may do.
            unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
        }
    }

    extern "C" fn print_and_die(signal: i32) {
        for part in ["\naccess outside the buffers in ", TRIAL.get(), "\n"] {
            // SAFETY: writes a live string to standard error.
            unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        }
        // SAFETY: the default action; the faulting instruction runs again after the return and ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Elsewhere there are no guard pages.
#[cfg(not(unix))]
pub(crate) fn enter(_: &str) {}

/// Elsewhere there are no guard pages.
#[cfg(not(unix))]
pub(crate) fn report_the_trial() {}
