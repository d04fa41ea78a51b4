//! The kernels of every instruction set against each other: whatever the numbers, they have to agree to the bit.
#![forbid(unsafe_code)]

use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::kernel::conv::{ConvCall, ConvKernel};
use leanresnet::internals::kernel::gradient::{StencilGradientCall, WeightGradientCall};
use leanresnet::internals::kernel::rows::{Epilogue, Layout, Source};
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::pack::{PANEL, PackedWeights, panels};
use leanresnet::{Isa, Stencil};

/// Choices from the head of the input, numbers from all of it, over and over.
struct Input<'a> {
    head: &'a [u8],
    data: &'a [u8],
    position: usize,
}

impl Input<'_> {
    fn choice(&mut self, limit: usize) -> usize {
        let (byte, rest) = self.head.split_first().map_or((0, &[][..]), |(byte, rest)| (usize::from(*byte), rest));
        self.head = rest;
        byte % limit
    }

    /// Numbers of any kind: four bytes are the bits of one.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let mut byte = || {
            self.position += 1;
            self.data[self.position % self.data.len()]
        };
        (0..count).map(|_| f32::from_le_bytes([byte(), byte(), byte(), byte()])).collect()
    }
}

/// One problem for all instruction sets: a convolution, or the gradient of its weights.
pub fn kernels(data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut input = Input { head: data, data, position: 0 };
    let operator = input.choice(4);
    let size = (1 + input.choice(9), 1 + input.choice(19));
    let (inputs, outputs) = (1 + input.choice(40), 1 + input.choice(70));
    let stencil = Stencil::ALL[input.choice(Stencil::ALL.len())];
    let relu = input.choice(2) == 1;
    let results: Vec<(Isa, Vec<f32>)> = Isa::available()
        .filter(|isa| *isa != Isa::Portable || cfg!(any(target_arch = "aarch64", target_feature = "fma")))
        .map(|isa| {
            let kernels = Kernels::of(isa).expect("an available instruction set");
            let mut input = Input { head: &[], data, position: 0 };
            let result = match operator {
                0 => fused(kernels, &mut input, stencil, size, inputs, relu),
                1 => dense(kernels, &mut input, size, (inputs, outputs), relu),
                2 => weight_gradient(kernels, &mut input, size, (inputs, outputs)),
                _ => stencil_gradient(kernels, &mut input, stencil, size, inputs),
            };
            (isa, result)
        })
        .collect();
    for pair in results.windows(2) {
        let ((first, expected), (second, got)) = (&pair[0], &pair[1]);
        let different = expected.iter().zip(got).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()));
        assert_eq!(different, None, "operator {operator}, {size:?}, {inputs}, {outputs}, {stencil}: {first} and {second} differ");
    }
}

fn run(kernel: ConvKernel, weights: &PackedWeights, x: &[f32], (height, width): (usize, usize), relu: bool) -> Vec<f32> {
    let pixel = weights.row_length() / weights.kernel_rows().max(1);
    let mut y = vec![f32::NAN; height * width * weights.channels()];
    let source = Source { data: x, layout: Layout::image(height, width, pixel) };
    let target = Target::new(&mut y, Layout::image(height, width, weights.channels()));
    let whole = ConvCall::new(weights, source, target, (height, width));
    kernel.run(&mut ConvCall { epilogue: Epilogue { relu, from_output: false }, ..whole });
    y
}

fn fused(kernels: &Kernels, input: &mut Input, stencil: Stencil, size: (usize, usize), channels: usize, relu: bool) -> Vec<f32> {
    let mask = stencil.mask();
    let mut spatial = input.numbers(channels * mask.len());
    spatial.iter_mut().enumerate().filter(|(at, _)| !mask[at % mask.len()]).for_each(|(_, weight)| *weight = 0.0);
    let (pointwise, bias) = (input.numbers(channels * channels), input.numbers(channels));
    let weights = PackedWeights::lean(stencil, channels, &spatial, &pointwise, &bias).expect("weights of the right size");
    let x = input.numbers(size.0 * size.1 * channels);
    run(kernels.f32.fused(stencil), &weights, &x, size, relu)
}

fn dense(kernels: &Kernels, input: &mut Input, size: (usize, usize), (inputs, outputs): (usize, usize), relu: bool) -> Vec<f32> {
    let (weight, bias) = (input.numbers(inputs * outputs), input.numbers(outputs));
    let weights = PackedWeights::dense(inputs, outputs, 1, &weight, &bias).expect("weights of the right size");
    let x = input.numbers(size.0 * size.1 * inputs);
    run(kernels.f32.dense, &weights, &x, size, relu)
}

fn weight_gradient(
    kernels: &Kernels,
    input: &mut Input,
    (rows, pixels): (usize, usize),
    (inputs, outputs): (usize, usize),
) -> Vec<f32> {
    let (x, g) = (input.numbers(rows * pixels * inputs), input.numbers(rows * pixels * outputs));
    let mut dw = vec![0.0; panels(outputs) * PANEL * inputs];
    kernels.f32.weight_gradient.run(&mut WeightGradientCall {
        x: &x,
        x_step: inputs,
        x_row: pixels * inputs,
        g: &g,
        g_step: outputs,
        g_row: pixels * outputs,
        dw: &mut dw,
        panel_step: inputs * PANEL,
        offset: 0,
        rows,
        pixels,
        k: inputs,
        channels: outputs,
        accumulate: false,
        upcoming: Default::default(),
    });
    dw
}

fn stencil_gradient(
    kernels: &Kernels,
    input: &mut Input,
    stencil: Stencil,
    (height, width): (usize, usize),
    channels: usize,
) -> Vec<f32> {
    let (x, g) = (input.numbers(height * width * channels), input.numbers(height * width * channels));
    let padded = panels(channels) * PANEL;
    let mut dstencil = vec![0.0; padded * stencil.taps().len()];
    let mut dbias = vec![0.0; padded];
    kernels.f32.stencil_gradient(stencil).run(&mut StencilGradientCall {
        stencil,
        x: &x,
        g: &g,
        dstencil: &mut dstencil,
        dbias: &mut dbias,
        rows: 0..height,
        height,
        width,
        channels,
        accumulate: false,
    });
    dstencil.extend(dbias);
    dstencil
}
