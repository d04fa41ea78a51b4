//! The `f32` instance: its exact order of summation, its special values, its distance from the `f64` instance.
#![forbid(unsafe_code)]

use crate::common::data::{cancelling_pairs, equal_pairs, exact_maximum, integers, log_uniform, uniform};
use crate::common::shapes::{Tile, shapes};
use crate::common::tolerance::{Case, Exact, compare_bits, compare_within_bound, magnitudes, widened};
use crate::samples::{BOX9, CROSS4, CROSS5};
use leanresnet::internals::reference::{
    DenseWeights, Epilogue, HeadWeights, LeanWeights, Shape, average_pool, batch_norm, batch_statistics, dense_forward,
    global_average_pool, head_data_gradient, head_forward, lean_forward,
};

fn one_channel(taps: &[(i8, i8)], spatial: &[f32], pointwise: f32, bias: f32) -> LeanWeights<f32> {
    LeanWeights { taps: taps.to_vec(), group_size: 1, spatial: spatial.to_vec(), pointwise: vec![pointwise], bias: vec![bias] }
}

/// The pixel in the middle of a 3x3 image: N, W, C, E, S, then all channels of the pixel itself.
#[test]
fn lean_sums_are_one_chain_of_fused_multiply_adds() {
    const C: usize = 16;
    let (x, shape) = (uniform(1, 9 * C), Shape::new(1, 3, 3, C));
    let (spatial, pointwise, bias) = (uniform(2, 5 * C), uniform(3, C * C), uniform(4, C));
    let weights = LeanWeights { taps: CROSS5.to_vec(), group_size: 1, spatial, pointwise, bias };
    let y = lean_forward(&x, shape, &weights, &Epilogue::default());
    for channel in 0..C {
        let mut sum = weights.bias[channel];
        for (pixel, tap) in [(1, 0), (3, 1), (4, 2), (5, 3), (7, 4)] {
            sum = x[pixel * C + channel].mul_add(weights.spatial[tap * C + channel], sum);
        }
        for k in 0..C {
            sum = x[4 * C + k].mul_add(weights.pointwise[channel * C + k], sum);
        }
        assert_eq!(y[4 * C + channel].to_bits(), sum.to_bits());
    }
}

/// The pixel in the middle of a 3x3 image: its neighbours row by row, of each all inputs.
#[test]
fn dense_sums_run_over_rows_columns_inputs() {
    const C: usize = 4;
    const OUTPUTS: usize = 16;
    let (x, shape) = (uniform(1, 9 * C), Shape::new(1, 3, 3, C));
    let (weight, bias) = (uniform(2, OUTPUTS * C * 9), uniform(3, OUTPUTS));
    let weights = DenseWeights { kernel: 3, stride: 1, inputs: C, outputs: OUTPUTS, weight, bias };
    let y = dense_forward(&x, shape, &weights, &Epilogue::default());
    for output in 0..OUTPUTS {
        let mut sum = weights.bias[output];
        for (pixel, input) in (0..9).flat_map(|pixel| (0..C).map(move |input| (pixel, input))) {
            sum = x[pixel * C + input].mul_add(weights.weight[(output * C + input) * 9 + pixel], sum);
        }
        assert_eq!(y[4 * OUTPUTS + output].to_bits(), sum.to_bits());
    }
}

#[test]
fn head_sums_run_over_channels_and_their_gradients_over_classes() {
    const WIDTH: usize = 20;
    const CLASSES: usize = 16;
    let weights = HeadWeights { weight: uniform(1, CLASSES * WIDTH), bias: uniform(2, CLASSES) };
    let (x, dy) = (uniform(3, WIDTH), uniform(4, CLASSES));
    let chain =
        |start: f32, products: &mut dyn Iterator<Item = (f32, f32)>| products.fold(start, |sum, (a, b)| a.mul_add(b, sum));
    let y = head_forward(&x, &weights);
    for j in 0..CLASSES {
        let sum = chain(weights.bias[j], &mut (0..WIDTH).map(|k| (x[k], weights.weight[j * WIDTH + k])));
        assert_eq!(y[j].to_bits(), sum.to_bits());
    }
    let dx = head_data_gradient(&dy, &weights);
    for k in 0..WIDTH {
        let sum = chain(0.0, &mut (0..CLASSES).map(|j| (dy[j], weights.weight[j * WIDTH + k])));
        assert_eq!(dx[k].to_bits(), sum.to_bits());
    }
}

#[test]
fn pools_add_in_pixel_order_and_multiply_once() {
    const W: usize = 32;
    let x = uniform(1, W * W);
    let (y, _) = average_pool(&x, Shape::new(1, W, W, 1));
    for (row, column) in (0..W / 2).flat_map(|row| (0..W / 2).map(move |column| (row, column))) {
        let corner = 2 * row * W + 2 * column;
        let expected = (x[corner] + x[corner + 1] + x[corner + W] + x[corner + W + 1]) * 0.25;
        assert_eq!(y[row * (W / 2) + column].to_bits(), expected.to_bits());
    }
    for pixels in 1..=64 {
        let sum = x[..pixels].iter().fold(0.0, |sum: f32, value| sum + value);
        let expected = sum * (1.0 / pixels as f32);
        assert_eq!(global_average_pool(&x[..pixels], Shape::new(1, 1, pixels, 1))[0].to_bits(), expected.to_bits());
    }
}

#[test]
fn the_epilogue_rounds_after_its_multiply_add_and_after_the_residual() {
    let (x, residual, scale, shift) = (uniform(1, 64), uniform(2, 64), uniform(3, 1), uniform(4, 1));
    let epilogue = Epilogue { scale_shift: Some((&scale, &shift)), residual: Some(&residual), relu: false };
    let y = lean_forward(&x, Shape::new(1, 8, 8, 1), &one_channel(&[], &[], 1.0, 0.0), &epilogue);
    for pixel in 0..64 {
        let expected = x[pixel].mul_add(scale[0], shift[0]) + residual[pixel];
        assert_eq!(y[pixel].to_bits(), expected.to_bits());
    }
}

#[test]
fn products_are_not_rounded_before_the_addition() {
    let value = 1.0 + 1.0 / 4096.0;
    let weights = one_channel(&[], &[], value, -(1.0 + 2.0 / 4096.0));
    let y = lean_forward(&[value], Shape::new(1, 1, 1, 1), &weights, &Epilogue::default());
    assert_eq!(y, [1.0 / 16_777_216.0]);
}

#[test]
fn taps_outside_the_image_run_with_positive_zero() {
    let pixel = Shape::new(1, 1, 1, 1);
    let infinite = one_channel(CROSS4, &[f32::INFINITY, 0.0, 0.0, 0.0], 1.0, 0.0);
    assert!(lean_forward(&[1.0], pixel, &infinite, &Epilogue::default())[0].is_nan());
    // -0 + 0 * 1 = +0, and +0 survives the product -0 of the 1x1 part.
    let negative_zero = one_channel(CROSS4, &[1.0; 4], 0.0, -0.0);
    let y = lean_forward(&[-1.0], pixel, &negative_zero, &Epilogue::default());
    assert_eq!(y[0].to_bits(), 0);
    let without_taps = one_channel(&[], &[], 0.0, -0.0);
    let y = lean_forward(&[-1.0], pixel, &without_taps, &Epilogue::default());
    assert_eq!(y[0].to_bits(), (-0.0_f32).to_bits());
}

/// A NaN reaches exactly the pixels whose stencil touches it, and ReLU keeps it.
#[test]
fn nan_reaches_its_neighbours_only() {
    let mut x = vec![1.0_f32; 15];
    x[7] = f32::NAN;
    let weights = one_channel(CROSS4, &[1.0; 4], 1.0, 0.0);
    let y = lean_forward(&x, Shape::new(1, 3, 5, 1), &weights, &Epilogue { relu: true, ..Epilogue::default() });
    let reached: Vec<usize> = (0..15).filter(|&pixel| y[pixel].is_nan()).collect();
    assert_eq!(reached, [2, 6, 7, 8, 12]);
}

/// Shapes as kernel tests use them.
fn kernel_shapes() -> Vec<Shape> {
    let tile = Tile { lanes: 4, pixels: 6, channels: 8 };
    shapes(tile).into_iter().map(|(h, w, c)| Shape::new(1, h, w, c)).collect()
}

#[test]
fn small_integers_are_exact_in_single_precision() -> Result<(), String> {
    for shape in kernel_shapes() {
        let maximum = exact_maximum(9 + shape.c, 1000);
        let weights = LeanWeights {
            taps: BOX9.to_vec(),
            group_size: 1,
            spatial: integers(1, 9 * shape.c, maximum),
            pointwise: integers(2, shape.c * shape.c, maximum),
            bias: integers(3, shape.c, 1000),
        };
        let x = integers(4, shape.elements(), maximum);
        let single = lean_forward(&x, shape, &weights, &Epilogue::default());
        let double = lean_forward(&widened(&x), shape, &weights.map(f64::from), &Epilogue::default());
        let expected: Vec<f32> = double.iter().map(|&value| value as f32).collect();
        assert!(double.iter().all(|value| value.abs() <= 16_777_216.0), "beyond the exact integers");
        compare_bits(Case { kernel: "lean box9", shape: &[shape.h, shape.w, shape.c] }, &single, &expected)?;
    }
    Ok(())
}

#[test]
fn single_precision_keeps_the_bound_of_its_summation() -> Result<(), String> {
    let mut worst = 0.0_f64;
    for (inputs, weights) in
        [(uniform, uniform), (log_uniform, log_uniform), (cancelling_pairs, equal_pairs)] as [(Fill, Fill); 3]
    {
        for shape in kernel_shapes() {
            let weights = LeanWeights {
                taps: CROSS5.to_vec(),
                group_size: 1,
                spatial: weights(1, 5 * shape.c),
                pointwise: weights(2, shape.c * shape.c),
                bias: weights(3, shape.c),
            };
            let x = inputs(4, shape.elements());
            let single = lean_forward(&x, shape, &weights, &Epilogue::default());
            let exact = Exact {
                values: &lean_forward(&widened(&x), shape, &weights.map(f64::from), &Epilogue::default()),
                magnitudes: &lean_forward(&magnitudes(&x), shape, &weights.map(|w| f64::from(w).abs()), &Epilogue::default()),
                terms: 5 + shape.c,
                roundings: 6 + shape.c,
            };
            let case = Case { kernel: "lean cross5", shape: &[shape.h, shape.w, shape.c] };
            worst = worst.max(compare_within_bound(case, &single, &exact)?);
        }
    }
    assert!(worst > 0.01, "errors of {worst} of the bound are too small to be those of single precision");
    Ok(())
}

type Fill = fn(u64, usize) -> Vec<f32>;

#[test]
fn statistics_survive_a_mean_much_larger_than_the_deviation() {
    let x: Vec<f32> = (0..1000).map(|pixel| if pixel % 2 == 0 { 10_000.0 } else { 10_000.0 + 1.0 / 64.0 }).collect();
    let statistics = batch_statistics(&x, 1);
    assert!((statistics.mean[0] - (10_000.0 + 1.0 / 128.0)).abs() < 1e-8);
    assert!((statistics.variance[0] * 16_384.0 - 1.0).abs() < 1e-6);
    let y = batch_norm(&x, &statistics, &[1.0], &[0.0], 0.0);
    // A mean of 1.28e6 deviations leaves the shift an error of up to 2^-4.
    assert!(y.iter().all(|value| (value.abs() - 1.0).abs() <= 0.0625), "{:?}", &y[..2]);
}
