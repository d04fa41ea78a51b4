//! The generated kernels as the linker sees them. The only `extern "C"` of the crate.

mod bindings;
pub(crate) mod huge_pages;
pub(crate) mod processor;
#[cfg_attr(
    not(all(target_arch = "x86_64", feature = "c-kernels")),
    allow(dead_code, reason = "named by the generated detection")
)]
mod tiles;

pub(crate) use bindings::*;

use crate::isa::Isa;

/// One compiled kernel: a row of the registry.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    /// The name of `kernels/gen/name.rs`'s grammar.
    pub(crate) name: &'static str,
    /// The operator's word.
    pub(crate) op: &'static str,
    /// The type of inputs, matrix and outputs.
    pub(crate) dtype: &'static str,
    /// The instruction set it needs (contract P4).
    pub(crate) isa: Isa,
    /// The stencil it is specialised for.
    pub(crate) spatial: Option<&'static str>,
    /// Rows and columns of the output block held in registers.
    pub(crate) tile: (usize, usize),
    /// Pixels of the second tile of a convolution, of two panels; 0 for none.
    pub(crate) wide_rows: usize,
    /// Whether a convolution takes rows of an image instead of runs of pixels.
    pub(crate) takes_images: bool,
    /// Its address.
    pub(crate) function: Function,
}

/// Address of a kernel, by the struct of arguments it takes.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "variants are named by the generated table, which is empty without C kernels")]
pub(crate) enum Function {
    /// Convolutions.
    Conv(unsafe extern "C" fn(*const LeanConvArgs)),
    /// Gradient of a matrix.
    WeightGradient(unsafe extern "C" fn(*const LeanWeightGradientArgs)),
    /// Gradient of a stencil.
    StencilGradient(unsafe extern "C" fn(*const LeanStencilGradientArgs)),
    /// Elementwise kernels.
    Elementwise(unsafe extern "C" fn(*const LeanElementwiseArgs)),
}

/// The names of all compiled kernels with their tiers, in the registry's order.
#[cfg(feature = "__internals")]
pub fn compiled() -> impl Iterator<Item = (Isa, &'static str)> {
    KERNELS.iter().map(|kernel| (kernel.isa, kernel.name))
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
