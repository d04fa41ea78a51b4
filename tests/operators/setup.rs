//! A convolution's tensors in guarded memory, ready for calls of a kernel.
#![forbid(unsafe_code)]

use super::convolution::{Added, Convolution, Weights};
use super::memory::{Gaps, Rows};
use super::unmapped;
use crate::common::guard::Edge;
use leanresnet::internals::kernel::conv::{ConvCall, ConvKernel};
use leanresnet::internals::kernel::rows::{Epilogue, Residual};
use leanresnet::internals::kernel::upcoming::{Ahead, UPCOMING};
use leanresnet::internals::pack::{PackedWeights, panels};
use leanresnet::internals::reference::Shape;
use std::ops::Range;

/// Where the tensors of a convolution lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The side on which every tensor touches memory without access.
    pub(crate) edge: Edge,
    /// Between the values of the input. A kernel with several columns reads them side by side: no gap after a pixel.
    pub(crate) x: Gaps,
    pub(crate) y: Gaps,
    pub(crate) residual: Gaps,
}

impl Place {
    /// Counts through memory without and with gaps, at both edges, again and again.
    pub(crate) fn number(index: usize) -> Self {
        let edge = if index.is_multiple_of(2) { Edge::End } else { Edge::Start };
        let flat = Place { edge, x: Gaps::default(), y: Gaps::default(), residual: Gaps::default() };
        match index / 2 % 4 {
            0 => flat,
            1 => Place {
                x: Gaps { before: 3, pixel: 0, row: 5 },
                y: Gaps { before: 1, pixel: 2, row: 0 },
                residual: Gaps { before: 0, pixel: 1, row: 7 },
                ..flat
            },
            2 => Place { y: Gaps { before: 0, pixel: 0, row: 1 }, ..flat },
            _ => Place { residual: Gaps { before: 2, pixel: 3, row: 1 }, x: Gaps { before: 1, pixel: 0, row: 0 }, ..flat },
        }
    }
}

/// A part of a convolution that one call computes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) rows: Range<usize>,
    pub(crate) panels: Range<usize>,
    pub(crate) k: Range<usize>,
}

/// A convolution's weights and tensors as kernels take them.
pub(crate) struct Setup<'a> {
    kernel: ConvKernel,
    problem: &'a Convolution,
    weights: PackedWeights,
    x: Rows,
    y: Rows,
    residual: Option<Rows>,
}

impl<'a> Setup<'a> {
    /// Everything in place; the output holds canaries, or the residual where that is added in place.
    pub(crate) fn new(kernel: ConvKernel, problem: &'a Convolution, place: &Place) -> Self {
        let output = problem.output();
        let (y, residual) = {
            let rows = |gaps: Gaps| gaps.layout(output.h, output.w, output.c);
            let holding = |gaps| {
                let values = problem.residual.as_deref().expect("an epilogue that adds");
                Rows::holding(values, rows(gaps), output.w, output.c, place.edge)
            };
            match problem.finish.added {
                Added::Nothing => (Rows::new(rows(place.y), output.w, output.c, place.edge), None),
                Added::Rows => (Rows::new(rows(place.y), output.w, output.c, place.edge), Some(holding(place.residual))),
                Added::InPlace => (holding(place.y), None),
            }
        };
        Setup { kernel, problem, weights: kernel.packed(problem.packed()), x: input(problem, place), y, residual }
    }

    /// The part that is everything.
    pub(crate) fn whole(&self) -> Part {
        let output = self.problem.output();
        Part { rows: 0..output.h, panels: 0..panels(output.c), k: 0..self.weights.row_length() }
    }

    /// Runs the kernel on one part. Of several ranges of k, all but the first start from the output, and all but the last leave
    /// the epilogue out.
    pub(crate) fn run(&mut self, part: &Part) {
        let (first, last) = (part.k.start == 0, part.k.end == self.weights.row_length());
        let output = self.problem.output();
        let residual = match (self.problem.finish.added, &self.residual) {
            (Added::Rows, Some(rows)) if last => Residual::Rows(rows.source()),
            (Added::InPlace, _) => Residual::Output,
            _ => Residual::None,
        };
        self.kernel.run(&mut ConvCall {
            weights: &self.weights,
            x: self.x.source(),
            y: self.y.target(),
            residual,
            epilogue: Epilogue { relu: self.problem.finish.relu && last, from_output: !first },
            rows: part.rows.clone(),
            height: output.h,
            width: output.w,
            input: (self.problem.input.h, self.problem.input.w),
            stride: self.problem.stride,
            panels: part.panels.clone(),
            k: part.k.clone(),
            ahead: Ahead { output: true, upcoming: [unmapped(); UPCOMING] },
        });
    }

    /// The output, after a look at the memory beside all tensors.
    pub(crate) fn finish(&self) -> Result<Vec<f32>, String> {
        for rows in [Some(&self.x), Some(&self.y), self.residual.as_ref()].into_iter().flatten() {
            rows.check().map_err(|message| format!("{}: {message}", self.problem.describe()))?;
        }
        Ok(self.y.rows(self.problem.output().h))
    }
}

/// The image, or for a dense kernel the band of it with zeros around that the output needs and no more.
fn input(problem: &Convolution, place: &Place) -> Rows {
    let Shape { h, w, c, .. } = problem.input;
    if matches!(problem.weights, Weights::Lean(..)) {
        return Rows::holding(&problem.x, place.x.layout(h, w, c), w, c, place.edge);
    }
    let (kernel, stride) = (problem.side(), problem.stride);
    let (output, padding) = (problem.output(), (kernel - 1) / 2);
    let (height, width) = ((output.h - 1) * stride + kernel, (output.w - 1) * stride + kernel);
    let band = padded_band(&problem.x, problem.input, (height, width), (-(padding as isize), -(padding as isize)));
    Rows::holding(&band, place.x.layout(height, width, c), width, c, place.edge)
}

/// `height` x `width` pixels of an image from (row, column) on, zeros where there is no image.
pub(crate) fn padded_band(x: &[f32], image: Shape, (height, width): (usize, usize), (row, column): (isize, isize)) -> Vec<f32> {
    let mut band = vec![0.0; height * width * image.c];
    for (at, pixel) in band.chunks_exact_mut(image.c).enumerate() {
        let (h, w) = ((at / width) as isize + row, (at % width) as isize + column);
        if (0..image.h as isize).contains(&h) && (0..image.w as isize).contains(&w) {
            let from = image.index(0, h as usize, w as usize, 0);
            pixel.copy_from_slice(&x[from..from + image.c]);
        }
    }
    band
}

/// Runs the whole convolution in one call.
pub(crate) fn run_whole(kernel: ConvKernel, problem: &Convolution, place: &Place) -> Result<Vec<f32>, String> {
    let mut setup = Setup::new(kernel, problem, place);
    let whole = setup.whole();
    setup.run(&whole);
    setup.finish()
}
