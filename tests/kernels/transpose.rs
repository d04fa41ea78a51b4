//! Data gradients made of forward kernels: the oracle's, and exactly adjoint.
#![forbid(unsafe_code)]

use crate::common::data::integers;
use crate::common::guard::EDGES;
use crate::common::tolerance::{Case, compare_bits, widened};
use crate::convolution::title;
use crate::operators::convolution::{Convolution, Finish, Weights};
use crate::operators::fill::Fill;
use crate::operators::setup::{Place, run_whole};
use crate::operators::transpose::data_gradient;
use crate::subject::Subject;
use leanresnet::internals::reference::{dense_data_gradient, lean_data_gradient};

pub(crate) fn lean(subject: &Subject) -> Result<(), String> {
    let pixels = subject.tile.pixels;
    let shapes = vec![(1, 1, 3), (3, 5, 17), (2, pixels, 33), (5, 1, 32), (1, pixels + 1, 40), (6, 4, 67)];
    for (index, shape) in shapes.into_iter().enumerate() {
        for fill in [Fill::Exact, Fill::Uniform] {
            proof(subject, &Convolution::lean(subject.stencil(), shape, Finish::NONE, fill, index as u64), fill)?;
        }
    }
    Ok(())
}

/// All kernels and strides; images whose last rows and columns no output reads, and images smaller than the stride.
pub(crate) fn dense(subject: &Subject) -> Result<(), String> {
    let wide = subject.tile.pixels + 2;
    let images = [(1, 1), (2, 3), (5, 4), (7, 9), (3, wide), (8, 8)];
    let mut list = Vec::new();
    for side in [1, 3, 7] {
        for stride in [1, 2, 4] {
            list.extend(images.map(|image| ((side, stride), image)));
        }
    }
    for (index, (geometry, image)) in list.into_iter().enumerate() {
        let channels = [(3, 5), (33, 4), (1, 17), (40, 1), (5, 33)][index % 5];
        for fill in [Fill::Exact, Fill::Uniform] {
            proof(subject, &Convolution::dense(geometry, image, channels, Finish::NONE, fill, index as u64), fill)?;
        }
    }
    Ok(())
}

/// The bits of the oracle, and for exact data <L x, y> = <x, L^T y> to the last digit.
fn proof(subject: &Subject, problem: &Convolution, fill: Fill) -> Result<(), String> {
    // Small beside the weights, since more terms may meet at an input than at an output.
    let dy = match fill {
        Fill::Exact => integers(9, problem.output().elements(), 40),
        _ => fill.inputs(9, problem.output().elements(), problem.terms()),
    };
    let expected = match &problem.weights {
        Weights::Lean(_, weights) => lean_data_gradient(&dy, problem.input, weights),
        Weights::Dense(weights) => dense_data_gradient(&dy, problem.input, weights),
    };
    let shape = [problem.input.h, problem.input.w, problem.input.c];
    for edge in EDGES {
        let actual = data_gradient(subject.kernels, problem, &dy, edge)?;
        let name = format!("transpose of {}", title(subject, problem));
        if fill == Fill::Exact || subject.is_fused {
            compare_bits(Case { kernel: &name, shape: &shape }, &actual, &expected)?;
        }
        if fill == Fill::Exact {
            let mut unbiased = problem.clone();
            match &mut unbiased.weights {
                Weights::Lean(_, weights) => weights.bias.fill(0.0),
                Weights::Dense(weights) => weights.bias.fill(0.0),
            }
            let y = run_whole(subject.convolution(), &unbiased, &Place::number(0))?;
            let (left, right) = (inner(&y, &dy), inner(&problem.x, &actual));
            if left != right {
                return Err(format!("{name}: <L x, y> = {left}, <x, L' y> = {right}"));
            }
        }
    }
    Ok(())
}

/// The inner product, exact below 2^53.
fn inner(a: &[f32], b: &[f32]) -> f64 {
    widened(a).iter().zip(widened(b)).map(|(a, b)| a * b).sum()
}
