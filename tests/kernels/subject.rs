//! The kernel that a trial is about.
#![forbid(unsafe_code)]

use crate::common::shapes::Tile;
use crate::generator::isa;
use crate::generator::name;
use crate::generator::registry::Row;
use crate::generator::template;
use crate::operators::has_fused_multiply_add;
use leanresnet::internals::compiled;
use leanresnet::internals::dispatch::{Kernels, KernelsOf};
use leanresnet::internals::kernel::conv::ConvKernel;
use leanresnet::internals::kernel::element::Element;
use leanresnet::{Isa, Stencil};

/// A kernel with what the tests must know of it.
#[derive(Clone)]
pub(crate) struct Subject {
    /// The registry's name.
    pub(crate) name: String,
    pub(crate) op: &'static str,
    pub(crate) dtype: &'static str,
    pub(crate) kernels: &'static Kernels,
    pub(crate) stencil: Option<Stencil>,
    /// Boundaries that shapes must lie around.
    pub(crate) tile: Tile,
    /// Whether multiplication and addition are rounded once, so that the bits are those of the oracle.
    pub(crate) is_fused: bool,
}

impl Subject {
    /// The kernel of a registry row, or why it cannot run here.
    pub(crate) fn of_row(row: &'static Row) -> Result<Self, String> {
        let name = name::format(row);
        if !compiled().any(|(_, compiled)| compiled == name) {
            return Err(format!("{name} was not compiled"));
        }
        let lanes = isa::isa(row.isa).ok_or("unknown instruction set")?.lanes;
        let (rows, columns) = row.tile;
        let tile = Tile { lanes, pixels: rows.max(1), channels: columns };
        let mut subject = Self::new(name, (row.op, row.dtype), row.isa.parse().map_err(text)?, row.spatial, tile)?;
        if subject.dispatched().is_some_and(|dispatched| dispatched != subject.name) {
            // A candidate: the kernels of its tier with itself in force.
            let kernels = Kernels::with_row(subject.kernels.isa, &subject.name).map_err(text)?.ok_or("it was not compiled")?;
            subject.kernels = Box::leak(Box::new(kernels));
        }
        match subject.dispatched() {
            Some(dispatched) if dispatched != subject.name => {
                Err(format!("{dispatched} is dispatched instead of {}", subject.name))
            }
            _ if template::wide_tile(row) != (0, 0) => Ok(subject.in_wide_tiles(false)),
            _ => Ok(subject),
        }
    }

    /// The kernel of a row in its tiles of two panels, which it has.
    pub(crate) fn of_wide_tiles(row: &'static Row) -> Result<Self, String> {
        let (rows, channels) = template::wide_tile(row);
        let subject = Self::of_row(row)?;
        // From two whole tiles on, calls of every number of pixels.
        let tile = Tile { pixels: 3 * rows, channels, ..subject.tile };
        Ok(Subject { tile, ..subject }.in_wide_tiles(true))
    }

    fn in_wide_tiles(self, is_wide: bool) -> Self {
        Subject { kernels: Box::leak(Box::new(self.kernels.in_wide_tiles(is_wide))), ..self }
    }

    /// The portable code for an operator.
    pub(crate) fn portable(op: &'static str, dtype: &'static str, spatial: Option<&'static str>) -> Result<Self, String> {
        let tile = Tile { lanes: 8, pixels: 2, channels: 32 };
        let name = format!("lean_{op}_{dtype}_portable{}", spatial.map_or(String::new(), |spatial| format!("_{spatial}_s1")));
        Self::new(name, (op, dtype), Isa::Portable, spatial, tile)
    }

    fn new(
        name: String,
        (op, dtype): (&'static str, &'static str),
        isa: Isa,
        spatial: Option<&str>,
        tile: Tile,
    ) -> Result<Self, String> {
        let stencil = spatial.map(str::parse).transpose().map_err(text)?;
        let kernels = match dtype {
            "bf16x3" => Kernels::of_three_products(isa).map_err(text)?.ok_or("no kernels of three products")?,
            _ => Kernels::of(isa).map_err(text)?,
        };
        let is_fused = has_fused_multiply_add(isa) && dtype != "bf16x3";
        Ok(Subject { name, op, dtype, kernels, stencil, tile, is_fused })
    }

    /// The name of the kernel that the table holds for this operator, if it says.
    fn dispatched(&self) -> Option<&'static str> {
        match (self.op, self.stencil) {
            _ if self.dtype == "bf16" => self.dispatched_of(&self.kernels.bf16),
            ("grouped", _) => Some(self.kernels.grouped(Stencil::Cross5).name),
            _ => self.dispatched_of(&self.kernels.f32),
        }
    }

    fn dispatched_of<T: Element>(&self, kernels: &KernelsOf<T>) -> Option<&'static str> {
        match (self.op, self.stencil) {
            ("fused", Some(stencil)) => Some(kernels.fused(stencil).name),
            ("dense", _) => Some(kernels.dense.name),
            ("weightgradient", _) => Some(kernels.weight_gradient.name),
            ("stencilgradient", Some(stencil)) => Some(kernels.stencil_gradient(stencil).name),
            _ => None,
        }
    }

    /// The stencil that the kernel is specialised for.
    pub(crate) fn stencil(&self) -> Stencil {
        self.stencil.expect("a kernel with a stencil")
    }

    /// The convolution kernel.
    pub(crate) fn convolution(&self) -> ConvKernel {
        match self.stencil {
            Some(stencil) => self.kernels.f32.fused(stencil),
            None => self.kernels.f32.dense,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn text(error: leanresnet::Error) -> String {
    error.to_string()
}
