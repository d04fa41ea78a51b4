//! Calls that would leave their slices are refused before any kernel runs: on every tier, one value too few is too few.
#![forbid(unsafe_code)]

use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::kernel::conv::{ConvCall, ConvKernel};
use leanresnet::internals::kernel::elementwise::MomentumStep;
use leanresnet::internals::kernel::gradient::{StencilGradientCall, WeightGradientCall};
use leanresnet::internals::kernel::rows::{Epilogue, Layout, Residual, Source};
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::kernel::upcoming::Ahead;
use leanresnet::internals::pack::{PANEL, PackedWeights};
use leanresnet::{Isa, Stencil};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

const C: usize = 5;

thread_local! {
    /// True while this thread expects a panic, whose message would only be in the way.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

fn panics(run: impl FnOnce()) -> bool {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                print(info);
            }
        }));
    });
    EXPECTED.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    EXPECTED.set(false);
    result.is_err()
}

fn tiers() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().map(|isa| Kernels::of(isa).expect("an available tier"))
}

/// Sizes of a convolution's call, all exact at first.
#[derive(Clone)]
struct Sizes {
    weights: PackedWeights,
    x: (usize, Layout),
    y: (usize, Layout),
    residual: (usize, Layout),
    rows: std::ops::Range<usize>,
    height: usize,
    width: usize,
    input: (usize, usize),
    stride: usize,
    panels: usize,
    k: std::ops::Range<usize>,
}

impl Sizes {
    fn accepted(&self, kernel: ConvKernel) -> bool {
        let (x, residual) = (vec![0.0; self.x.0], vec![0.0; self.residual.0]);
        let mut y = vec![0.0; self.y.0];
        !panics(|| {
            kernel.run(&mut ConvCall {
                weights: &self.weights,
                x: Source { data: &x, layout: self.x.1 },
                y: Target::new(&mut y, self.y.1),
                residual: Residual::Rows(Source { data: &residual, layout: self.residual.1 }),
                epilogue: Epilogue::default(),
                rows: self.rows.clone(),
                height: self.height,
                width: self.width,
                input: self.input,
                stride: self.stride,
                panels: 0..self.panels,
                k: self.k.clone(),
                ahead: Ahead::default(),
            });
        })
    }
}

/// A lean convolution of 4 x 3 pixels.
fn lean() -> Sizes {
    let image = (4 * 3 * C, Layout::image(4, 3, C));
    let weights = PackedWeights::lean(Stencil::Cross5, C, &[1.0; 9 * C], &[1.0; C * C], &[]).expect("sizes fit");
    let (x, y, residual) = (image, image, image);
    Sizes { weights, x, y, residual, rows: 0..4, height: 4, width: 3, input: (4, 3), stride: 1, panels: 1, k: 0..C }
}

/// A dense 3x3 convolution of stride 2 with 2 x 3 outputs.
fn dense() -> Sizes {
    let weights = PackedWeights::dense(2, C, 3, &[1.0; C * 2 * 9], &[]).expect("sizes fit");
    let band = (5 * 7 * 2, Layout::image(5, 7, 2));
    let output = (2 * 3 * C, Layout::image(2, 3, C));
    Sizes {
        weights,
        x: band,
        y: output,
        residual: output,
        rows: 0..2,
        height: 2,
        width: 3,
        input: (0, 0),
        stride: 2,
        panels: 1,
        k: 0..6,
    }
}

fn groups() -> PackedWeights {
    PackedWeights::lean_grouped(Stencil::Cross5, 2 * C, 2, &[0.0; 36 * C], &[0.0; 4 * C * C], &[]).expect("sizes fit")
}

fn refused(kernel: ConvKernel, sizes: &Sizes, fault: &str, change: impl Fn(&mut Sizes)) {
    let mut changed = sizes.clone();
    change(&mut changed);
    assert!(!changed.accepted(kernel), "{}: {fault} was accepted", kernel.name);
}

#[test]
fn convolutions_refuse_what_does_not_fit() {
    for kernels in tiers() {
        for (kernel, sizes) in [(kernels.f32.fused(Stencil::Cross5), lean()), (kernels.f32.dense, dense())] {
            assert!(sizes.accepted(kernel), "{}", kernel.name);
            refused(kernel, &sizes, "a short input", |sizes| sizes.x.0 -= 1);
            refused(kernel, &sizes, "a short output", |sizes| sizes.y.0 -= 1);
            refused(kernel, &sizes, "a short residual", |sizes| sizes.residual.0 -= 1);
            refused(kernel, &sizes, "an origin too late", |sizes| sizes.x.1.origin = 1);
            refused(kernel, &sizes, "an output's origin too late", |sizes| sizes.y.1.origin = 1);
            refused(kernel, &sizes, "an input without its first row", |sizes| sizes.x.1.first = 1);
            refused(kernel, &sizes, "an output without its first row", |sizes| sizes.y.1.first = 1);
            refused(kernel, &sizes, "a residual without its first row", |sizes| sizes.residual.1.first = 1);
            refused(kernel, &sizes, "a row beyond the image", |sizes| sizes.rows.end += 1);
            refused(kernel, &sizes, "a panel too many", |sizes| sizes.panels = 2);
            refused(kernel, &sizes, "a k too many", |sizes| sizes.k.end += 1);
            refused(kernel, &sizes, "an empty range of k from behind", |sizes| sizes.k.start = sizes.k.end + 1);
            refused(kernel, &sizes, "a width too many", |sizes| sizes.width += 1);
            refused(kernel, &sizes, "steps that overflow", |sizes| sizes.y.1.row_step = usize::MAX / 2 + 1);
            refused(kernel, &sizes, "an input's steps that overflow", |sizes| sizes.x.1.row_step = usize::MAX / 2 + 1);
            refused(kernel, &sizes, "weights of another stencil", |sizes| {
                sizes.weights = PackedWeights::lean(Stencil::Box9, C, &[0.0; 9 * C], &[0.0; C * C], &[]).expect("packed weights");
            });
        }
        let (fused, sizes) = (kernels.f32.fused(Stencil::Cross5), lean());
        refused(fused, &sizes, "a row outside of the input", |sizes| sizes.input.0 -= 1);
        refused(fused, &sizes, "a column outside of the input", |sizes| sizes.input.1 -= 1);
        refused(fused, &sizes, "an input wider than its slice", |sizes| sizes.input.1 += 1);
        refused(fused, &sizes, "a stride beyond the input", |sizes| sizes.stride = 2);
        refused(fused, &sizes, "a stride that overflows", |sizes| sizes.stride = usize::MAX / 2 + 2);
        refused(fused, &sizes, "weights in groups", |sizes| sizes.weights = groups());
        refused(fused, &sizes, "a ring without the rows above and below", |sizes| sizes.x.1.ring = 3);
        refused(fused, &sizes, "pixels apart", |sizes| {
            sizes.x.1.pixel_step = C + 1;
            sizes.x.0 = 1000;
        });
        refused(kernels.f32.dense, &dense(), "a ring without all rows", |sizes| sizes.x.1.ring = 4);
        refused(kernels.f32.dense, &dense(), "a stride too far", |sizes| sizes.stride = 3);
        refused(kernels.f32.dense, &dense(), "a stride that overflows", |sizes| sizes.stride = usize::MAX / 2 + 2);
    }
}

#[test]
fn nothing_to_do_is_no_fault() {
    for kernels in tiers() {
        for (kernel, sizes) in [(kernels.f32.fused(Stencil::Cross5), lean()), (kernels.f32.dense, dense())] {
            for change in [
                |sizes: &mut Sizes| sizes.width = 0,
                |sizes: &mut Sizes| sizes.rows = 1..1,
                |sizes: &mut Sizes| sizes.rows = 0..0,
            ] {
                let mut nothing = sizes.clone();
                (nothing.x.0, nothing.y.0, nothing.residual.0) = (0, 0, 0);
                change(&mut nothing);
                assert!(nothing.accepted(kernel), "{}", kernel.name);
            }
        }
    }
}

/// 2 rows of 3 pixels, 4 inputs, 5 outputs.
fn weight_gradient(kernels: &Kernels, lengths: [usize; 3], steps: [usize; 2], panel_step: usize, offset: usize) -> bool {
    let (x, g) = (vec![1.0; lengths[0]], vec![1.0; lengths[1]]);
    let mut dw = vec![0.0; lengths[2]];
    !panics(|| {
        kernels.f32.weight_gradient.run(&mut WeightGradientCall {
            x: &x,
            x_step: 4,
            x_row: steps[0],
            g: &g,
            g_step: C,
            g_row: steps[1],
            dw: &mut dw,
            panel_step,
            offset,
            rows: 2,
            pixels: 3,
            k: 4,
            channels: C,
            accumulate: false,
            upcoming: Default::default(),
        });
    })
}

#[test]
fn weight_gradients_refuse_what_does_not_fit() {
    let exact = [24, 30, 4 * PANEL];
    let panel = 4 * PANEL;
    for kernels in tiers() {
        assert!(weight_gradient(kernels, exact, [12, 15], panel, 0));
        for short in 0..3 {
            let mut lengths = exact;
            lengths[short] -= 1;
            assert!(!weight_gradient(kernels, lengths, [12, 15], panel, 0), "{}: slice {short}", kernels.isa);
        }
        assert!(!weight_gradient(kernels, exact, [13, 15], panel, 0), "rows of x too far apart");
        assert!(!weight_gradient(kernels, exact, [12, 16], panel, 0), "rows of g too far apart");
        assert!(!weight_gradient(kernels, exact, [usize::MAX - 3, 15], panel, 0), "rows of x that overflow");
        assert!(!weight_gradient(kernels, exact, [12, 15], panel, 1), "an offset too far");
        assert!(!weight_gradient(kernels, exact, [12, 15], panel, usize::MAX - 100), "an offset that overflows");
    }
}

/// 2 x 3 pixels of 5 channels.
fn stencil_gradient(kernels: &Kernels, lengths: [usize; 4], height: usize, rows: usize, stencil: Stencil) -> bool {
    let (x, g) = (vec![1.0; lengths[0]], vec![1.0; lengths[1]]);
    let (mut dstencil, mut dbias) = (vec![0.0; lengths[2]], vec![0.0; lengths[3]]);
    !panics(|| {
        kernels.f32.stencil_gradient(Stencil::Cross4).run(&mut StencilGradientCall {
            stencil,
            x: &x,
            g: &g,
            dstencil: &mut dstencil,
            dbias: &mut dbias,
            rows: 0..rows,
            height,
            width: 3,
            channels: C,
            accumulate: false,
        });
    })
}

#[test]
fn stencil_gradients_refuse_what_does_not_fit() {
    let exact = [30, 30, 4 * PANEL, PANEL];
    for kernels in tiers() {
        assert!(stencil_gradient(kernels, exact, 2, 2, Stencil::Cross4));
        for short in 0..4 {
            let mut lengths = exact;
            lengths[short] -= 1;
            assert!(!stencil_gradient(kernels, lengths, 2, 2, Stencil::Cross4), "{}: slice {short}", kernels.isa);
        }
        assert!(!stencil_gradient(kernels, exact, 2, 3, Stencil::Cross4), "a row beyond the image");
        assert!(!stencil_gradient(kernels, exact, 3, 2, Stencil::Cross4), "a row too many");
        assert!(!stencil_gradient(kernels, exact, usize::MAX / 8, 2, Stencil::Cross4), "an image that overflows");
        assert!(!stencil_gradient(kernels, exact, 2, 2, Stencil::Cross5), "another stencil");
    }
}

/// Each operator on slices of the given lengths; exact are 4 pixels of 3 channels, and what belongs to them.
type Operator = fn(&Kernels, &[usize]) -> bool;

#[test]
fn elementwise_operators_refuse_what_does_not_fit() {
    let operators: [(&str, &[usize], Operator); 11] = [
        ("normalize", &[12, 12, 12, 3, 3], |kernels, n| {
            let ([x, r, s, t], mut y) = ([n[0], n[1], n[3], n[4]].map(zeros), zeros(n[2]));
            !panics(|| kernels.f32.elementwise.normalize(&x, Some(&r), &mut y, (&s, &t), true))
        }),
        ("statistics", &[12, 3, 3, 3], |kernels, n| {
            let ([x, s], mut a, mut b) = ([n[0], n[1]].map(zeros), vec![0.0; n[2]], vec![0.0; n[3]]);
            !panics(|| kernels.f32.elementwise.statistics(&x, &s, &mut a, &mut b))
        }),
        ("gradientstatistics", &[12, 12, 12, 3, 3, 3, 3, 3], |kernels, n| {
            let ([x, g, s, t, m], mut y) = ([n[0], n[1], n[3], n[4], n[5]].map(zeros), zeros(n[2]));
            let (mut a, mut b) = (vec![0.0; n[6]], vec![0.0; n[7]]);
            !panics(|| kernels.f32.elementwise.gradient_statistics(&x, Some(&g), &mut y, (&s, &t, &m), true, (&mut a, &mut b)))
        }),
        ("normgradient", &[12, 12, 12, 3, 3, 3], |kernels, n| {
            let ([x, g, p, q, r], mut y) = ([n[0], n[1], n[3], n[4], n[5]].map(zeros), zeros(n[2]));
            !panics(|| kernels.f32.elementwise.norm_gradient(&x, Some(&g), &mut y, (&p, &q, &r)))
        }),
        ("relugradient", &[12, 12, 12, 12], |kernels, n| {
            let ([x, g, c], mut y) = ([n[0], n[1], n[2]].map(zeros), zeros(n[3]));
            !panics(|| kernels.f32.elementwise.relu_gradient(&x, &g, Some(&c), &mut y))
        }),
        ("accumulate", &[12, 12], |kernels, n| {
            let (x, mut y) = (zeros(n[0]), zeros(n[1]));
            !panics(|| kernels.f32.elementwise.accumulate(&x, &mut y))
        }),
        ("pool", &[48, 12], |kernels, n| {
            let (x, mut y) = (zeros(n[0]), zeros(n[1]));
            !panics(|| kernels.f32.elementwise.pool(&x, 24, &mut y, 3, 0.25))
        }),
        ("unpool", &[12, 48], |kernels, n| {
            let (x, mut y) = (zeros(n[0]), zeros(n[1]));
            !panics(|| kernels.f32.elementwise.unpool(&x, &mut y, 24, 3, 0.25))
        }),
        // Channels are taken from the smaller slice: 25 values are no whole pixels of 4.
        ("globalpool", &[25, 5], |kernels, n| {
            let (x, mut y) = (zeros(n[0]), zeros(n[1]));
            !panics(|| kernels.f32.elementwise.global_pool(&x, &mut y, 0.25))
        }),
        ("spread", &[5, 25], |kernels, n| {
            let (x, mut y) = (zeros(n[0]), zeros(n[1]));
            !panics(|| kernels.f32.elementwise.spread(&x, &mut y, 0.25))
        }),
        ("momentum", &[12, 12, 12], |kernels, n| {
            let (g, mut w, mut v) = (zeros(n[0]), zeros(n[1]), zeros(n[2]));
            let step =
                MomentumStep { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0, gradient_factor: 1.0, nesterov: true };
            !panics(|| kernels.f32.elementwise.momentum(&g, &mut w, &mut v, &step))
        }),
    ];
    for kernels in tiers() {
        for (name, exact, accepts) in &operators {
            assert!(accepts(kernels, exact), "{name} on {}", kernels.isa);
            for short in 0..exact.len() {
                let mut lengths = exact.to_vec();
                lengths[short] -= 1;
                assert!(!accepts(kernels, &lengths), "{name} on {}: slice {short}", kernels.isa);
            }
        }
    }
}

#[test]
fn pools_refuse_rows_that_overlap_or_overflow() {
    for kernels in tiers() {
        let (x, mut y) = (zeros(48), zeros(12));
        assert!(panics(|| kernels.f32.elementwise.pool(&x, 23, &mut y, 3, 0.25)), "overlapping rows");
        assert!(panics(|| kernels.f32.elementwise.pool(&x, 25, &mut y, 3, 0.25)), "a second row beyond the end");
        assert!(panics(|| kernels.f32.elementwise.pool(&x, usize::MAX - 8, &mut y, 3, 0.25)), "rows that overflow");
        let mut y = zeros(48);
        assert!(panics(|| kernels.f32.elementwise.unpool(&x[..12], &mut y, 23, 3, 0.25)), "overlapping rows");
        assert!(panics(|| kernels.f32.elementwise.unpool(&x[..12], &mut y, usize::MAX - 8, 3, 0.25)), "rows that overflow");
    }
}

fn zeros(length: usize) -> Vec<f32> {
    vec![0.0; length]
}
