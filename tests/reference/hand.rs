//! Cases small enough to work out by hand.
#![forbid(unsafe_code)]

use crate::samples::{BOX9, CROSS4};
use leanresnet::internals::reference::{
    Block, ChannelStatistics, DenseWeights, Epilogue, HeadWeights, LeanWeights, Operator, Shape, average_pool,
    average_pool_backward, batch_norm, batch_statistics, cross_entropy, dense_data_gradient, dense_forward,
    dense_weight_gradients, global_average_pool, global_average_pool_backward, head_data_gradient, head_forward,
    head_weight_gradients, lean_data_gradient, lean_forward, lean_weight_gradients, relu_backward, update_running_statistics,
};

/// N 10, W 20, E 30, S 40, centre 5, bias 100.
fn cross() -> LeanWeights<f64> {
    LeanWeights {
        taps: CROSS4.to_vec(),
        group_size: 1,
        spatial: vec![10.0, 20.0, 30.0, 40.0],
        pointwise: vec![5.0],
        bias: vec![100.0],
    }
}

const IMAGE: [f64; 4] = [1.0, 2.0, 3.0, 4.0];
const SHAPE: Shape = Shape { n: 1, h: 2, w: 2, c: 1 };

#[test]
fn lean_convolution_of_a_2x2_image() {
    let y = lean_forward(&IMAGE, SHAPE, &cross(), &Epilogue::default());
    assert_eq!(
        y,
        [
            100.0 + 30.0 * 2.0 + 40.0 * 3.0 + 5.0,
            100.0 + 20.0 + 40.0 * 4.0 + 5.0 * 2.0,
            100.0 + 10.0 + 30.0 * 4.0 + 5.0 * 3.0,
            100.0 + 10.0 * 2.0 + 20.0 * 3.0 + 5.0 * 4.0,
        ]
    );
}

#[test]
fn lean_gradients_of_a_2x2_image() {
    // Only the output at row 0, column 1 counts; it reads W = 1, S = 4, itself = 2.
    let dy = [0.0, 7.0, 0.0, 0.0];
    assert_eq!(lean_data_gradient(&dy, SHAPE, &cross()), [7.0 * 20.0, 7.0 * 5.0, 0.0, 7.0 * 40.0]);
    let gradients = lean_weight_gradients(&IMAGE, &dy, SHAPE, CROSS4);
    assert_eq!(gradients.spatial, [0.0, 7.0, 0.0, 28.0]);
    assert_eq!(gradients.pointwise, [14.0]);
    assert_eq!(gradients.bias, [7.0]);
}

#[test]
fn lean_convolution_mixes_channels_in_one_pixel() {
    let mut spatial = vec![1e6; 18];
    spatial[8..10].copy_from_slice(&[7.0, 8.0]);
    let weights = LeanWeights {
        taps: BOX9.to_vec(),
        group_size: 1,
        spatial,
        pointwise: vec![1.0, 10.0, 100.0, 1000.0],
        bias: vec![0.0, 0.5],
    };
    let y = lean_forward(&[2.0, 3.0], Shape::new(1, 1, 1, 2), &weights, &Epilogue::default());
    assert_eq!(y, [7.0 * 2.0 + 2.0 + 30.0, 0.5 + 8.0 * 3.0 + 200.0 + 3000.0]);
}

#[test]
fn the_epilogue_sees_every_element_and_channel() {
    let weights =
        LeanWeights { taps: vec![], group_size: 1, spatial: vec![], pointwise: vec![1.0, 0.0, 0.0, 1.0], bias: vec![0.0, 0.0] };
    let residual = [0.0, 0.0, 1.0, -100.0];
    let epilogue = Epilogue { scale_shift: Some((&[2.0, 3.0], &[0.5, -0.5])), residual: Some(&residual), relu: true };
    let y = lean_forward(&IMAGE, Shape::new(1, 1, 2, 2), &weights, &epilogue);
    assert_eq!(y, [2.5, 5.5, 7.5, 0.0]);
}

#[test]
fn dense_convolution_of_a_2x2_image_with_stride_2() {
    let weight = (1..=9).map(f64::from).collect();
    let weights = DenseWeights { kernel: 3, stride: 2, inputs: 1, outputs: 1, weight, bias: vec![0.5] };
    assert_eq!(weights.output_shape(SHAPE), Shape::new(1, 1, 1, 1));
    assert_eq!(dense_forward(&IMAGE, SHAPE, &weights, &Epilogue::default()), [0.5 + 5.0 + 12.0 + 24.0 + 36.0]);
    assert_eq!(dense_data_gradient(&[1.0], SHAPE, &weights), [5.0, 6.0, 8.0, 9.0]);
    let gradients = dense_weight_gradients(&IMAGE, &[2.0], SHAPE, &weights);
    assert_eq!(gradients.weight, [0.0, 0.0, 0.0, 0.0, 2.0, 4.0, 0.0, 6.0, 8.0]);
    assert_eq!(gradients.bias, [2.0]);
}

#[test]
fn dense_weights_are_output_input_row_column() {
    let mut weight = vec![0.0; 2 * 3 * 9];
    weight[(3 + 2) * 9 + 1] = 1.0; // output 1, input 2, row 0, column 1: the pixel above
    let weights = DenseWeights { kernel: 3, stride: 1, inputs: 3, outputs: 2, weight, bias: vec![0.0; 2] };
    let x: Vec<f64> = (1..=12).map(f64::from).collect();
    let y = dense_forward(&x, Shape::new(1, 2, 2, 3), &weights, &Epilogue::default());
    assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 6.0]);
}

#[test]
fn pools_of_a_3x3_image() {
    let x: Vec<f64> = (1..=9).map(f64::from).collect();
    let shape = Shape::new(1, 3, 3, 1);
    assert_eq!(average_pool(&x, shape), (vec![3.0], Shape::new(1, 1, 1, 1)));
    assert_eq!(average_pool_backward(&[8.0], shape), [2.0, 2.0, 0.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(global_average_pool(&x[..8], Shape::new(2, 1, 2, 2)), [2.0, 3.0, 6.0, 7.0]);
    let dx = global_average_pool_backward(&[2.0, 4.0, 6.0, 8.0], Shape::new(2, 1, 2, 2));
    assert_eq!(dx, [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
}

#[test]
fn head_of_three_classes() {
    let weights = HeadWeights { weight: (1..=6).map(f64::from).collect(), bias: vec![0.5, 0.0, -1.0] };
    assert_eq!(head_forward(&[1.0, 2.0, 0.0, 1.0], &weights), [5.5, 11.0, 16.0, 2.5, 4.0, 5.0]);
    assert_eq!(head_data_gradient(&[1.0, 0.0, 2.0], &weights), [11.0, 14.0]);
    let gradients = head_weight_gradients(&[1.0, 2.0, 0.0, 1.0], &[1.0, 0.0, 2.0, 0.0, 1.0, 0.0], 3);
    assert_eq!(gradients.weight, [1.0, 2.0, 0.0, 1.0, 2.0, 4.0]);
    assert_eq!(gradients.bias, [1.0, 1.0, 2.0]);
}

#[test]
fn batch_norm_of_two_pixels() {
    let x = [1.0, 10.0, 3.0, 10.0];
    let statistics = batch_statistics(&x, 2);
    assert_eq!(statistics, ChannelStatistics { mean: vec![2.0, 10.0], variance: vec![1.0, 0.0] });
    let y = batch_norm(&x, &statistics, &[2.0, 3.0], &[5.0, 7.0], 0.0625);
    let scale = 2.0 / 1.0625_f64.sqrt();
    assert!((y[0] - (5.0 - scale)).abs() < 1e-15 && (y[2] - (5.0 + scale)).abs() < 1e-14);
    assert_eq!([y[1], y[3]], [7.0, 7.0]);

    let mut running = ChannelStatistics { mean: vec![0.0, 0.0], variance: vec![1.0, 1.0] };
    update_running_statistics(&mut running, &statistics, 2, 0.25);
    assert_eq!(running, ChannelStatistics { mean: vec![0.5, 2.5], variance: vec![0.75 + 0.25 * 2.0, 0.75] });
}

#[test]
fn running_statistics_of_a_single_pixel_stay_finite() {
    let statistics = batch_statistics(&[3.0_f32], 1);
    let mut running = ChannelStatistics { mean: vec![0.0], variance: vec![1.0] };
    update_running_statistics(&mut running, &statistics, 1, 0.5);
    assert_eq!(running, ChannelStatistics { mean: vec![1.5], variance: vec![0.5] });
}

#[test]
fn cross_entropy_of_three_logits() {
    let (logits, labels) = ([1.0_f64, 2.0, 3.0], [2]);
    let probabilities: [f64; 3] = [0.090_030_573_170_380_46, 0.244_728_471_054_797_67, 0.665_240_955_774_821_9];
    let plain = cross_entropy(&logits, &labels, 0.0);
    assert!((plain.value - 0.407_605_964_444_380_1).abs() < 1e-14);
    assert!((plain.gradient[0] - probabilities[0]).abs() < 1e-14);
    assert!((plain.gradient[2] - (probabilities[2] - 1.0)).abs() < 1e-14);

    // The smoothed loss is 0.9 of the plain one and 0.1 of the mean of -log p, which is 1.4076...
    let smooth = cross_entropy(&logits, &labels, 0.1);
    assert!((smooth.value - (0.9 * 0.407_605_964_444_380_1 + 0.1 * 1.407_605_964_444_380_1)).abs() < 1e-14);
    assert!((smooth.gradient[1] - (probabilities[1] - 0.1 / 3.0)).abs() < 1e-14);
}

#[test]
fn cross_entropy_is_a_mean_and_survives_large_logits() {
    let loss = cross_entropy(&[0.0_f32, 0.0, 1e4, -1e4], &[0, 0], 0.0);
    assert!((loss.value - 2.0_f64.ln() / 2.0).abs() < 1e-15);
    assert_eq!(loss.gradient, [-0.25, 0.25, 0.0, 0.0]);
}

#[test]
fn relu_gradient_is_zero_where_the_output_is() {
    assert_eq!(relu_backward(&[1.0, 2.0, 3.0], &[0.0, 5.0, -0.0]), [0.0, 2.0, 0.0]);
}

#[test]
fn blocks_of_one_pixel() {
    let weight = |value: f64| {
        Operator::Lean(LeanWeights { taps: vec![], group_size: 1, spatial: vec![], pointwise: vec![value], bias: vec![1.0] })
    };
    let residual =
        Block { conv1: weight(2.0), norm1: None, conv2: Some(weight(-1.0)), norm2: None, scale: 0.5, relu_after_sum: false };
    let pixel = Shape::new(1, 1, 1, 1);
    assert_eq!(residual.forward(&[3.0], pixel), [3.0 + 0.5 * (1.0 - 7.0)]);
    let symmetric = Block { conv2: None, ..residual };
    assert_eq!(symmetric.forward(&[3.0], pixel), [3.0 - 0.5 * 2.0 * 7.0]);
    assert_eq!(Block { relu_after_sum: true, ..symmetric }.forward(&[3.0], pixel), [0.0]);
}
