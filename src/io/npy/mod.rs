//! Arrays of NumPy: `.npy` files, and `.npz` archives of them.
//!
//! A `.npy` file is the header of one array (type, order, shape) and its values; an `.npz` file is a zip archive with a member
//! `NAME.npy` for every array, stored (`numpy.savez`) or deflated (`numpy.savez_compressed`). Formats:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html> and PKWARE's APPNOTE.
//!
//! [`open`] finds an array in either kind of file, [`Archive`] lists the arrays of an archive. A [`Reader`] gives the values in
//! parts, so that an array larger than memory can be read; it holds a few kilobytes whatever a file says. [`write()`] and
//! [`write_npz`] make files that appear whole or not at all.
//!
//! Read are integers of 8 to 64 bits, floats of 32 and 64 bits, and text, in either byte order, row-major. Everything else (objects, which
//! would need Python, records, complex numbers, column-major arrays) is refused with an error that says what to do.
//!
//! ```
//! # let folder = std::env::temp_dir().join(format!("leanresnet-npy-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! use leanresnet::npy;
//!
//! let path = folder.join("x.npz");
//! npy::write_npz(&path, &[("x", &[2, 3], npy::Values::F32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))])?;
//! let mut x = npy::open(&path, "x")?;
//! assert_eq!(x.shape(), [2, 3]);
//! let mut row = [0.0; 3];
//! x.read_f32(&mut row)?;
//! x.read_f32(&mut row)?;
//! assert_eq!(row, [4.0, 5.0, 6.0]);
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), leanresnet::Error>(())
//! ```

mod archive;
mod element;
mod header;
mod reader;
mod source;
mod writer;

pub use archive::{Archive, open};
pub use element::ElementType;
pub use reader::Reader;
pub use writer::{ValueWriter, Values, write, write_npz};
