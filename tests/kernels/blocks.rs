//! Parts of a convolution: ranges of rows, panels and k give the bits of one whole call.
#![forbid(unsafe_code)]

use crate::common::guard::{CANARY, EDGES, GuardedBuffer};
use crate::common::tolerance::{Case, compare_bits};
use crate::convolution::compare;
use crate::operators::convolution::{Added, Convolution, Finish, Weights};
use crate::operators::fill::Fill;
use crate::operators::memory::Gaps;
use crate::operators::setup::{Part, Place, Setup, run_whole};
use crate::subject::Subject;
use leanresnet::Stencil;
use leanresnet::internals::kernel::conv::ConvCall;
use leanresnet::internals::kernel::rows::{Epilogue, Layout, Residual, Source};
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::pack::panels;
use std::ops::Range;

/// Where a range of `length` is cut, in two ways and not at all.
fn cuts(length: usize) -> [Vec<Range<usize>>; 3] {
    let third = length.div_ceil(3).max(1);
    let pieces = |size: usize| (0..length).step_by(size).map(|start| start..(start + size).min(length)).collect();
    [pieces(length.max(1)), pieces(third), pieces((length / 2).max(1))]
}

pub(crate) fn lean(subject: &Subject) -> Result<(), String> {
    let pixels = subject.tile.pixels;
    let shapes = vec![(3, 5, 67), (4, pixels + 1, 33), (6, 2, 32), (5, 1, 9), (2, pixels, 70), (1, 1, 40)];
    for (index, shape) in shapes.into_iter().enumerate() {
        // The residual cannot be in place where the output holds a part of the sum; the scale comes with the last part.
        for finish in [Finish::NONE, Finish { scale: false, added: Added::Rows, relu: true }] {
            let problem = Convolution::lean(subject.stencil(), shape, finish, Fill::Uniform, index as u64);
            in_parts(subject, &problem, true)?;
        }
        for finish in [Finish::number(11), Finish::number(5)] {
            let problem = Convolution::lean(subject.stencil(), shape, finish, Fill::Uniform, index as u64);
            in_parts(subject, &problem, false)?;
        }
    }
    Ok(())
}

pub(crate) fn grouped(subject: &Subject) -> Result<(), String> {
    for (index, (group_size, channels)) in [(2, 34), (4, 68), (8, 40), (16, 48), (32, 96)].into_iter().enumerate() {
        for (finish, with_k) in [(Finish { scale: false, added: Added::Rows, relu: true }, true), (Finish::number(11), false)] {
            let (stencil, shape) = (Stencil::ALL[index], (4, subject.tile.pixels + 1, channels));
            let problem = Convolution::grouped(stencil, (group_size, 1), shape, finish, Fill::Uniform, index as u64);
            in_parts(subject, &problem, with_k)?;
        }
    }
    Ok(())
}

pub(crate) fn dense(subject: &Subject) -> Result<(), String> {
    let wide = subject.tile.pixels + 1;
    let problems =
        [((1, 1), (4, wide), (67, 33)), ((1, 2), (7, 5), (9, 70)), ((3, 1), (5, 4), (5, 40)), ((7, 4), (9, wide), (3, 64))];
    for (index, (geometry, image, channels)) in problems.into_iter().enumerate() {
        let fill = if geometry.0 == 1 { Fill::Uniform } else { Fill::Exact };
        for (finish, with_k) in [(Finish { scale: false, added: Added::Rows, relu: true }, true), (Finish::number(11), false)] {
            let problem = Convolution::dense(geometry, image, channels, finish, fill, index as u64);
            in_parts(subject, &problem, with_k)?;
        }
    }
    Ok(())
}

/// All combinations of cuts. A kernel of several rows sums in another order when k is cut: exact data then.
fn in_parts(subject: &Subject, problem: &Convolution, with_k: bool) -> Result<(), String> {
    let kernel = problem.kernel(subject.kernels);
    let whole = run_whole(kernel, problem, &Place::number(0))?;
    let row_length = match &problem.weights {
        Weights::Lean(..) => problem.input.c,
        Weights::Dense(weights) => weights.kernel * weights.inputs,
    };
    // Of three products, a kernel adds up all inputs in one call.
    let k_cuts = if with_k && subject.dtype == "f32" { cuts(row_length).to_vec() } else { vec![vec![0..row_length]] };
    let output = problem.output();
    for (index, rows) in cuts(output.h).iter().enumerate() {
        for panels in cuts(panels(output.c)) {
            for ks in &k_cuts {
                let mut setup = Setup::new(kernel, problem, &Place::number(index));
                for (rows, panels) in rows.iter().rev().flat_map(|rows| panels.iter().map(move |panels| (rows, panels))) {
                    for k in ks {
                        setup.run(&Part { rows: rows.clone(), panels: panels.clone(), k: k.clone() });
                    }
                }
                compare(subject, problem, &setup.finish()?, &whole)
                    .map_err(|message| format!("rows {rows:?}, panels {panels:?}, k {ks:?}: {message}"))?;
            }
        }
    }
    only_the_part_is_written(subject, problem)
}

/// One part in the middle: everything around it keeps what it held.
fn only_the_part_is_written(subject: &Subject, problem: &Convolution) -> Result<(), String> {
    let output = problem.output();
    let kernel = problem.kernel(subject.kernels);
    let mut setup = Setup::new(kernel, problem, &Place::number(1));
    let before = setup.finish()?;
    let whole = setup.whole();
    let last_panel = whole.panels.end - 1;
    let rows = output.h / 2..output.h / 2 + 1;
    setup.run(&Part { rows: rows.clone(), panels: last_panel..last_panel + 1, ..whole.clone() });
    setup.run(&Part { rows: rows.end..rows.end, ..whole.clone() });
    setup.run(&Part { rows: rows.clone(), panels: 0..0, ..whole });
    let expected = run_whole(kernel, problem, &Place::number(1))?;
    for (at, after) in setup.finish()?.iter().enumerate() {
        let (row, channel) = (at / (output.w * output.c), at % output.c);
        let is_part = rows.contains(&row) && channel >= last_panel * 32;
        let should = if is_part { expected[at] } else { before[at] };
        if after.to_bits() != should.to_bits() {
            let held = if should.to_bits() == CANARY { "a canary".into() } else { should.to_string() };
            return Err(format!("{}: row {row}, channel {channel} should hold {held}, not {after}", subject.name));
        }
    }
    Ok(())
}

/// A 1x1 kernel may read pixels that lie apart: one group of channels of a wider tensor.
pub(crate) fn pixels_apart(subject: &Subject) -> Result<(), String> {
    let apart = Gaps { before: 2, pixel: 3, row: 4 };
    for (index, gaps) in [Gaps { before: 1, ..Gaps::default() }, apart, Gaps { row: 0, ..apart }].into_iter().enumerate() {
        for (stride, image) in [(1, (3, subject.tile.pixels + 2)), (1, (5, 3)), (2, (5, 9))] {
            let problem = Convolution::dense((1, stride), image, (6, 35), Finish::number(index + 4), Fill::Uniform, 7);
            let flat = run_whole(subject.convolution(), &problem, &Place::number(0))?;
            for base in [0, 1, 2, 7] {
                let place = Place { x: gaps, ..Place::number(base) };
                let actual = run_whole(subject.convolution(), &problem, &place)?;
                let output = problem.output();
                compare_bits(Case { kernel: &subject.name, shape: &[output.h, output.w, output.c] }, &actual, &flat)?;
            }
        }
    }
    Ok(())
}

/// Input, output and residual as slices that begin with the first row they are needed for: the bits of whole tensors.
pub(crate) fn slices(subject: &Subject) -> Result<(), String> {
    let kernel = subject.convolution();
    let (h, w, c) = (7, subject.tile.pixels / 2 + 2, subject.tile.channels + 1);
    let added = Finish { scale: true, added: Added::Rows, relu: true };
    let problem = match subject.stencil {
        Some(stencil) => Convolution::lean(stencil, (h, w, c), added, Fill::Uniform, 3),
        None => Convolution::dense((1, 1), (h, w), (6, c), added, Fill::Uniform, 3),
    };
    let expected = run_whole(kernel, &problem, &Place::number(0))?;
    let halo = subject.stencil.map_or(0, Stencil::radius);
    let weights = kernel.packed(problem.packed());
    let residual = problem.residual.as_deref().unwrap_or_default();
    for rows in (0..h).flat_map(|start| (start + 1..=h).map(move |end| start..end)) {
        for edge in EDGES {
            let inputs = problem.input.c;
            let needed = rows.start.saturating_sub(halo)..(rows.end + halo).min(h);
            let x = GuardedBuffer::from_slice(&problem.x[needed.start * w * inputs..needed.end * w * inputs], edge);
            let residual = GuardedBuffer::from_slice(&residual[rows.start * w * c..rows.end * w * c], edge);
            let mut y = GuardedBuffer::new(rows.len() * w * c, edge);
            let output = Layout::image(h, w, c).starting_at(rows.start);
            let source = Source { data: &x, layout: Layout::image(h, w, inputs).starting_at(needed.start) };
            let target = Target::new(&mut y, output);
            kernel.run(&mut ConvCall {
                residual: Residual::Rows(Source { data: &residual, layout: output }),
                epilogue: Epilogue { relu: true, from_output: false },
                rows: rows.clone(),
                ..ConvCall::new(&weights, source, target, (h, w))
            });
            [&x, &residual, &y].into_iter().try_for_each(GuardedBuffer::check)?;
            let name = format!("{}: slices of rows {rows:?}", subject.name);
            let part = &expected[rows.start * w * c..rows.end * w * c];
            compare_bits(Case { kernel: &name, shape: &[rows.len(), w, c] }, &y, part)?;
        }
    }
    Ok(())
}
