//! Identities that hold exactly on integers: adjoints, weight gradients, the lean convolution as a sparse dense one.
#![forbid(unsafe_code)]

use crate::samples::{STENCILS_3X3, dense_cases, lean, lean_cases, small_integers};
use leanresnet::internals::reference::{
    DenseWeights, Epilogue, HeadWeights, LeanWeights, Operator, Shape, average_pool, average_pool_backward, dense_forward,
    global_average_pool, global_average_pool_backward, head_data_gradient, head_forward, head_weight_gradients, lean_forward,
};

/// The inner product of integers.
fn inner(a: &[f64], b: &[f64]) -> i64 {
    assert_eq!(a.len(), b.len());
    let integer = |value: f64| {
        assert_eq!(value.fract(), 0.0, "{value} is not an integer");
        value as i64
    };
    a.iter().zip(b).map(|(&a, &b)| integer(a) * integer(b)).sum()
}

/// `<L x, y> = <x, L' y>` for the linear part, and `<L x, y> = <w, dw>` because L x is linear in all weights too.
fn check_operator(shape: Shape, mut operator: Operator<f64>) {
    let case = format!("{shape:?} {operator:?}");
    let x = small_integers(11, shape.elements());
    let y = small_integers(12, operator.output_shape(shape).elements());
    let forward = inner(&operator.forward(&x, shape), &y);

    let mut gradients = operator.weight_gradients(&x, &y, shape);
    let products: Vec<i64> = operator.parameters().iter().zip(gradients.parameters()).map(|(w, dw)| inner(w, dw)).collect();
    assert_eq!(forward, products.iter().sum::<i64>(), "weight gradients of {case}");

    let of_bias = products[products.len() - 1];
    assert_eq!(forward - of_bias, inner(&x, &operator.data_gradient(&y, shape)), "data gradient of {case}");
}

#[test]
fn lean_gradients_are_exact_adjoints() {
    lean_cases(small_integers).for_each(|(shape, operator)| check_operator(shape, operator));
}

#[test]
fn dense_gradients_are_exact_adjoints() {
    dense_cases(small_integers).for_each(|(shape, operator)| check_operator(shape, operator));
}

#[test]
fn pool_gradients_are_exact_adjoints() {
    for (h, w) in (1..=6).flat_map(|h| (1..=6).map(move |w| (h, w))) {
        let shape = Shape::new(2, h, w, 3);
        // Multiples of 4 * 36 * 25 keep the shares of a pixel integers.
        let share = (4 * h * w) as f64;
        let x: Vec<f64> = small_integers(1, shape.elements()).iter().map(|value| value * share).collect();
        let (pooled, output) = average_pool(&x, shape);
        let y: Vec<f64> = small_integers(2, output.elements()).iter().map(|value| value * share).collect();
        assert_eq!(inner(&pooled, &y), inner(&x, &average_pool_backward(&y, shape)), "{shape:?}");
    }
    for (h, w) in [(1, 1), (1, 2), (4, 1), (2, 4), (8, 8)] {
        let shape = Shape::new(2, h, w, 3);
        let scaled = |values: Vec<f64>| -> Vec<f64> { values.iter().map(|value| value * 64.0).collect() };
        let (x, y) = (scaled(small_integers(3, shape.elements())), scaled(small_integers(4, 2 * 3)));
        let forward = inner(&global_average_pool(&x, shape), &y);
        assert_eq!(forward, inner(&x, &global_average_pool_backward(&y, shape)), "{shape:?}");
    }
}

#[test]
fn head_gradients_are_exact_adjoints() {
    for (images, width, classes) in [(1, 1, 1), (1, 5, 2), (3, 4, 7), (2, 9, 10)] {
        let weights = HeadWeights { weight: small_integers(1, width * classes), bias: small_integers(2, classes) };
        let (x, y) = (small_integers(3, images * width), small_integers(4, images * classes));
        let forward = inner(&head_forward(&x, &weights), &y);
        let gradients = head_weight_gradients(&x, &y, classes);
        let of_bias = inner(&weights.bias, &gradients.bias);
        assert_eq!(forward, inner(&weights.weight, &gradients.weight) + of_bias);
        assert_eq!(forward - of_bias, inner(&x, &head_data_gradient(&y, &weights)));
    }
}

/// The 3x3 kernel of a lean convolution: its stencil on the diagonal, its 1x1 part in the centre.
fn assembled(weights: &LeanWeights<f64>) -> DenseWeights<f64> {
    let c = weights.channels();
    let (weight, bias) = (vec![0.0; c * c * 9], weights.bias.clone());
    let mut kernel = DenseWeights { kernel: 3, stride: 1, inputs: c, outputs: c, weight, bias };
    for i in 0..c {
        for (tap, &(dy, dx)) in weights.taps.iter().enumerate() {
            let position = kernel.index(i, i, (dy + 1) as usize, (dx + 1) as usize);
            kernel.weight[position] += weights.spatial[tap * c + i];
        }
        for k in 0..c {
            let centre = kernel.index(i, k, 1, 1);
            kernel.weight[centre] += weights.pointwise[i * c + k];
        }
    }
    kernel
}

#[test]
fn lean_convolution_is_a_sparse_dense_convolution() {
    for taps in STENCILS_3X3 {
        for (h, w, c) in [(1, 1, 1), (1, 6, 2), (6, 1, 3), (2, 2, 1), (4, 5, 6)] {
            let shape = Shape::new(2, h, w, c);
            let weights = lean(5, taps, c, small_integers);
            let kernel = assembled(&weights);
            let (x, residual) = (small_integers(6, shape.elements()), small_integers(7, shape.elements()));
            let (scale, shift) = (small_integers(8, c), small_integers(9, c));
            let epilogue = Epilogue { scale_shift: Some((&scale, &shift)), residual: Some(&residual), relu: true };
            let lean = lean_forward(&x, shape, &weights, &epilogue);
            assert_eq!(lean, dense_forward(&x, shape, &kernel, &epilogue), "{shape:?} {taps:?}");

            let (lean, dense) = (Operator::Lean(weights), Operator::Dense(kernel));
            assert_eq!(lean.data_gradient(&x, shape), dense.data_gradient(&x, shape), "{shape:?} {taps:?}");
        }
    }
}

/// The kernel turned by 180 degrees, with inputs and outputs exchanged.
fn turned(weights: &DenseWeights<f64>) -> DenseWeights<f64> {
    let mut adjoint = weights.map(|_| 0.0);
    (adjoint.inputs, adjoint.outputs) = (weights.outputs, weights.inputs);
    adjoint.bias = vec![0.0; weights.inputs];
    let last = weights.kernel - 1;
    for (o, i) in (0..weights.outputs).flat_map(|o| (0..weights.inputs).map(move |i| (o, i))) {
        for (r, c) in (0..=last).flat_map(|r| (0..=last).map(move |c| (r, c))) {
            let position = adjoint.index(i, o, last - r, last - c);
            adjoint.weight[position] = weights.weight[weights.index(o, i, r, c)];
        }
    }
    adjoint
}

/// Rounding included: the data gradient has the bits of the forward convolution.
#[test]
fn dense_data_gradient_at_stride_1_is_the_turned_convolution() {
    for (shape, operator) in dense_cases(crate::samples::reals) {
        let Operator::Dense(weights) = operator else { continue };
        if weights.stride == 1 {
            let output = weights.output_shape(shape);
            let dy = crate::samples::reals(13, output.elements());
            let forward = dense_forward(&dy, output, &turned(&weights), &Epilogue::default());
            assert_eq!(Operator::Dense(weights).data_gradient(&dy, shape), forward, "{shape:?}");
        }
    }
}
