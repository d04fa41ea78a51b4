//! Which kernel runs an operator on an instruction set: the compiled rows over the portable code, which is complete.
#![forbid(unsafe_code)]

use crate::error::Result;
use crate::ffi::{self, Function};
use crate::isa::Isa;
use crate::kernel::conv::ConvKernel;
use crate::kernel::element::Element;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::gradient::{StencilGradientKernel, WeightGradientKernel};
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

/// Puts a compiled convolution in force: in the place of its stencil, or in that of kernels without one.
fn put_convolution<T: Element>(fused: &mut [ConvKernel<T>; STENCILS], other: &mut ConvKernel<T>, row: &ffi::Kernel) {
    let Function::Conv(function) = row.function else { return };
    let stencil = Stencil::ALL.iter().copied().find(|stencil| Some(stencil.name()) == row.spatial);
    let place = stencil.map_or(other, |stencil| &mut fused[stencil as usize]);
    *place = ConvKernel::native(row.name, stencil, row.tile.0, function);
}

/// The kernels of one instruction set. Every operator has one: where no row was compiled, the portable code.
#[derive(Clone)]
pub struct Kernels {
    /// The tier whose rows these are.
    pub isa: Isa,
    fused: [ConvKernel; STENCILS],
    grouped: ConvKernel,
    stencil_gradient: [StencilGradientKernel; STENCILS],
    /// Dense convolutions.
    pub dense: ConvKernel,
    /// Gradients of matrices.
    pub weight_gradient: WeightGradientKernel,
    /// Everything that works value by value.
    pub elementwise: Elementwise,
    /// Convolutions of bf16.
    #[cfg(feature = "bf16")]
    pub bf16: Bf16Kernels,
}

/// The convolutions of bf16 of one instruction set.
#[cfg(feature = "bf16")]
#[derive(Clone)]
pub struct Bf16Kernels {
    fused: [ConvKernel<bf16>; STENCILS],
    /// Dense convolutions.
    pub dense: ConvKernel<bf16>,
}

#[cfg(feature = "bf16")]
impl Bf16Kernels {
    /// The fused kernel for a stencil.
    pub fn fused(&self, stencil: Stencil) -> ConvKernel<bf16> {
        self.fused[stencil as usize]
    }

    fn portable() -> Self {
        let dense = ConvKernel::portable("lean_dense_bf16_portable_1x32", None);
        Bf16Kernels { fused: portable_fused!("bf16"), dense }
    }
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

    /// The fused kernel for a stencil.
    pub fn fused(&self, stencil: Stencil) -> ConvKernel {
        self.fused[stencil as usize]
    }

    /// The kernel for a stencil whose taps read groups of channels.
    pub fn grouped(&self, stencil: Stencil) -> ConvKernel {
        self.grouped.for_groups(stencil)
    }

    /// The kernel for lean or depth-wise weights with a stencil, of any group size.
    pub(crate) fn lean(&self, stencil: Stencil, group_size: usize) -> ConvKernel {
        if group_size > 1 { self.grouped(stencil) } else { self.fused(stencil) }
    }

    /// The kernel for the gradient of a stencil.
    pub fn stencil_gradient(&self, stencil: Stencil) -> StencilGradientKernel {
        self.stencil_gradient[stencil as usize]
    }

    fn portable() -> Self {
        let gradient = |index: usize| StencilGradientKernel {
            name: "lean_stencilgradient_f32_portable_v32",
            native: None,
            stencil: Stencil::ALL[index],
        };
        Kernels {
            isa: Isa::Portable,
            fused: portable_fused!("f32"),
            grouped: ConvKernel::portable("lean_grouped_f32_portable_1x32", None),
            stencil_gradient: std::array::from_fn(gradient),
            dense: ConvKernel::portable("lean_dense_f32_portable_1x32", None),
            weight_gradient: WeightGradientKernel { name: "lean_weightgradient_f32_portable_1x32", native: None },
            elementwise: Elementwise::default(),
            #[cfg(feature = "bf16")]
            bf16: Bf16Kernels::portable(),
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

    /// The rows of one tier over the portable code; `isa` is available.
    fn overlay(isa: Isa) -> Self {
        let mut kernels = Kernels { isa, ..Kernels::portable() };
        // In reverse, so that of several rows for one operator the registry's first one stays.
        ffi::KERNELS.iter().rev().filter(|row| [isa, isa.base()].contains(&row.isa)).for_each(|row| kernels.put(row));
        kernels
    }

    /// Puts a compiled row of this tier in force.
    fn put(&mut self, row: &ffi::Kernel) {
        if row.dtype != "f32" {
            #[cfg(feature = "bf16")]
            put_convolution(&mut self.bf16.fused, &mut self.bf16.dense, row);
            return;
        }
        let stencil = Stencil::ALL.iter().position(|stencil| Some(stencil.name()) == row.spatial);
        match (row.function, stencil) {
            (Function::Conv(_), _) => {
                let other = if row.op == "grouped" { &mut self.grouped } else { &mut self.dense };
                put_convolution(&mut self.fused, other, row);
            }
            (Function::WeightGradient(function), _) => {
                self.weight_gradient = WeightGradientKernel { name: row.name, native: Some(function) };
            }
            (Function::StencilGradient(function), Some(index)) => {
                let stencil = Stencil::ALL[index];
                self.stencil_gradient[index] = StencilGradientKernel { name: row.name, native: Some(function), stencil };
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

#[cfg(test)]
mod tests {
    use super::*;

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
                let reached = match row.function {
                    #[cfg(feature = "bf16")]
                    Function::Conv(_) if row.dtype == "bf16" => {
                        stencil.map_or(kernels.bf16.dense.name, |stencil| kernels.bf16.fused(stencil).name) == row.name
                    }
                    Function::Conv(_) if row.op == "grouped" => kernels.grouped.name == row.name,
                    Function::Conv(_) => stencil.map_or(kernels.dense.name, |stencil| kernels.fused(stencil).name) == row.name,
                    Function::WeightGradient(_) => kernels.weight_gradient.name == row.name,
                    Function::StencilGradient(_) => kernels.stencil_gradient(stencil.unwrap()).name == row.name,
                    Function::Elementwise(_) => kernels.elementwise.slot(row.op).is_some_and(|slot| slot.is_some()),
                };
                assert!(reached, "{} is never used", row.name);
            }
        }
    }

    #[test]
    fn every_stencil_has_kernels() {
        let kernels = Kernels::of(Isa::Portable).unwrap();
        for &stencil in Stencil::ALL {
            assert!(kernels.fused(stencil).name.contains(&format!("_{stencil}_")));
            assert_eq!(kernels.stencil_gradient(stencil).stencil, stencil);
        }
    }
}
