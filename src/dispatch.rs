//! Which kernel runs an operator on an instruction set: the compiled rows over the portable code, which is complete.
#![forbid(unsafe_code)]

use crate::error::Result;
use crate::ffi::{self, Function};
use crate::isa::Isa;
use crate::kernel::conv::ConvKernel;
use crate::kernel::element::Element;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::gradient::{StencilGradientKernel, WeightGradientKernel};
use crate::machine;
use crate::stencil::Stencil;
#[cfg(feature = "bf16")]
use half::bf16;
use std::sync::OnceLock;

/// Every stencil has kernels; they lie in the order of [`Stencil::ALL`], which is that of its variants.
const STENCILS: usize = Stencil::ALL.len();

/// The portable fused kernels of a type.
macro_rules! portable_fused {
    ($dtype:literal) => {
        std::array::from_fn(|index| {
            let stencil = Stencil::ALL[index];
            let name = match stencil {
                Stencil::Cross4 => concat!("lean_fused_", $dtype, "_portable_cross4_1x32"),
                Stencil::Cross5 => concat!("lean_fused_", $dtype, "_portable_cross5_1x32"),
                Stencil::Box9 => concat!("lean_fused_", $dtype, "_portable_box9_1x32"),
                Stencil::Row3 => concat!("lean_fused_", $dtype, "_portable_row3_1x32"),
                Stencil::Col3 => concat!("lean_fused_", $dtype, "_portable_col3_1x32"),
                Stencil::Box25 => concat!("lean_fused_", $dtype, "_portable_box25_1x32"),
            };
            ConvKernel::portable(name, Some(stencil))
        })
    };
}

/// The kernels for tensors of one type, of one instruction set.
#[derive(Clone)]
pub struct KernelsOf<T> {
    fused: [ConvKernel<T>; STENCILS],
    stencil_gradient: [StencilGradientKernel<T>; STENCILS],
    /// Dense convolutions.
    pub dense: ConvKernel<T>,
    /// Gradients of matrices.
    pub weight_gradient: WeightGradientKernel<T>,
    /// Everything that works value by value.
    pub elementwise: Elementwise<T>,
}

/// The portable kernels of a type.
macro_rules! portable {
    ($dtype:literal) => {
        KernelsOf {
            fused: portable_fused!($dtype),
            stencil_gradient: std::array::from_fn(|index| {
                let name = concat!("lean_stencilgradient_", $dtype, "_portable_v32");
                StencilGradientKernel::portable(name, Stencil::ALL[index])
            }),
            dense: ConvKernel::portable(concat!("lean_dense_", $dtype, "_portable_1x32"), None),
            weight_gradient: WeightGradientKernel::portable(concat!("lean_weightgradient_", $dtype, "_portable_1x32")),
            elementwise: Elementwise::default(),
        }
    };
}

impl<T: Element> KernelsOf<T> {
    /// The fused kernel for a stencil.
    pub fn fused(&self, stencil: Stencil) -> ConvKernel<T> {
        self.fused[stencil as usize]
    }

    /// The kernel for the gradient of a stencil.
    pub fn stencil_gradient(&self, stencil: Stencil) -> StencilGradientKernel<T> {
        self.stencil_gradient[stencil as usize]
    }

    /// Puts a compiled row of this type in force: in the place of its stencil, or in that of kernels without one.
    fn put(&mut self, row: &ffi::Kernel) {
        let stencil = Stencil::ALL.iter().copied().find(|stencil| Some(stencil.name()) == row.spatial);
        match (row.function, stencil) {
            (Function::Conv(function), _) => {
                let place = stencil.map_or(&mut self.dense, |stencil| &mut self.fused[stencil as usize]);
                let kernel = ConvKernel::native(row.name, stencil, row.tile.0, function);
                let kernel = if row.takes_images { kernel.for_images() } else { kernel };
                *place = kernel.with_wide_tiles(row.wide_rows).in_wide_tiles(machine::prefers_wide_tiles());
            }
            (Function::WeightGradient(function), _) => {
                self.weight_gradient = WeightGradientKernel::native(row.name, function);
            }
            (Function::StencilGradient(function), Some(stencil)) => {
                self.stencil_gradient[stencil as usize] = StencilGradientKernel::native(row.name, stencil, function);
            }
            (Function::StencilGradient(_), None) => {}
            (Function::Elementwise(function), _) => {
                if let Some(slot) = self.elementwise.slot(row.op) {
                    *slot = Some(function);
                }
            }
        }
    }
}

/// The kernels of one instruction set. Every operator has one: where no row was compiled, the portable code.
#[derive(Clone)]
pub struct Kernels {
    /// The tier whose rows these are.
    pub isa: Isa,
    /// Those of f32.
    pub f32: KernelsOf<f32>,
    grouped: ConvKernel,
    /// Those of bf16.
    #[cfg(feature = "bf16")]
    pub bf16: KernelsOf<bf16>,
}

impl Kernels {
    /// The kernels of a tier.
    ///
    /// # Errors
    /// [`Error::Isa`] if the tier cannot run here.
    pub fn of(isa: Isa) -> Result<&'static Kernels> {
        static TABLES: [OnceLock<Kernels>; Isa::ALL.len()] = [const { OnceLock::new() }; Isa::ALL.len()];
        let isa = isa.require()?;
        let index = Isa::ALL.iter().position(|other| *other == isa).unwrap_or(0);
        Ok(TABLES[index].get_or_init(|| Kernels::overlay(isa)))
    }

    /// The kernels in force: those of [`Isa::active`].
    ///
    /// # Errors
    /// [`Error::Isa`] if `LEANRESNET_ISA` names a tier that cannot run here.
    #[cfg(feature = "__internals")]
    pub fn active() -> Result<&'static Kernels> {
        Kernels::of(Isa::active()?)
    }

    /// The kernel for a stencil whose taps read groups of channels.
    pub fn grouped(&self, stencil: Stencil) -> ConvKernel {
        self.grouped.for_groups(stencil)
    }

    /// The kernel for lean or depth-wise weights with a stencil, of any group size.
    pub(crate) fn lean(&self, stencil: Stencil, group_size: usize) -> ConvKernel {
        if group_size > 1 { self.grouped(stencil) } else { self.f32.fused(stencil) }
    }

    fn portable() -> Self {
        Kernels {
            isa: Isa::Portable,
            f32: portable!("f32"),
            grouped: ConvKernel::portable("lean_grouped_f32_portable_1x32", None),
            #[cfg(feature = "bf16")]
            bf16: portable!("bf16"),
        }
    }

    /// The kernels of a tier, with one compiled row in force that another one stands before; `None` if it was not compiled.
    ///
    /// # Errors
    /// [`Error::Isa`](crate::Error::Isa) if the tier cannot run here.
    #[cfg(feature = "__internals")]
    pub fn with_row(isa: Isa, name: &str) -> Result<Option<Kernels>> {
        let mut kernels = Kernels::of(isa)?.clone();
        let row = ffi::KERNELS.iter().find(|row| row.isa == isa && row.name == name);
        Ok(row.map(|row| {
            kernels.put(row);
            kernels
        }))
    }

    /// The same kernels, whose convolutions use wide tiles where they have them, or never do.
    #[cfg(feature = "__internals")]
    #[must_use]
    pub fn in_wide_tiles(&self, is_wide: bool) -> Kernels {
        let mut kernels = self.clone();
        for kernel in kernels.f32.fused.iter_mut().chain([&mut kernels.f32.dense]) {
            *kernel = kernel.in_wide_tiles(is_wide);
        }
        kernels
    }

    /// The rows of one tier over the portable code; `isa` is available.
    fn overlay(isa: Isa) -> Self {
        let mut kernels = Kernels { isa, ..Kernels::portable() };
        for layer in isa.layers() {
            // In reverse, so that of several rows for one operator the registry's first one stays.
            ffi::KERNELS.iter().rev().filter(|row| row.isa == *layer).for_each(|row| kernels.put(row));
        }
        kernels
    }

    /// Puts a compiled row of this tier in force.
    fn put(&mut self, row: &ffi::Kernel) {
        match (row.dtype, row.function) {
            ("f32", Function::Conv(function)) if row.op == "grouped" => {
                self.grouped = ConvKernel::native(row.name, None, row.tile.0, function);
            }
            ("f32", _) => self.f32.put(row),
            #[cfg(feature = "bf16")]
            ("bf16", _) => self.bf16.put(row),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_reached<T: Element>(kernels: &mut KernelsOf<T>, row: &ffi::Kernel, stencil: Option<Stencil>) -> bool {
        match row.function {
            Function::Conv(_) => stencil.map_or(kernels.dense.name, |stencil| kernels.fused(stencil).name) == row.name,
            Function::WeightGradient(_) => kernels.weight_gradient.name == row.name,
            Function::StencilGradient(_) => kernels.stencil_gradient(stencil.unwrap()).name == row.name,
            Function::Elementwise(_) => kernels.elementwise.slot(row.op).is_some_and(|slot| slot.is_some()),
        }
    }

    #[test]
    fn every_compiled_row_of_an_available_tier_is_reachable() {
        for isa in Isa::available() {
            let mut kernels = Kernels::of(isa).unwrap().clone();
            let rows: Vec<&ffi::Kernel> = ffi::KERNELS.iter().filter(|row| row.isa == isa).collect();
            let stands_before = |row: &ffi::Kernel, other: &ffi::Kernel| (row.op, row.spatial) == (other.op, other.spatial);
            // Of several rows for one operator the first one is in force.
            for row in rows.iter().enumerate().filter(|(at, row)| !rows[..*at].iter().any(|other| stands_before(row, other))) {
                let row = row.1;
                let stencil = row.spatial.map(|name| name.parse::<Stencil>().unwrap());
                let reached = match row.dtype {
                    "f32" if row.op == "grouped" => kernels.grouped.name == row.name,
                    #[cfg(feature = "bf16")]
                    "bf16" => is_reached(&mut kernels.bf16, row, stencil),
                    _ => is_reached(&mut kernels.f32, row, stencil),
                };
                assert!(reached, "{} is never used", row.name);
            }
        }
    }

    #[test]
    fn every_stencil_has_kernels() {
        let kernels = Kernels::of(Isa::Portable).unwrap();
        for &stencil in Stencil::ALL {
            assert!(kernels.f32.fused(stencil).name.contains(&format!("_{stencil}_")));
            assert_eq!(kernels.f32.stencil_gradient(stencil).stencil, stencil);
        }
    }
}
