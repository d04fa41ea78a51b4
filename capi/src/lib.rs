//! The C API: what `include/leanresnet.h` declares, on top of the Rust library.
//!
//! Every function checks its arguments, does its work behind a guard that turns a panic into a status, and writes results only through
//! the pointers that it was given for them. What it cannot check is the caller's promise. The header states it; `SAFETY` comments cite
//! it by number:
//!
//! - **C1, extents**: a pointer that is not NULL points to as many elements as the argument beside it says, or to one where there is no
//!   such argument. They are initialised if the function reads them, and nobody writes to them, or in the case of results uses them,
//!   before it returns.
//! - **C2, texts**: a text ends with a NUL character, which ends its extent in the sense of C1.
//! - **C3, handles**: a handle came from a function of this library and was not released before the call, nor is it while the call lasts.
//! - **C4, release**: a handle is released once, and no call that uses it comes later.

mod boundary;
mod error;
mod model;
mod options;
mod pointer;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod version;
