//! Rings of rows: convolutions band by band, and two stages with a ring between them, as segments run.
#![forbid(unsafe_code)]

use crate::common::guard::{EDGES, Edge};
use crate::common::shapes::channel_counts;
use crate::convolution::compare;
use crate::operators::convolution::{Added, Convolution, Finish};
use crate::operators::fill::Fill;
use crate::operators::memory::{Gaps, Rows};
use crate::operators::setup::{Place, padded_band, run_whole};
use crate::subject::Subject;
use leanresnet::internals::kernel::conv::ConvCall;
use leanresnet::internals::kernel::rows::{Epilogue, Residual, Source};
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::pack::PackedWeights;
use std::ops::Range;

/// Images with their channels, wide and narrow ones for tiles that end inside rows and tiles that hold several rows.
fn shapes(subject: &Subject) -> Vec<(usize, usize, usize)> {
    let tile = subject.tile;
    let counts = channel_counts(tile);
    let sizes = [(1, 5), (2, 1), (3, tile.pixels + 1), (7, 2), (8, 3), (11, 1), (9, tile.pixels), (13, 5)];
    let shape = |(index, (h, w)): (usize, (usize, usize))| [0, 3, 5].map(|shift| (h, w, counts[(index + shift) % counts.len()]));
    sizes.into_iter().enumerate().flat_map(shape).collect()
}

/// The bands of `size` rows of an image.
fn bands(height: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..height).step_by(size).map(move |start| start..(start + size).min(height))
}

/// A call at stride 1, whole panels, no epilogue.
fn call<'a>(weights: &'a PackedWeights, x: Source<'a>, y: Target<'a>, rows: Range<usize>, size: (usize, usize)) -> ConvCall<'a> {
    ConvCall { rows, ..ConvCall::new(weights, x, y, size) }
}

/// Input, output and residual in rings that hold no more rows than a band needs, fed row by row: the bits of the whole image.
pub(crate) fn rings(subject: &Subject) -> Result<(), String> {
    let (kernel, radius) = (subject.convolution(), subject.stencil().radius());
    for (index, (h, w, c)) in shapes(subject).into_iter().enumerate() {
        // Without scale, since the weights' scale is already covered; with and without residual and ReLU.
        let finish = Finish { scale: false, added: [Added::Nothing, Added::Rows][index % 2], relu: index % 4 > 1 };
        let problem = Convolution::lean(subject.stencil(), (h, w, c), finish, Fill::Uniform, index as u64);
        let expected = run_whole(kernel, &problem, &Place::number(0))?;
        let weights = kernel.packed(problem.packed());
        for (size, spare) in [(1, 0), (2, 0), (3, 1), (4, 3), (h, 0)] {
            let edge = EDGES[(size + index) % 2];
            let gap = Gaps { row: [0, 0, 3][(index + size) % 3], ..Gaps::default() };
            let ring = |rows: usize| Rows::new(gap.layout(rows, w, c), w, c, edge);
            let (mut x, mut y, mut residual) = (ring(size + 2 * radius + spare), ring(size + spare), ring(size));
            let mut actual = Vec::new();
            let mut loaded = 0;
            for band in bands(h, size) {
                let needed = (band.end + radius).min(h);
                for row in loaded..needed {
                    x.set_row(row, &problem.x[row * w * c..][..w * c]);
                }
                loaded = needed;
                if let Some(values) = &problem.residual {
                    band.clone().for_each(|row| residual.set_row(row, &values[row * w * c..][..w * c]));
                }
                kernel.run(&mut ConvCall {
                    residual: if problem.residual.is_some() { Residual::Rows(residual.source()) } else { Residual::None },
                    epilogue: Epilogue { relu: finish.relu, from_output: false },
                    ..call(&weights, x.source(), y.target(), band.clone(), (h, w))
                });
                actual.extend(band.flat_map(|row| y.row(row)));
            }
            [&x, &y, &residual].into_iter().try_for_each(Rows::check)?;
            compare(subject, &problem, &actual, &expected).map_err(|message| format!("bands of {size}: {message}"))?;
        }
    }
    Ok(())
}

/// L1, ReLU, L2, added in place to the image that L1 reads: a lag of the stencil's radius and a ring of the middle rows suffice, and
/// the bits are those of two whole convolutions.
pub(crate) fn segment(subject: &Subject) -> Result<(), String> {
    let kernel = subject.convolution();
    for (index, shape) in shapes(subject).into_iter().enumerate() {
        let relu = Finish { relu: true, ..Finish::NONE };
        let first = Convolution::lean(subject.stencil(), shape, relu, Fill::Uniform, index as u64);
        let finish = Finish { scale: index % 2 == 1, added: Added::Rows, relu: index % 3 == 1 };
        let mut second = Convolution::lean(subject.stencil(), shape, finish, Fill::Uniform, index as u64 + 100);
        second.x = run_whole(subject.convolution(), &first, &Place::number(0))?;
        second.residual = Some(first.x.clone());
        let expected = run_whole(subject.convolution(), &second, &Place::number(0))?;
        let (first_weights, second_weights) = (kernel.packed(first.packed()), kernel.packed(second.packed()));
        for size in [1, 2, 3, 5, shape.0] {
            let actual = in_place(subject, &first, (&first_weights, &second_weights), (size, finish.relu), EDGES[index % 2])?;
            compare(subject, &second, &actual, &expected).map_err(|message| format!("bands of {size}: {message}"))?;
        }
    }
    Ok(())
}

/// x + L2 relu(L1 x) in bands of `size` rows.
fn in_place(
    subject: &Subject,
    first: &Convolution,
    (first_weights, second_weights): (&PackedWeights, &PackedWeights),
    (size, relu): (usize, bool),
    edge: Edge,
) -> Result<Vec<f32>, String> {
    let (h, w, c) = (first.input.h, first.input.w, first.input.c);
    let kernel = subject.convolution();
    let mut image = Rows::holding(&first.x, Gaps::default().layout(h, w, c), w, c, edge);
    let radius = subject.stencil().radius();
    let mut middle = Rows::new(Gaps::default().layout(size + 2 * radius, w, c), w, c, edge);
    let mut computed = 0;
    for band in bands(h, size) {
        let needed = (band.end + radius).min(h);
        kernel.run(&mut ConvCall {
            epilogue: Epilogue { relu: true, from_output: false },
            ..call(first_weights, image.source(), middle.target(), computed..needed, (h, w))
        });
        computed = needed;
        kernel.run(&mut ConvCall {
            residual: Residual::Output,
            epilogue: Epilogue { relu, from_output: false },
            ..call(second_weights, middle.source(), image.target(), band, (h, w))
        });
    }
    image.check()?;
    middle.check()?;
    Ok(image.rows(h))
}

/// A dense kernel over a ring of a padded band, whose rows wrap around between the kernel's rows too.
pub(crate) fn dense(subject: &Subject) -> Result<(), String> {
    let kernel = subject.convolution();
    let geometries =
        [((3, 1), (9, 7)), ((3, 2), (12, 5)), ((7, 1), (8, 9)), ((7, 4), (17, 9)), ((1, 1), (7, 3)), ((1, 2), (9, 4))];
    for (index, (geometry, image)) in geometries.into_iter().enumerate() {
        let finish = Finish { relu: index % 2 == 0, ..Finish::NONE };
        let problem = Convolution::dense(geometry, image, (3, subject.tile.channels + 1), finish, Fill::Uniform, index as u64);
        let expected = run_whole(kernel, &problem, &Place::number(0))?;
        let ((side, stride), output, inputs) = (geometry, problem.output(), problem.input.c);
        let padding = (side as isize - 1) / 2;
        let (height, width) = ((output.h - 1) * stride + side, (output.w - 1) * stride + side);
        let band = padded_band(&problem.x, problem.input, (height, width), (-padding, -padding));
        let weights = kernel.packed(problem.packed());
        for (size, spare) in [(1, 0), (2, 0), (2, 1), (3, 2)] {
            let ring = |rows: usize, width: usize, channels: usize| {
                Rows::new(Gaps::default().layout(rows, width, channels), width, channels, EDGES[index % 2])
            };
            let mut x = ring((size - 1) * stride + side + spare, width, inputs);
            let mut y = ring(size, output.w, output.c);
            let mut actual = Vec::new();
            let mut loaded = 0;
            for rows in bands(output.h, size) {
                let needed = (rows.end - 1) * stride + side;
                for row in loaded..needed {
                    x.set_row(row, &band[row * width * inputs..][..width * inputs]);
                }
                loaded = needed;
                let whole = call(&weights, x.source(), y.target(), rows.clone(), (output.h, output.w));
                kernel.run(&mut ConvCall { epilogue: Epilogue { relu: finish.relu, from_output: false }, stride, ..whole });
                actual.extend(rows.flat_map(|row| y.row(row)));
            }
            x.check()?;
            y.check()?;
            compare(subject, &problem, &actual, &expected).map_err(|message| format!("bands of {size}: {message}"))?;
        }
    }
    Ok(())
}
