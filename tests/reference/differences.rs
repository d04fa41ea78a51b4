//! Gradients against central differences in double precision.
#![forbid(unsafe_code)]

use crate::samples::{BOX9, CROSS4, CROSS5, dense, lean, norm, reals};
use leanresnet::internals::reference::{
    Block, HeadWeights, Norm, Operator, Shape, average_pool, average_pool_backward, cross_entropy, global_average_pool,
    global_average_pool_backward, head_data_gradient, head_forward, head_weight_gradients,
};

/// What a function is differentiated by; a gradient has the form of its subject.
trait Subject: Clone {
    fn tensors(&mut self) -> Vec<&mut Vec<f64>>;
}

impl Subject for Vec<f64> {
    fn tensors(&mut self) -> Vec<&mut Vec<f64>> {
        vec![self]
    }
}

impl Subject for Operator<f64> {
    fn tensors(&mut self) -> Vec<&mut Vec<f64>> {
        self.parameters()
    }
}

impl Subject for Norm<f64> {
    fn tensors(&mut self) -> Vec<&mut Vec<f64>> {
        self.parameters()
    }
}

impl Subject for Block<f64> {
    fn tensors(&mut self) -> Vec<&mut Vec<f64>> {
        self.parameters()
    }
}

impl Subject for HeadWeights<f64> {
    fn tensors(&mut self) -> Vec<&mut Vec<f64>> {
        vec![&mut self.weight, &mut self.bias]
    }
}

impl<A: Subject, B: Subject> Subject for (A, B) {
    fn tensors(&mut self) -> Vec<&mut Vec<f64>> {
        let mut all = self.0.tensors();
        all.extend(self.1.tensors());
        all
    }
}

/// How a gradient is checked: the step of the differences, the error allowed relative to the gradient's largest entry.
#[derive(Clone, Copy)]
struct Check {
    step: f64,
    tolerance: f64,
}

/// For functions that are linear in each argument: differences are exact whatever the step.
const LINEAR: Check = Check { step: 1.0, tolerance: 1e-12 };

/// For smooth functions, and the rectifier away from its kink.
const SMOOTH: Check = Check { step: 1e-5, tolerance: 1e-6 };

impl Check {
    /// Compares every entry of `gradient` with `(f(v + step) - f(v - step)) / (2 step)`.
    fn run<S: Subject>(self, what: &str, subject: &S, mut gradient: S, objective: impl Fn(&S) -> f64) {
        let gradients: Vec<Vec<f64>> = gradient.tensors().into_iter().map(std::mem::take).collect();
        let largest = gradients.iter().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.0 && largest.is_finite(), "{what}: the largest entry of the gradient is {largest}");
        let moved = |tensor: usize, entry: usize, by: f64| {
            let mut subject = subject.clone();
            subject.tensors()[tensor][entry] += by;
            objective(&subject)
        };
        for (tensor, values) in gradients.iter().enumerate() {
            for (entry, &value) in values.iter().enumerate() {
                let difference = (moved(tensor, entry, self.step) - moved(tensor, entry, -self.step)) / (2.0 * self.step);
                let error = (difference - value).abs() / largest;
                assert!(
                    error <= self.tolerance,
                    "{what}: tensor {tensor}, entry {entry}: gradient {value}, difference {difference}, error {error:e}"
                );
            }
        }
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn convolutions() {
    let shapes = [(1, 1), (1, 5), (4, 1), (3, 4)].map(|(h, w)| Shape::new(2, h, w, 3));
    for shape in shapes {
        let leans = [CROSS4, CROSS5, BOX9].map(|taps| Operator::Lean(lean(1, taps, 3, reals)));
        let geometries = [(1, 1), (3, 1), (3, 2), (7, 4)];
        let denses = geometries.map(|(kernel, stride)| Operator::Dense(dense(1, kernel, stride, (3, 2), reals)));
        for operator in leans.into_iter().chain(denses) {
            let (x, dy) = (reals(2, shape.elements()), reals(3, operator.output_shape(shape).elements()));
            let gradient = (operator.data_gradient(&dy, shape), operator.weight_gradients(&x, &dy, shape));
            let what = format!("{shape:?} {operator:?}");
            LINEAR.run(&what, &(x, operator), gradient, |(x, operator)| inner(&operator.forward(x, shape), &dy));
        }
    }
}

#[test]
fn pools_and_head() {
    let shape = Shape::new(2, 3, 5, 3);
    let (x, dy) = (reals(1, shape.elements()), reals(2, 2 * 2 * 3));
    LINEAR.run("average pool", &x, average_pool_backward(&dy, shape), |x| inner(&average_pool(x, shape).0, &dy));

    let dy = reals(3, 2 * 3);
    let gradient = global_average_pool_backward(&dy, shape);
    LINEAR.run("global average pool", &x, gradient, |x| inner(&global_average_pool(x, shape), &dy));

    let weights = HeadWeights { weight: reals(4, 4 * 3), bias: reals(5, 4) };
    let (x, dy) = (reals(6, 2 * 3), reals(7, 2 * 4));
    let gradient = (head_data_gradient(&dy, &weights), head_weight_gradients(&x, &dy, 4));
    LINEAR.run("head", &(x, weights), gradient, |(x, weights)| inner(&head_forward(x, weights), &dy));
}

#[test]
fn batch_norm() {
    for (pixels, channels) in [(2, 1), (7, 3), (24, 4)] {
        let (norm, x, dy) = (norm(1, channels), reals(3, pixels * channels), reals(4, pixels * channels));
        let gradient = norm.backward(&x, &dy);
        SMOOTH.run("batch norm", &(x, norm), gradient, |(x, norm)| inner(&norm.forward(x), &dy));
    }
}

#[test]
fn cross_entropy_with_and_without_smoothing() {
    for smoothing in [0.0, 0.1, 1.0] {
        let (logits, labels) = (reals(1, 3 * 5), [4, 0, 2]);
        let gradient = cross_entropy(&logits, &labels, smoothing).gradient;
        SMOOTH.run("cross entropy", &logits, gradient, |logits| cross_entropy(logits, &labels, smoothing).value);
    }
}

/// Both forms, with 0, 1 and 2 norms, with and without ReLU after the sum, around one kind of convolution.
fn blocks(convolution: impl Fn(u64) -> Operator<f64>, channels: usize) -> Vec<Block<f64>> {
    let mut blocks = Vec::new();
    for (residual, norms, relu_after_sum) in
        [true, false].into_iter().flat_map(|form| (0..3).flat_map(move |norms| [true, false].map(|relu| (form, norms, relu))))
    {
        blocks.push(Block {
            conv1: convolution(31),
            norm1: (norms >= 1).then(|| norm(34, channels)),
            conv2: residual.then(|| convolution(37)),
            norm2: (norms == 2).then(|| norm(40, channels)),
            scale: 0.7,
            relu_after_sum,
        });
    }
    blocks
}

/// The kinks are further away than the step: a sign that changes would show as a large error.
#[test]
fn whole_blocks() {
    let shape = Shape::new(2, 3, 4, 3);
    let with_lean = blocks(|seed| Operator::Lean(lean(seed, CROSS5, 3, reals)), 3);
    let with_dense = blocks(|seed| Operator::Dense(dense(seed, 3, 1, (3, 3), reals)), 3);
    for block in with_lean.into_iter().chain(with_dense) {
        let (x, dy) = (reals(1, shape.elements()), reals(2, shape.elements()));
        let gradient = block.backward(&x, &dy, shape);
        let what = format!("{block:?}");
        SMOOTH.run(&what, &(x, block), gradient, |(x, block)| inner(&block.forward(x, shape), &dy));
    }
}
