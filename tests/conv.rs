//! `ConvPlan` against the oracle: every operator, stride and epilogue, on every instruction set, thread count and cut of the work.
//! Data are small integers, so all sums are exact and every result must have the oracle's bits.

mod common;

use common::data::{exact_maximum, integers};
use leanresnet::conv::{ConvDesc, ConvOperator, ConvPlan, ConvTask, PackedWeights, Residual, TensorView, TensorViewMut};
use leanresnet::internals::reference::{DenseWeights, Epilogue, LeanWeights, Shape, dense_forward, lean_forward_strided};
use leanresnet::{Isa, Pool, Stencil};
use std::ops::Range;

/// Taps [taps][group][channels] in PyTorch's layout, [channels, group, side, side].
fn square(stencil: Stencil, group: usize, taps: &[f32]) -> Vec<f32> {
    let (side, radius, channels) = (stencil.side(), stencil.radius() as i8, taps.len() / stencil.taps().len() / group);
    let mut square = vec![0.0; channels * group * side * side];
    for (tap, (dy, dx)) in stencil.taps().iter().enumerate() {
        let at = (dy + radius) as usize * side + (dx + radius) as usize;
        for (channel, member) in (0..channels).flat_map(|channel| (0..group).map(move |member| (channel, member))) {
            square[(channel * group + member) * side * side + at] = taps[(tap * group + member) * channels + channel];
        }
    }
    square
}

/// A convolution with its data and the oracle's answer.
struct Problem {
    desc: ConvDesc,
    weights: PackedWeights,
    shape: [usize; 4],
    x: Vec<f32>,
    residual: Vec<f32>,
    expected: Vec<f32>,
}

impl Problem {
    fn new(desc: ConvDesc, shape: [usize; 4], with_scale: bool) -> Self {
        let [images, height, width, inputs] = shape;
        let (outputs, input) = (desc.outputs, Shape::new(images, height, width, inputs));
        let terms = match desc.operator {
            ConvOperator::Dense(kernel) => kernel * kernel * inputs,
            _ => 25 * desc.group_size + inputs,
        };
        let maximum = exact_maximum(4 * terms, 10_000);
        let x = integers(1, input.elements(), maximum);
        let bias = integers(2, outputs, 100);
        let (scale, shift) = (integers(3, outputs, 2), integers(4, outputs, 50));
        let rows = |size: usize| (size - 1) / desc.stride + 1;
        let residual = integers(5, images * rows(height) * rows(width) * outputs, 100);
        let epilogue = Epilogue {
            scale_shift: with_scale.then_some((&scale[..], &shift[..])),
            residual: desc.residual.then_some(&residual[..]),
            relu: desc.relu,
        };
        let (weights, expected) = match desc.operator {
            ConvOperator::Lean(stencil) | ConvOperator::Depthwise(stencil) => {
                let (taps, group_size) = (stencil.taps().to_vec(), desc.group_size);
                let spatial = integers(6, taps.len() * group_size * outputs, maximum);
                let square = square(stencil, group_size, &spatial);
                let (packed, pointwise) = if let ConvOperator::Lean(_) = desc.operator {
                    let pointwise = integers(7, outputs * outputs, maximum);
                    let packed = PackedWeights::lean_grouped(stencil, outputs, group_size, &square, &pointwise, &bias);
                    (packed, pointwise)
                } else {
                    let packed = PackedWeights::depthwise_grouped(stencil, outputs, group_size, &square, &bias);
                    (packed, vec![0.0; outputs * outputs])
                };
                let weights = LeanWeights { taps, group_size, spatial, pointwise, bias };
                (packed.unwrap(), lean_forward_strided(&x, input, &weights, desc.stride, &epilogue))
            }
            ConvOperator::Dense(kernel) => {
                let weight = integers(6, outputs * inputs * kernel * kernel, maximum);
                let packed = PackedWeights::dense(inputs, outputs, kernel, &weight, &bias).unwrap();
                let weights = DenseWeights { kernel, stride: desc.stride, inputs, outputs, weight, bias };
                (packed, dense_forward(&x, input, &weights, &epilogue))
            }
            other => panic!("no oracle for {other:?}"),
        };
        let weights = if with_scale { weights.with_scale(&scale, &shift).unwrap() } else { weights };
        Problem { desc, weights, shape, x, residual, expected }
    }

    fn x(&self) -> TensorView<'_> {
        TensorView::new(&self.x, self.shape).unwrap()
    }

    /// The residual, and what the output holds before a run: the residual itself, or NaN that must not be seen.
    fn residual(&self, shape: [usize; 4], in_place: bool) -> (Residual<'_>, Vec<f32>) {
        let nan = vec![f32::NAN; self.expected.len()];
        match (self.desc.residual, in_place) {
            (false, _) => (Residual::None, nan),
            (true, false) => (Residual::Tensor(TensorView::new(&self.residual, shape).unwrap()), nan),
            (true, true) => (Residual::Output, self.residual.clone()),
        }
    }

    /// One run of a plan that may have run before.
    fn run(&self, plan: &mut ConvPlan, in_place: bool) -> Vec<f32> {
        let shape = plan.output_shape(self.shape).unwrap();
        let (residual, mut y) = self.residual(shape, in_place);
        let target = TensorViewMut::new(&mut y, shape).unwrap();
        match residual {
            Residual::None => plan.run(&self.weights, self.x(), target).unwrap(),
            _ => plan.run_with_residual(&self.weights, self.x(), residual, target).unwrap(),
        }
        y
    }

    /// The same by tasks of up to `step` rows, with scratch memory full of NaN.
    fn by_tasks(&self, plan: &ConvPlan, step: usize, in_place: bool) -> Vec<f32> {
        let shape = plan.output_shape(self.shape).unwrap();
        let [images, height, width, channels] = shape;
        let mut scratch = vec![f32::NAN; plan.scratch_values(self.shape[2])];
        let (residual, mut y) = self.residual(shape, in_place);
        for image in 0..images {
            for start in (0..height).step_by(step) {
                let rows: Range<usize> = start..(start + step).min(height);
                let values = (image * height + rows.start) * width * channels..(image * height + rows.end) * width * channels;
                let task = ConvTask { image, rows };
                plan.rows(&task, &self.weights, self.x(), residual, &mut y[values], &mut scratch).unwrap();
            }
        }
        y
    }

    fn check(&self, pool: &Pool) {
        for isa in Isa::available() {
            let mut plan = ConvPlan::new(&self.desc.with_isa(isa), pool).unwrap();
            let case = format!("{plan:?} {:?} {} threads", self.shape, pool.threads());
            assert!(plan.kernel_name().contains(&format!("_f32_{}_", isa.base())), "{case}");
            for in_place in [false, true] {
                assert_eq!(self.run(&mut plan, in_place), self.expected, "in place {in_place}: {case}");
                assert_eq!(self.run(&mut plan, in_place), self.expected, "again, in place {in_place}: {case}");
                for step in [1, 3, 100] {
                    let y = self.by_tasks(&plan, step, in_place);
                    assert_eq!(y, self.expected, "rows of {step}, in place {in_place}: {case}");
                }
            }
        }
    }
}

/// One thread, and more threads than cores.
fn pools() -> [Pool; 2] {
    [Pool::inline(), Pool::new(3).unwrap()]
}

#[test]
fn lean_convolutions_are_the_oracles() {
    for pool in pools() {
        for &stencil in Stencil::ALL {
            for (index, shape) in [[1, 1, 1, 1], [3, 5, 4, 7], [2, 1, 9, 33], [1, 16, 15, 40]].into_iter().enumerate() {
                let desc = ConvDesc::lean(shape[3], stencil).with_relu(index % 2 == 0).with_residual(index % 3 == 0);
                Problem::new(desc, shape, index == 3).check(&pool);
            }
        }
    }
}

#[test]
fn depthwise_convolutions_are_the_oracles() {
    for pool in pools() {
        for &stencil in Stencil::ALL {
            for (index, shape) in [[1, 1, 2, 1], [2, 5, 4, 33], [1, 9, 15, 40]].into_iter().enumerate() {
                let desc = ConvDesc::depthwise(shape[3], stencil).with_relu(index == 0).with_residual(index == 1);
                Problem::new(desc, shape, index == 2).check(&pool);
            }
        }
    }
}

#[test]
fn groups_and_strides_are_the_oracles() {
    for pool in pools() {
        for (index, group_size) in [1, 2, 4, 8, 16, 32].into_iter().enumerate() {
            for stride in [1, 2, 4] {
                let (stencil, shape) = (Stencil::ALL[(index + stride) % 6], [2, 7, 10, 32 + group_size]);
                let lean = ConvDesc::lean(shape[3], stencil).with_relu(index % 2 == 0).with_residual(index % 3 == 0);
                for desc in [lean, ConvDesc::depthwise(shape[3], stencil)] {
                    Problem::new(desc.with_group_size(group_size).with_stride(stride), shape, index == 3).check(&pool);
                }
            }
        }
    }
}

#[test]
fn dense_convolutions_are_the_oracles() {
    for pool in pools() {
        for kernel in [1, 3, 7] {
            for stride in [1, 2, 4] {
                for (index, shape) in [[1, 1, 1, 2], [3, 5, 9, 3], [2, 13, 8, 17]].into_iter().enumerate() {
                    let desc = ConvDesc::dense(shape[3], 20 + 16 * index, kernel).with_stride(stride);
                    let desc = desc.with_relu(index == 1).with_residual(index > 0);
                    Problem::new(desc, shape, index == 2).check(&pool);
                }
            }
        }
    }
}

/// Images so wide that the band of input rows holds fewer rows than a task computes.
#[test]
fn wide_images_go_through_bands() {
    let desc = ConvDesc::dense(8, 5, 3).with_residual(true);
    let problem = Problem::new(desc, [2, 12, 1000, 8], false);
    let plan = ConvPlan::new(&desc, &Pool::inline()).unwrap();
    assert!(plan.scratch_values(1000) < 12 * 1002 * 8);
    problem.check(&Pool::inline());
}

#[test]
fn one_plan_serves_images_of_any_size() {
    let desc = ConvDesc::dense(3, 8, 3).with_stride(2);
    for pool in pools() {
        let mut plan = ConvPlan::new(&desc, &pool).unwrap();
        for shape in [[1, 4, 4, 3], [2, 9, 5000, 3], [3, 2, 1, 3]] {
            let problem = Problem::new(desc, shape, false);
            assert_eq!(problem.run(&mut plan, false), problem.expected, "{shape:?}");
        }
    }
}

#[test]
fn no_images_are_no_work() {
    let desc = ConvDesc::dense(1, 1, 7);
    let weights = PackedWeights::dense(1, 1, 7, &[0.0; 49], &[]).unwrap();
    let mut plan = ConvPlan::new(&desc, &Pool::inline()).unwrap();
    let shape = [0, 1, usize::MAX, 1];
    plan.run(&weights, TensorView::new(&[], shape).unwrap(), TensorViewMut::new(&mut [], shape).unwrap()).unwrap();
}
