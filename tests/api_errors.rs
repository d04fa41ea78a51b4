//! What callers are told when they are wrong: the very words, and the kind that decides the exit code.
#![forbid(unsafe_code)]

use leanresnet::conv::{ConvDesc, ConvPlan, ConvTask, PackedWeights, Residual, TensorView, TensorViewMut};
use leanresnet::{Error, ErrorKind, Images, Isa, Model, Network, Pool, Precision, Result, Session, Stencil};

/// Checks that a call fails as a wrong use with these words.
fn refused<T>(result: Result<T>, expected: &str) {
    let error = result.err().unwrap_or_else(|| panic!("accepted, not refused with: {expected}"));
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
}

fn plan(desc: ConvDesc) -> Result<ConvPlan> {
    ConvPlan::new(&desc, &Pool::inline())
}

#[test]
fn descriptions_that_no_kernel_computes() {
    let cases = [
        (ConvDesc::lean(0, Stencil::Box9), "input channels; expected at least 1, got 0"),
        (ConvDesc::dense(3, 0, 3), "output channels; expected at least 1, got 0"),
        (ConvDesc::lean(4, Stencil::Box9).with_stride(3), "stride of a lean convolution; expected 1, 2 or 4, got 3"),
        (ConvDesc::depthwise(4, Stencil::Box9).with_stride(0), "stride of a depth-wise convolution; expected 1, 2 or 4, got 0"),
        (ConvDesc::lean(12, Stencil::Box9).with_group_size(3), "group size; expected one of 1, 2, 4, 8, 16, 32, got 3"),
        (ConvDesc::depthwise(12, Stencil::Row3).with_group_size(8), "group size; expected a divisor of 12 channels, got 8"),
        (ConvDesc::dense(4, 4, 3).with_group_size(2), "group size of a dense convolution; expected 1, got 2"),
        (ConvDesc::dense(4, 4, 5), "kernel of a dense convolution; expected 1, 3 or 7, got 5"),
        (ConvDesc::dense(4, 4, 3).with_stride(3), "stride of a dense convolution; expected 1, 2 or 4, got 3"),
        (ConvDesc::dense(4, 4, 3).with_stride(0), "stride of a dense convolution; expected 1, 2 or 4, got 0"),
    ];
    for (desc, expected) in cases {
        refused(plan(desc), expected);
    }
    let mut wider = ConvDesc::lean(4, Stencil::Box9);
    wider.outputs = 8;
    refused(plan(wider), "output channels of a lean convolution; expected 4, as inputs, got 8");
}

#[test]
fn instruction_sets_that_cannot_run() {
    let available = Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ");
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        let result = plan(ConvDesc::dense(1, 1, 1).with_isa(isa));
        assert!(matches!(result, Err(Error::Isa { .. })));
        refused(result, &format!("instruction set `{isa}` is not available; expected one of {available}, got `{isa}`"));
    }
}

#[test]
fn views_of_another_length() {
    refused(TensorView::new(&[0.0; 5], [1, 2, 3, 4]), "shape of tensor; expected 24 values (1 x 2 x 3 x 4), got 5 values");
    refused(TensorViewMut::new(&mut [], [1, 1, 1, 1]), "shape of tensor; expected 1 values (1 x 1 x 1 x 1), got 0 values");
    let huge = [0, usize::MAX, 2, 1];
    refused(TensorView::new(&[], huge), "shape of tensor; expected a size that fits memory, got 0 values");
}

#[test]
fn weights_of_another_length() {
    let lean = |channels, spatial: &[f32], pointwise: &[f32], bias: &[f32]| {
        PackedWeights::lean(Stencil::Cross5, channels, spatial, pointwise, bias)
    };
    refused(lean(2, &[0.0; 17], &[0.0; 4], &[]), "shape of spatial weight; expected 18 values, got 17 values");
    refused(lean(2, &[0.0; 18], &[0.0; 5], &[]), "shape of pointwise weight; expected 4 values, got 5 values");
    refused(lean(2, &[0.0; 18], &[0.0; 4], &[0.0]), "shape of bias; expected 2 values, got 1 values");
    refused(lean(0, &[], &[], &[]), "shape of spatial weight; expected at least one value, got 0 values");
    refused(lean(usize::MAX, &[], &[], &[]), "shape of spatial weight; expected a size that fits memory, got 0 values");
    let grouped = |size, spatial: &[f32]| PackedWeights::lean_grouped(Stencil::Cross5, 4, size, spatial, &[0.0; 16], &[]);
    refused(grouped(2, &[0.0; 71]), "shape of spatial weight; expected 72 values, got 71 values");
    refused(grouped(64, &[0.0; 36]), "group size; expected one of 1, 2, 4, 8, 16, 32, got 64");
    let transposed = PackedWeights::lean_transposed(Stencil::Cross5, 2, &[0.0; 18], &[0.0; 3]);
    refused(transposed, "shape of pointwise weight; expected 4 values, got 3 values");
    refused(PackedWeights::dense(3, 2, 3, &[0.0; 53], &[]), "shape of dense weight; expected 54 values, got 53 values");
    refused(PackedWeights::dense(usize::MAX, 0, 1, &[], &[]), "shape of dense weight; expected at least one value, got 0 values");
    let packed = PackedWeights::dense(1, 2, 1, &[0.0; 2], &[]).unwrap();
    refused(packed.clone().with_scale(&[0.0], &[0.0; 2]), "shape of scale; expected 2 values, got 1 values");
    refused(packed.with_scale(&[0.0; 2], &[0.0; 3]), "shape of shift; expected 2 values, got 3 values");
}

#[test]
fn weights_of_another_convolution() {
    let cross = PackedWeights::lean(Stencil::Cross5, 4, &[0.0; 36], &[0.0; 16], &[]).unwrap();
    let matrix = PackedWeights::dense(4, 4, 1, &[0.0; 16], &[]).unwrap();
    let cases = [
        (ConvDesc::lean(4, Stencil::Box9), &cross, "packed weights; expected lean box9, 4 channels, got lean cross5, 4 channels"),
        (
            ConvDesc::lean(5, Stencil::Cross5),
            &cross,
            "packed weights; expected lean cross5, 5 channels, got lean cross5, 4 channels",
        ),
        (
            ConvDesc::lean(4, Stencil::Cross5),
            &matrix,
            "packed weights; expected lean cross5, 4 channels, got dense, 1 kernel rows of 4 values, 4 output channels",
        ),
        (
            ConvDesc::dense(4, 4, 3),
            &matrix,
            "packed weights; expected dense, 3 kernel rows of 12 values, 4 output channels, \
             got dense, 1 kernel rows of 4 values, 4 output channels",
        ),
    ];
    for (desc, weights, expected) in cases {
        let (x, mut y) = (vec![0.0; desc.inputs], vec![0.0; desc.outputs]);
        let x = TensorView::new(&x, [1, 1, 1, desc.inputs]).unwrap();
        let y = TensorViewMut::new(&mut y, [1, 1, 1, desc.outputs]).unwrap();
        refused(plan(desc).unwrap().run(weights, x, y), expected);
    }
}

#[test]
fn tensors_of_another_shape() {
    let weights = PackedWeights::dense(2, 1, 3, &[0.0; 18], &[]).unwrap();
    let desc = ConvDesc::dense(2, 1, 3).with_stride(2);
    let values = [0.0; 64];
    let view = |shape: [usize; 4]| TensorView::new(&values[..shape.iter().product()], shape).unwrap();
    let run = |desc: ConvDesc, x: [usize; 4], residual: Option<[usize; 4]>, y: [usize; 4]| {
        let mut plan = plan(desc)?;
        let mut output = [0.0; 64];
        let y = TensorViewMut::new(&mut output[..y.iter().product()], y)?;
        match residual {
            Some(residual) => plan.run_with_residual(&weights, view(x), Residual::Tensor(view(residual)), y),
            None => plan.run(&weights, view(x), y),
        }
    };
    let with_residual = desc.with_residual(true);
    let (x, y) = ([1, 4, 3, 2], [1, 2, 2, 1]);
    run(desc, x, None, y).unwrap();
    run(with_residual, x, Some(y), y).unwrap();
    refused(run(desc, [1, 4, 3, 1], None, y), "shape of input; expected at least one pixel of 2 channels, got 1 x 4 x 3 x 1");
    refused(run(desc, [1, 0, 3, 2], None, y), "shape of input; expected at least one pixel of 2 channels, got 1 x 0 x 3 x 2");
    refused(run(desc, x, None, [1, 4, 3, 1]), "shape of output; expected 1 x 2 x 2 x 1, got 1 x 4 x 3 x 1");
    refused(run(with_residual, x, Some([1, 4, 1, 1]), y), "shape of residual; expected 1 x 2 x 2 x 1, got 1 x 4 x 1 x 1");
    refused(run(with_residual, x, None, y), "residual; expected one, as the description says, got Residual::None");
    refused(run(desc, x, Some(y), y), "residual; expected none, as the description says, got one");
}

#[test]
fn tasks_that_there_are_not() {
    let weights = PackedWeights::dense(1, 1, 3, &[0.0; 9], &[]).unwrap();
    let plan = plan(ConvDesc::dense(1, 1, 3)).unwrap();
    let needed = plan.scratch_values(2);
    let x = [0.0; 12];
    let run = |image, rows, y: usize, scratch| {
        let x = TensorView::new(&x, [2, 3, 2, 1]).unwrap();
        plan.rows(&ConvTask { image, rows }, &weights, x, Residual::None, &mut vec![0.0; y], &mut vec![0.0; scratch])
    };
    run(1, 1..3, 4, needed).unwrap();
    run(0, 2..2, 0, needed).unwrap();
    refused(run(2, 0..1, 2, needed), "image of the task; expected less than 2, got 2");
    refused(run(0, 0..4, 8, needed), "rows of the task; expected a range in 0..3, got 0..4");
    #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
    refused(run(0, 2..1, 0, needed), "rows of the task; expected a range in 0..3, got 2..1");
    refused(run(0, 0..1, 3, needed), "shape of rows of the output; expected 2 values, got 3 values");
    refused(run(0, 0..1, 2, 1), &format!("shape of scratch; expected at least {needed} values, got 1 values"));
}

#[test]
fn sessions_and_pools() {
    let model = Model::random(&Network::preset("small").unwrap(), 1);
    refused(Session::builder(&model).max_batch(0).build(), "max_batch; expected at least 1, got 0");
    refused(Pool::new(0), "threads; expected at least 1, got 0");
    refused(
        Network::preset("tiny"),
        "preset; expected one of small, base, imagenet, cifar10-s, cifar10-m, cifar10-fast, got `tiny`",
    );
    refused("f16".parse::<Precision>(), "precision; expected one of f32, bf16, bf16x3, auto, auto-near-f32, got `f16`");
    let pixels = [0.0; 12];
    refused(Images::nchw_f32(&pixels, [1, 3, 2, 3]), "shape of images; expected 18 values (1 x 3 x 2 x 3), got 12 values");
    let mut session = Session::builder(&model).max_batch(1).build().unwrap();
    let images = Images::nchw_f32(&pixels, [1, 3, 2, 2]).unwrap();
    refused(session.run(images).map(|_| ()), "shape of images; expected 3 x 32 x 32 each, got 3 x 2 x 2");
}
