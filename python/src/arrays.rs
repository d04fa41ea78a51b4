//! Batches of images in NumPy's arrays, borrowed where their memory has an order that the library reads.
#![forbid(unsafe_code)]

use std::str::FromStr;

use leanresnet::Images;
use numpy::{Element, PyArray4, PyArrayMethods, PyReadonlyArray4, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::error::{type_error, value_error};

/// The order of the axes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Images, channels, rows, columns.
    ChannelsFirst,
    /// Images, rows, columns, channels.
    ChannelsLast,
}

impl FromStr for Layout {
    type Err = PyErr;

    fn from_str(name: &str) -> PyResult<Self> {
        match name {
            "nchw" => Ok(Self::ChannelsFirst),
            "nhwc" => Ok(Self::ChannelsLast),
            _ => Err(value_error("layout", "nchw or nhwc", format!("`{name}`"))),
        }
    }
}

impl Layout {
    fn other(self) -> Self {
        match self {
            Self::ChannelsFirst => Self::ChannelsLast,
            Self::ChannelsLast => Self::ChannelsFirst,
        }
    }

    /// The axes of an array of this order, in the other order.
    fn axes_of_other(self) -> [usize; 4] {
        match self {
            Self::ChannelsFirst => [0, 2, 3, 1],
            Self::ChannelsLast => [0, 3, 1, 2],
        }
    }

    /// Images, channels, rows and columns of an array of this order with the extents `extents`.
    fn shape(self, extents: [usize; 4]) -> [usize; 4] {
        match self {
            Self::ChannelsFirst => extents,
            Self::ChannelsLast => [0, 3, 1, 2].map(|axis| extents[axis]),
        }
    }
}

/// An array of images whose memory can be read in one piece.
pub enum ImageArray<'py> {
    /// Normalised numbers.
    Numbers(Contiguous<'py, f32>),
    /// Bytes.
    Bytes(Contiguous<'py, u8>),
}

impl<'py> ImageArray<'py> {
    /// Reads an argument: a four-dimensional array of float32 or uint8.
    ///
    /// # Errors
    /// `TypeError` for anything else than an array and for other types of numbers, `ValueError` for another number of axes.
    pub fn read(argument: &Bound<'py, PyAny>, layout: Layout) -> PyResult<Self> {
        let wanted = "a NumPy array of float32 or uint8";
        let array = untyped(argument, "images", wanted)?;
        if let Ok(array) = argument.cast::<PyArray4<f32>>() {
            Contiguous::new(array, layout).map(Self::Numbers)
        } else if let Ok(array) = argument.cast::<PyArray4<u8>>() {
            Contiguous::new(array, layout).map(Self::Bytes)
        } else {
            Err(mistake(array, "images", &["float32", "uint8"], wanted))
        }
    }

    /// The images without the interpreter's lock.
    pub fn batch(&self) -> Batch<'_> {
        match self {
            Self::Numbers(array) => Batch { pixels: Pixels::Numbers(array.values()), layout: array.layout, shape: array.shape() },
            Self::Bytes(array) => Batch { pixels: Pixels::Bytes(array.values()), layout: array.layout, shape: array.shape() },
        }
    }
}

/// An array in C order, aligned, with the order of its axes: the caller's own one, or a copy of it.
pub struct Contiguous<'py, T: Element> {
    array: PyReadonlyArray4<'py, T>,
    layout: Layout,
}

impl<'py, T: Element> Contiguous<'py, T> {
    /// Borrows `array`, which has its axes in the order `layout`. Its memory may have either order; with any other, it is copied.
    ///
    /// # Errors
    /// `ValueError` if Rust code is writing to the array; what NumPy raises where there is no memory for a copy.
    pub fn new(array: &Bound<'py, PyArray4<T>>, layout: Layout) -> PyResult<Self> {
        let borrowed = array.try_readonly().map_err(PyErr::from)?;
        if is_in_c_order(&borrowed) {
            return Ok(Self { array: borrowed, layout });
        }
        let turned = array.permute(Some(layout.axes_of_other()))?.try_readonly().map_err(PyErr::from)?;
        if is_in_c_order(&turned) {
            return Ok(Self { array: turned, layout: layout.other() });
        }
        let copy = array.call_method1("copy", ("C",))?.cast_into::<PyArray4<T>>()?;
        Ok(Self { array: copy.try_readonly().map_err(PyErr::from)?, layout })
    }

    /// Images, channels, rows, columns.
    pub fn shape(&self) -> [usize; 4] {
        let extents = self.array.shape();
        self.layout.shape([extents[0], extents[1], extents[2], extents[3]])
    }

    fn values(&self) -> &[T] {
        self.array.as_slice().expect("the constructor took one that has a slice")
    }
}

impl<'py> Contiguous<'py, u8> {
    /// Reads an argument: a four-dimensional array of uint8.
    ///
    /// # Errors
    /// Those of [`ImageArray::read`].
    pub fn read(argument: &Bound<'py, PyAny>, layout: Layout, what: &str) -> PyResult<Self> {
        let wanted = "a NumPy array of uint8";
        let array = untyped(argument, what, wanted)?;
        match argument.cast::<PyArray4<u8>>() {
            Ok(array) => Self::new(array, layout),
            Err(_) => Err(mistake(array, what, &["uint8"], wanted)),
        }
    }

    /// A copy with the channels last.
    pub fn to_channels_last(&self) -> Vec<u8> {
        let [_, channels, height, width] = self.shape();
        let pixels = height * width;
        if self.layout == Layout::ChannelsLast || channels * pixels == 0 {
            return self.values().to_vec();
        }
        let mut bytes = vec![0; self.values().len()];
        let images = bytes.chunks_exact_mut(channels * pixels).zip(self.values().chunks_exact(channels * pixels));
        for (to, from) in images {
            for (channel, plane) in from.chunks_exact(pixels).enumerate() {
                to[channel..].iter_mut().step_by(channels).zip(plane).for_each(|(to, from)| *to = *from);
            }
        }
        bytes
    }
}

/// Images that a thread can read without the interpreter's lock.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pixels: Pixels<'a>,
    layout: Layout,
    shape: [usize; 4],
}

#[derive(Clone, Copy)]
enum Pixels<'a> {
    Numbers(&'a [f32]),
    Bytes(&'a [u8]),
}

impl<'a> Batch<'a> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// The `count` images from `first` on, which must be there.
    pub fn part(&self, first: usize, count: usize) -> leanresnet::Result<Images<'a>> {
        let [_, channels, height, width] = self.shape;
        let image = channels * height * width;
        let (range, shape) = (first * image..(first + count) * image, [count, channels, height, width]);
        match (self.pixels, self.layout) {
            (Pixels::Numbers(data), Layout::ChannelsFirst) => Images::nchw_f32(&data[range], shape),
            (Pixels::Numbers(data), Layout::ChannelsLast) => Images::nhwc_f32(&data[range], shape),
            (Pixels::Bytes(data), Layout::ChannelsFirst) => Images::nchw_u8(&data[range], shape),
            (Pixels::Bytes(data), Layout::ChannelsLast) => Images::nhwc_u8(&data[range], shape),
        }
    }
}

/// Whether the last axis is the fastest, without gaps, and the values are aligned. (The crate gives slices of Fortran's order, too.)
fn is_in_c_order<T: Element>(array: &PyReadonlyArray4<'_, T>) -> bool {
    array.is_c_contiguous() && array.as_slice().is_ok()
}

fn untyped<'a, 'py>(argument: &'a Bound<'py, PyAny>, what: &str, wanted: &str) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    argument.cast::<PyUntypedArray>().map_err(|_| match argument.get_type().fully_qualified_name() {
        Ok(got) => type_error(what, wanted, got),
        Err(error) => error,
    })
}

/// Why an array is none of four axes and one of the types: for its type, or else for its axes.
fn mistake(array: &Bound<'_, PyUntypedArray>, what: &str, types: &[&str], wanted: &str) -> PyErr {
    let dtype = array.dtype().to_string();
    if types.contains(&dtype.as_str()) {
        let axes = array.shape().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return value_error(format!("shape of {what}"), "four axes, as layout names them", format!("({axes})"));
    }
    type_error(what, wanted, dtype)
}
