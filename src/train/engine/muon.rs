//! Muon: steps along the orthogonal factor of a matrix's momentum (Jordan et al. 2024; `OptimizerConfig::Muon` has the formulas).
//!
//! Its products run on the dense kernels, of which all give the same bits: a step depends on neither instruction set nor threads.
#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::rule::flush;
use crate::conv::pack::{PANEL, PackedWeights, pack_rows, panels};
use crate::dispatch::Kernels;
use crate::kernel::conv::{ConvCall, ConvKernel};
use crate::kernel::rows::{Layout, Source};
use crate::kernel::target::Target;
use crate::train::{OptimizerConfig, Update};

/// Iterations, and the coefficients of their polynomial a x + b x^3 + c x^5 (Jordan et al. 2024): five of them bring every singular value from
/// 0.002 to 1 between 0.68 and 1.21.
const ITERATIONS: usize = 5;
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];

/// One step: the numbers that are the same for all matrices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MuonStep {
    gradient_factor: f32,
    momentum: f32,
    nesterov: bool,
    rate: f32,
    /// What decay leaves of a weight.
    kept: f32,
}

impl MuonStep {
    /// The step for matrices; `None` if the optimiser treats them like everything else.
    pub(crate) fn new(optimizer: &OptimizerConfig, update: &Update) -> Option<Self> {
        let OptimizerConfig::Muon { momentum, nesterov, matrix_rate, matrix_weight_decay, .. } = *optimizer else { return None };
        let rate = f64::from(update.learning_rate) * matrix_rate;
        Some(MuonStep {
            gradient_factor: update.gradient_scale,
            momentum: momentum as f32,
            nesterov,
            rate: rate as f32,
            kept: (1.0 - rate * matrix_weight_decay) as f32,
        })
    }

    /// Changes a packed matrix [panel][input][32] of (inputs, outputs) by its gradient.
    pub(crate) fn apply(
        &self,
        kernels: &Kernels,
        (gradient, values, momentum): (&[f32], &mut [f32], &mut [f32]),
        (inputs, outputs): (usize, usize),
        workspace: &mut Workspace,
    ) {
        let (rows, columns) = (inputs.min(outputs), inputs.max(outputs));
        let is_wide = inputs <= outputs;
        // Element `at` of the packed matrix in `direction`, which has no fewer columns than rows.
        let place = |at: usize| {
            let (input, output) = (at / PANEL % inputs, at / PANEL / inputs * PANEL + at % PANEL);
            let (row, column) = if is_wide { (input, output) } else { (output, input) };
            (output < outputs).then_some(row * columns + column)
        };
        let direction = &mut workspace.direction;
        direction.resize(rows * columns, 0.0);
        for (at, (gradient, momentum)) in gradient.iter().zip(momentum).enumerate() {
            let Some(place) = place(at) else { continue };
            let gradient = gradient * self.gradient_factor;
            *momentum = flush(self.momentum * *momentum + gradient);
            direction[place] = if self.nesterov { gradient + self.momentum * *momentum } else { *momentum };
        }
        workspace.orthogonalise(&kernels.f32.dense, rows, columns);
        let step = self.rate * (outputs as f32 / inputs as f32).max(1.0).sqrt();
        for (at, value) in values.iter_mut().enumerate() {
            if let Some(place) = place(at) {
                *value = flush(*value * self.kept - step * workspace.direction[place]);
            }
        }
    }
}

/// Room for the products of one matrix at a time. Row by row.
#[derive(Debug)]
pub(crate) struct Workspace {
    direction: Vec<f32>,
    product: Vec<f32>,
    square: Vec<f32>,
    polynomial: Vec<f32>,
    /// The right factor of a product.
    factor: PackedWeights,
}

impl Workspace {
    /// Matrices of the largest size that there is room for.
    const MATRICES: usize = 5;

    /// Room for matrices whose products, padded to whole panels, have up to so many elements and columns.
    fn new((elements, columns): (usize, usize)) -> Self {
        let room = || Vec::with_capacity(elements);
        let mut factor = PackedWeights::zeros(None, 1, 0, 0);
        factor.matrix.reserve(elements);
        factor.bias.reserve(columns);
        Workspace { direction: room(), product: room(), square: room(), polynomial: room(), factor }
    }

    /// Brings the singular values of `direction` [rows][columns], of which `rows` is not the larger, near 1.
    fn orthogonalise(&mut self, kernel: &ConvKernel, rows: usize, columns: usize) {
        let Workspace { direction: x, product, square, polynomial, factor } = self;
        let norm = x.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        if norm == 0.0 {
            return;
        }
        for value in &mut *x {
            *value = (f64::from(*value) / norm) as f32;
        }
        let [a, b, c] = COEFFICIENTS;
        for _ in 0..ITERATIONS {
            // X X^T = S; (a + b S + c S^2) X.
            pack(factor, columns, rows, |row, column| x[column * columns + row]);
            multiply(kernel, x, factor, square);
            pack(factor, rows, rows, |row, column| square[row * rows + column]);
            multiply(kernel, square, factor, polynomial);
            for (at, (value, square)) in polynomial.iter_mut().zip(&*square).enumerate() {
                let diagonal = if at / rows == at % rows { a } else { 0.0 };
                *value = diagonal + b * square + c * *value;
            }
            pack(factor, rows, columns, |row, column| x[row * columns + column]);
            multiply(kernel, polynomial, factor, product);
            std::mem::swap(x, product);
        }
    }
}

/// Makes a matrix the right factor of a product.
fn pack(factor: &mut PackedWeights, rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) {
    let padded = panels(columns) * PANEL;
    (factor.row_length, factor.channels) = (rows, columns);
    factor.bias.resize(padded, 0.0);
    factor.matrix.clear();
    factor.matrix.resize(rows * padded, 0.0);
    pack_rows(rows, columns, value, &mut factor.matrix);
}

/// The product of a matrix, row by row, and a packed one: a dense 1x1 convolution whose pixels are the rows.
fn multiply(kernel: &ConvKernel, left: &[f32], right: &PackedWeights, product: &mut Vec<f32>) {
    let (inner, columns) = (right.row_length, right.channels);
    let rows = left.len() / inner;
    product.resize(rows * columns, 0.0);
    let layout = |length: usize| Layout { origin: 0, row_step: rows * length, pixel_step: length, ring: 1, first: 0 };
    let x = Source { data: left, layout: layout(inner) };
    kernel.run(&mut ConvCall::new(right, x, Target::new(product, layout(columns)), (1, rows)));
}

/// Working memory that the threads of an update take and give back.
#[derive(Debug)]
pub(crate) struct Workspaces {
    /// Elements of the largest matrix and columns of the widest one, padded to whole panels.
    largest: (usize, usize),
    unused: Mutex<Vec<Workspace>>,
}

impl Workspaces {
    /// For matrices of these (inputs, outputs) on so many threads.
    pub(crate) fn new(matrices: impl Iterator<Item = (usize, usize)>, threads: usize) -> Self {
        let padded = |columns: usize| panels(columns) * PANEL;
        let largest = matrices.fold((0, 0), |(elements, columns), (inputs, outputs)| {
            let both_ways = (inputs * padded(outputs)).max(outputs * padded(inputs));
            (elements.max(both_ways), columns.max(padded(inputs.max(outputs))))
        });
        Workspaces { largest, unused: Mutex::new((0..threads).map(|_| Workspace::new(largest)).collect()) }
    }

    /// Bytes that they take, without a few per column.
    pub(crate) fn bytes(&self) -> usize {
        self.unused().len() * Workspace::MATRICES * self.largest.0 * size_of::<f32>()
    }

    /// Runs `work` with a workspace of its own.
    pub(crate) fn with(&self, work: impl FnOnce(&mut Workspace)) {
        let taken = self.unused().pop();
        let mut workspace = taken.unwrap_or_else(|| Workspace::new(self.largest));
        work(&mut workspace);
        self.unused().push(workspace);
    }

    fn unused(&self) -> MutexGuard<'_, Vec<Workspace>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::random::{Purpose, Random};

    /// Where weight (output, input) lies in the packed matrix.
    fn place(inputs: usize, output: usize, input: usize) -> usize {
        (output / PANEL * inputs + input) * PANEL + output % PANEL
    }

    fn packed(inputs: usize, outputs: usize, weights: &[f32]) -> Vec<f32> {
        let mut packed = vec![0.0; panels(outputs) * PANEL * inputs];
        for (at, weight) in weights.iter().enumerate() {
            packed[place(inputs, at / inputs, at % inputs)] = *weight;
        }
        packed
    }

    fn unpacked(inputs: usize, outputs: usize, packed: &[f32]) -> Vec<f32> {
        (0..inputs * outputs).map(|at| packed[place(inputs, at / inputs, at % inputs)]).collect()
    }

    /// Weights [outputs][inputs] after a step with each of the gradients.
    fn train(
        optimizer: &OptimizerConfig,
        (outputs, inputs): (usize, usize),
        weights: &[f32],
        gradients: &[Vec<f32>],
        isa: Isa,
    ) -> Vec<f32> {
        let kernels = Kernels::of(isa).unwrap();
        let workspaces = Workspaces::new([(inputs, outputs)].into_iter(), 1);
        let (mut values, mut momentum) = (packed(inputs, outputs, weights), packed(inputs, outputs, &[]));
        for gradient in gradients {
            let step = MuonStep::new(optimizer, &Update::new(0.5)).unwrap();
            let gradient = packed(inputs, outputs, gradient);
            workspaces
                .with(|workspace| step.apply(kernels, (&gradient, &mut values, &mut momentum), (inputs, outputs), workspace));
        }
        unpacked(inputs, outputs, &values)
    }

    /// After three steps of `torch.optim.Muon` (PyTorch 2.15, its iteration in double precision) at a rate of 0.1.
    #[test]
    fn muon_takes_the_steps_of_pytorch() {
        let optimizer = OptimizerConfig::Muon {
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.0,
            matrix_rate: 0.2,
            matrix_weight_decay: 0.5,
        };
        let weights = [0.5, -0.25, 1.0, 2.0, -1.0, 0.125];
        let gradients =
            [[0.5, -1.0, 0.0, 0.25, 3.0, -0.1], [-2.0, 0.125, 0.3, 1.0, 1.0, -1.0], [0.0, 0.5, 0.25, -0.75, 0.0, 2.0]]
                .map(Vec::from);
        let wide = ((2, 3), [0.499_750_1, -0.216_580_5, 0.850_709, 1.684_979_3, -1.043_296_3, 0.089_294_22]);
        let tall = ((3, 2), [0.563_880_4, -0.112_203_02, 0.773_585_9, 1.637_540_6, -1.047_270_9, 0.073_595_93]);
        for (shape, expected) in [wide, tall] {
            let trained = train(&optimizer, shape, &weights, &gradients, Isa::Portable);
            for (value, expected) in trained.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-5, "{shape:?}: {trained:?}");
            }
        }
    }

    /// The product [rows][columns] of [rows][inner] and [inner][columns].
    fn product(left: &[f64], right: &[f64], inner: usize) -> Vec<f64> {
        let columns = right.len() / inner;
        let sum = |row: usize, column: usize| (0..inner).map(|k| left[row * inner + k] * right[k * columns + column]).sum();
        (0..left.len() / inner * columns).map(|at| sum(at / columns, at % columns)).collect()
    }

    fn transposed(matrix: &[f64], columns: usize) -> Vec<f64> {
        let rows = matrix.len() / columns;
        (0..matrix.len()).map(|at| matrix[at % rows * columns + at / rows]).collect()
    }

    #[test]
    fn directions_are_those_of_the_plain_iteration_and_nearly_orthogonal_on_all_instruction_sets() {
        let optimizer = OptimizerConfig::Muon {
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            matrix_rate: 2.0,
            matrix_weight_decay: 0.0,
        };
        let mut random = Random::keyed(5, Purpose::Weights, 0, 0);
        for (outputs, inputs) in [(1, 1), (32, 32), (33, 40), (40, 33), (96, 48), (20, 180)] {
            let gradient: Vec<f32> = (0..outputs * inputs).map(|_| random.uniform() - 0.5).collect();
            let zeros = vec![0.0; gradient.len()];
            let run = |isa| train(&optimizer, (outputs, inputs), &zeros, std::slice::from_ref(&gradient), isa);
            let norm = gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let mut exact: Vec<f64> = gradient.iter().map(|value| f64::from(*value) / norm).collect();
            for _ in 0..ITERATIONS {
                let cube = product(&product(&exact, &transposed(&exact, inputs), inputs), &exact, outputs);
                let fifth = product(&product(&exact, &transposed(&exact, inputs), inputs), &cube, outputs);
                let [a, b, c] = COEFFICIENTS.map(f64::from);
                exact = exact.iter().zip(&cube).zip(&fifth).map(|((x, cube), fifth)| a * x + b * cube + c * fifth).collect();
            }
            let scale = (outputs as f64 / inputs as f64).max(1.0).sqrt();
            let mut compiled = Vec::new();
            for isa in Isa::available() {
                let found = run(isa);
                let direction: Vec<f64> = found.iter().map(|value| f64::from(-value) / scale).collect();
                let error = direction.iter().zip(&exact).map(|(found, exact)| (found - exact).abs()).fold(0.0, f64::max);
                assert!(error < 2e-5, "{outputs} x {inputs} on {isa}: error {error:e}");
                // The mean of the squares of the singular values.
                let mean = direction.iter().map(|value| value * value).sum::<f64>() / outputs.min(inputs) as f64;
                assert!((0.45..1.4).contains(&mean), "{outputs} x {inputs} on {isa}: {mean}");
                if isa != Isa::Portable {
                    compiled.push(found.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
                }
            }
            assert!(
                compiled.windows(2).all(|pair| pair[0] == pair[1]),
                "{outputs} x {inputs}: other bits on another instruction set"
            );
        }
    }

    #[test]
    fn a_gradient_of_zero_only_lets_the_weights_decay() {
        let trained = train(&OptimizerConfig::muon(), (3, 5), &[1.0; 15], &[vec![0.0; 15]], Isa::Portable);
        assert_eq!(trained, [1.0 - 0.5 * 0.2 * 0.05; 15]);
    }

    #[test]
    fn other_rules_have_no_step_for_matrices() {
        assert!(MuonStep::new(&OptimizerConfig::sgd(), &Update::new(0.1)).is_none());
        assert!(MuonStep::new(&OptimizerConfig::adamw(), &Update::new(0.1)).is_none());
    }

    #[test]
    fn bytes_are_those_that_are_taken() {
        let workspaces = Workspaces::new([(40, 96), (96, 40)].into_iter(), 3);
        let capacity = |workspace: &Workspace| {
            let Workspace { direction, product, square, polynomial, factor } = workspace;
            [direction, product, square, polynomial].map(Vec::capacity).iter().sum::<usize>() + factor.matrix.capacity()
        };
        let taken = 4 * workspaces.unused().iter().map(capacity).sum::<usize>();
        assert_eq!(workspaces.bytes(), taken);
        assert_eq!(taken, 4 * 3 * 5 * 96 * 64);
        assert!(workspaces.unused().iter().all(|workspace| workspace.factor.bias.capacity() == 96), "what is left out is little");
    }
}
