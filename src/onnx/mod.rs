//! ONNX, the exchange format of other engines: their models here, ours there.
//!
//! # What can be imported
//! Networks of versions 7 to 28 of ONNX's own operators with one input, f32 images `[batch, channels, height, width]` or vectors
//! `[batch, channels]`, and one output, a number per class for each. Weights are initialisers or constants, in f32, f64, f16 or bf16.
//!
//! | operator | what of it |
//! |---|---|
//! | `Conv` | two dimensions; groups, all kinds of padding, strides as large for rows as for columns, kernels that reach over at most 7 pixels with their dilation |
//! | `BatchNormalization` | in inference |
//! | `Add`, `Sum`, `Sub` | of equal shapes, or with a constant for each channel |
//! | `Mul`, `Div` | with a constant for each channel |
//! | `Relu` | |
//! | `MaxPool`, `AveragePool` | two dimensions, without dilation; `ceil_mode`, but where it changes the divisor of `count_include_pad` |
//! | `GlobalAveragePool`, `ReduceMean` | over height and width |
//! | `Pad` | zeros around the image |
//! | `Gemm`, `MatMul` | vectors times a constant matrix |
//! | `Flatten`, `Reshape`, `Squeeze`, `Unsqueeze` | what leaves images apart: to vectors, to images of one pixel, to the same shape |
//! | `Identity`, `Dropout`, `Cast` | between formats of floating point; everything is computed in f32 (or as the session says) |
//! | `Constant`, and all of `Add`, `Cast`, `Div`, `Flatten`, `Identity`, `Mul`, `Reshape`, `Squeeze`, `Sub`, `Transpose`, `Unsqueeze`, `Where` on constants | computed at import |

mod expand;
mod export;
mod import;
pub(crate) mod proto;
mod write;

pub use export::{ExportOptions, as_graph, export};
pub use import::{ImportReport, import};
