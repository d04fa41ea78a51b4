//! Laws that hold for any shape, stencil, epilogue and instruction set, tried on random ones. `PROPTEST_CASES` says how many.

mod common;
mod operators;

use common::guard::{EDGES, Edge};
use common::tolerance::{Case, compare_bits, compare_within_bound};
use leanresnet::internals::dispatch::Kernels;
use leanresnet::{Isa, Stencil};
use operators::convolution::{Convolution, Finish, Weights};
use operators::elementwise::{Problem, WORDS};
use operators::fill::{Fill, ROUNDED};
use operators::naive::{Reading, naive};
use operators::setup::{Place, run_whole};
use operators::{gradients, has_fused_multiply_add, transpose};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::slice::from_ref;

/// `normal` cases, or what the environment asks for.
fn cases(normal: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(normal), failure_persistence: None, ..ProptestConfig::default() }
}

fn failed(message: String) -> TestCaseError {
    TestCaseError::fail(message)
}

/// The available tiers that owe each other's bits, then the others.
fn tiers() -> (Vec<&'static Kernels>, Vec<&'static Kernels>) {
    let all = Isa::available().map(|isa| Kernels::of(isa).expect("an available tier"));
    all.partition(|kernels| has_fused_multiply_add(kernels.isa))
}

fn all_tiers() -> impl Iterator<Item = &'static Kernels> {
    let (fused, others) = tiers();
    fused.into_iter().chain(others)
}

fn stencils() -> impl Strategy<Value = Stencil> {
    proptest::sample::select(Stencil::ALL)
}

fn fills() -> impl Strategy<Value = Fill> {
    proptest::sample::select(ROUNDED.to_vec())
}

/// Lean convolutions of images up to 9 x 20 with up to 80 channels.
fn lean(fill: impl Strategy<Value = Fill>, finish: impl Strategy<Value = usize>) -> impl Strategy<Value = Convolution> {
    (stencils(), (1..=9_usize, 1..=20_usize, 1..=80_usize), finish, fill, any::<u64>()).prop_map(
        |(stencil, shape, finish, fill, seed)| Convolution::lean(stencil, shape, Finish::number(finish), fill, seed >> 8),
    )
}

/// Lean convolutions in groups and at strides, of images up to 9 x 20 with up to 96 channels.
fn grouped(fill: impl Strategy<Value = Fill>, finish: impl Strategy<Value = usize>) -> impl Strategy<Value = Convolution> {
    let kind =
        (stencils(), proptest::sample::select(vec![1, 2, 4, 8, 16, 32_usize]), proptest::sample::select(vec![1, 2, 4_usize]));
    (kind, (1..=9_usize, 1..=20_usize, 1..=96_usize), finish, fill, any::<u64>()).prop_map(
        |((stencil, group_size, stride), (h, w, c), finish, fill, seed)| {
            let shape = (h, w, c.div_ceil(group_size) * group_size);
            Convolution::grouped(stencil, (group_size, stride), shape, Finish::number(finish), fill, seed >> 8)
        },
    )
}

/// Dense convolutions of images up to 12 x 12, up to 20 channels to up to 70.
fn dense(fill: impl Strategy<Value = Fill>, finish: impl Strategy<Value = usize>) -> impl Strategy<Value = Convolution> {
    let geometry = (proptest::sample::select(vec![1_usize, 3, 7]), proptest::sample::select(vec![1_usize, 2, 4]));
    (geometry, (1..=12_usize, 1..=12_usize), (1..=20_usize, 1..=70_usize), finish, fill, any::<u64>()).prop_map(
        |(geometry, image, channels, finish, fill, seed)| {
            Convolution::dense(geometry, image, channels, Finish::number(finish), fill, seed >> 8)
        },
    )
}

fn any_convolution() -> impl Strategy<Value = Convolution> {
    prop_oneof![lean(fills(), 0..12_usize), dense(fills(), 0..12_usize)]
}

fn same(what: &str, problem: &Convolution, actual: &[f32], expected: &[f32]) -> Result<(), TestCaseError> {
    let name = format!("{what}: {}", problem.describe());
    compare_bits(Case { kernel: &name, shape: &[expected.len()] }, actual, expected).map_err(failed)
}

/// All results of a convolution's kernels: output, data gradient, gradients of matrix, stencil and bias.
fn results(kernels: &Kernels, problem: &Convolution, dy: &[f32], edge: Edge) -> Result<Vec<Vec<f32>>, String> {
    let rows = 0..problem.output().h;
    let mut all = vec![
        transpose::data_gradient(kernels, problem, dy, edge)?,
        gradients::matrix::<f32>(kernels, problem, dy, edge, from_ref(&rows))?,
    ];
    if matches!(problem.weights, Weights::Lean(..)) {
        let (spatial, bias) = gradients::stencil::<f32>(kernels, problem, dy, edge, from_ref(&rows))?;
        all.extend([spatial, bias]);
    }
    Ok(all)
}

proptest! {
    #![proptest_config(cases(300))]

    /// Any placement in memory, any tier: the same bits; without fused multiply-add, the a-priori bound.
    #[test]
    fn convolutions_agree_on_all_tiers(
        problem in prop_oneof![any_convolution(), grouped(fills(), 0..12_usize)], place in 0..8_usize) {
        let (fused, others) = tiers();
        let run = |kernels: &Kernels, place| run_whole(problem.kernel(kernels), &problem, &Place::number(place)).map_err(failed);
        if let Some(first) = fused.first() {
            let expected = run(first, 0)?;
            for kernels in &fused {
                same(kernels.isa.name(), &problem, &run(kernels, place)?, &expected)?;
            }
        }
        for kernels in others {
            let actual = run(kernels, place)?;
            let case = Case { kernel: kernels.isa.name(), shape: &[actual.len()] };
            problem.bounded(|exact| compare_within_bound(case, &actual, exact)).map_err(failed)?;
        }
    }

    #[test]
    fn gradients_agree_on_all_tiers(problem in any_convolution(), edge in 0..2_usize) {
        let dy = Fill::Uniform.inputs(5, problem.output().elements(), 1);
        let (fused, _) = tiers();
        let Some(first) = fused.first() else { return Ok(()) };
        let expected = results(first, &problem, &dy, Edge::End).map_err(failed)?;
        for kernels in &fused {
            let actual = results(kernels, &problem, &dy, EDGES[edge]).map_err(failed)?;
            for (which, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
                same(&format!("{} result {which}", kernels.isa), &problem, actual, expected)?;
            }
        }
    }

    /// Exact data: the gradients are those of any tier, fused multiply-add or not.
    #[test]
    fn exact_gradients_agree_on_all_tiers(
        mut problem in prop_oneof![lean(Just(Fill::Exact), Just(0)), dense(Just(Fill::Exact), Just(0))],
        edge in 0..2_usize,
    ) {
        problem.x.iter_mut().for_each(|value| *value %= 30.0);
        let dy = common::data::integers(3, problem.output().elements(), 9);
        let mut expected: Option<Vec<Vec<f32>>> = None;
        for kernels in all_tiers() {
            let actual = results(kernels, &problem, &dy, EDGES[edge]).map_err(failed)?;
            let expected = expected.get_or_insert_with(|| actual.clone());
            for (which, (actual, expected)) in actual.iter().zip(expected.iter()).enumerate() {
                same(&format!("{} result {which}", kernels.isa), &problem, actual, expected)?;
            }
        }
    }

    #[test]
    fn elementwise_operators_agree_on_all_tiers(
        word in proptest::sample::select(WORDS.to_vec()),
        (pixels, channels, variant) in (0..40_usize, 1..=80_usize, 0..4_usize),
        (fill, seed, edge) in (fills(), any::<u64>(), 0..2_usize),
    ) {
        let problem = Problem::new(word, pixels, channels, variant, fill, seed >> 8);
        let expected = naive::<f32>(&problem, Reading::Values);
        for kernels in tiers().0 {
            let actual = problem.run(&kernels.f32.elementwise, EDGES[edge]).map_err(failed)?;
            let name = format!("{}: {}", kernels.isa, problem.describe());
            let case = Case { kernel: &name, shape: &[expected.values.len()] };
            compare_bits(case, &actual.values, &expected.values).map_err(failed)?;
            prop_assert_eq!(&actual.sums, &expected.sums, "{}", name);
        }
    }

    /// L(a + b) + L(0) = L(a) + L(b), exactly.
    #[test]
    fn convolutions_are_affine(problem in prop_oneof![lean(Just(Fill::Exact), Just(0)), dense(Just(Fill::Exact), Just(0))]) {
        let half = |value: &f32| (value / 2.0).trunc();
        let a: Vec<f32> = problem.x.iter().map(half).collect();
        let b: Vec<f32> = problem.x.iter().zip(&a).map(|(x, a)| x - a).collect();
        for kernels in all_tiers() {
            let run = |x: Vec<f32>| {
                let problem = Convolution { x, ..problem.clone() };
                run_whole(problem.kernel(kernels), &problem, &Place::number(0)).map_err(failed)
            };
            let (sum, zero) = (run(problem.x.clone())?, run(vec![0.0; problem.x.len()])?);
            let (of_a, of_b) = (run(a.clone())?, run(b.clone())?);
            for at in 0..sum.len() {
                prop_assert_eq!(sum[at] + zero[at], of_a[at] + of_b[at], "{} at {}: {}", kernels.isa, at, problem.describe());
            }
        }
    }

    /// Away from the edges, the image one pixel further gives the output one pixel further, bit by bit.
    #[test]
    fn the_interior_moves_with_the_image(problem in lean(fills(), Just(6_usize))) {
        let shape = problem.input;
        let radius = if let Weights::Lean(stencil, _) = problem.weights { stencil.radius() } else { 0 };
        let mut moved = problem.clone();
        moved.x.fill(0.0);
        for (h, w) in (1..shape.h).flat_map(|h| (1..shape.w).map(move |w| (h, w))) {
            let (to, from) = (shape.index(0, h, w, 0), shape.index(0, h - 1, w - 1, 0));
            moved.x[to..to + shape.c].copy_from_slice(&problem.x[from..from + shape.c]);
        }
        for kernels in all_tiers() {
            let run = |problem: &Convolution| run_whole(problem.kernel(kernels), problem, &Place::number(0)).map_err(failed);
            let (y, shifted) = (run(&problem)?, run(&moved)?);
            // Rows and columns whose neighbours exist on both sides, and were moved.
            let inner = |size: usize| 1 + radius..size.saturating_sub(radius);
            for (h, w) in inner(shape.h).flat_map(|h| inner(shape.w).map(move |w| (h, w))) {
                let (to, from) = (shape.index(0, h, w, 0), shape.index(0, h - 1, w - 1, 0));
                same(&format!("{} at ({h}, {w})", kernels.isa), &problem, &shifted[to..to + shape.c], &y[from..from + shape.c])?;
            }
        }
    }

    #[test]
    fn zero_weights_leave_the_bias(mut problem in prop_oneof![lean(fills(), Just(0)), dense(fills(), Just(0))]) {
        let bias = match &mut problem.weights {
            Weights::Lean(_, weights) => {
                weights.spatial.fill(0.0);
                weights.pointwise.fill(0.0);
                weights.bias.clone()
            }
            Weights::Dense(weights) => {
                weights.weight.fill(0.0);
                weights.bias.clone()
            }
        };
        for kernels in all_tiers() {
            let y = run_whole(problem.kernel(kernels), &problem, &Place::number(2)).map_err(failed)?;
            for pixel in y.chunks_exact(bias.len()) {
                same(kernels.isa.name(), &problem, pixel, &bias)?;
            }
        }
    }
}
