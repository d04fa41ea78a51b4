//! Lean convolutions in the forms that exporters give them.
#![forbid(unsafe_code)]

use leanresnet::Stencil;
use leanresnet::net::Operation;

use crate::build::Attribute::{Int, Ints};
use crate::build::Builder;
use crate::data::{Random, uniform};
use crate::{check, layers};

/// Channels, height and width of the images inside.
const CHANNELS: usize = 8;

struct Form {
    builder: Builder,
    random: Random,
    seed: u64,
}

impl Form {
    fn weights(&mut self, dims: &[usize], scale: f32) -> String {
        self.seed += 1;
        let values: Vec<f32> = uniform(self.seed, dims.iter().product()).iter().map(|value| scale * value).collect();
        self.builder.floats(dims, &values)
    }

    /// A convolution in groups with the taps of a stencil and nothing outside of it.
    fn stencil(&mut self, x: &str, stencil: Stencil, group_size: usize, with_bias: bool) -> String {
        let (side, mask) = (stencil.side(), stencil.mask());
        self.seed += 1;
        let values: Vec<f32> = uniform(self.seed, CHANNELS * group_size * side * side)
            .iter()
            .enumerate()
            .map(|(index, value)| if mask[index % mask.len()] { *value } else { 0.0 })
            .collect();
        let weight = self.builder.floats(&[CHANNELS, group_size, side, side], &values);
        let bias = with_bias.then(|| self.weights(&[CHANNELS], 0.5));
        let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
        let padding = vec![(side / 2) as i64; 4];
        let groups = Int((CHANNELS / group_size) as i64);
        self.builder.node("Conv", &inputs, &[("group", groups), ("pads", Ints(padding))])
    }

    fn pointwise(&mut self, x: &str, with_bias: bool) -> String {
        let weight = self.weights(&[CHANNELS, CHANNELS, 1, 1], 0.4);
        let bias = with_bias.then(|| self.weights(&[CHANNELS], 0.5));
        let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
        self.builder.node("Conv", &inputs, &[])
    }

    fn norm(&mut self, x: &str) -> String {
        let parts: Vec<String> = (0..3).map(|_| self.weights(&[CHANNELS], 0.7)).collect();
        let variance: Vec<f32> = uniform(self.seed, CHANNELS).iter().map(|value| 1.0 + 0.5 * value).collect();
        let variance = self.builder.floats(&[CHANNELS], &variance);
        self.builder.node("BatchNormalization", &[x, &parts[0], &parts[1], &parts[2], &variance], &[])
    }

    fn coin(&mut self) -> bool {
        self.random.below(2) == 0
    }

    /// Terms in random order and nesting, and here and there a constant per channel.
    fn sum(&mut self, mut terms: Vec<String>) -> String {
        while terms.len() > 1 || self.random.below(4) == 0 {
            if self.random.below(4) == 0 {
                let dims: &[usize] = if self.coin() { &[CHANNELS, 1, 1] } else { &[1, CHANNELS, 1, 1] };
                terms.push(self.weights(dims, 0.5));
            }
            if terms.len() < 2 {
                continue;
            }
            let first = terms.swap_remove(self.random.below(terms.len()));
            let second = terms.swap_remove(self.random.below(terms.len()));
            let names = [first.as_str(), &second];
            if names.iter().all(|name| name.starts_with('w')) {
                // Sums of constants alone are somebody else's work.
                terms.extend([first, second]);
                continue;
            }
            terms.push(self.builder.node("Add", &names, &[]));
        }
        terms.remove(0)
    }
}

/// Norms in any branch, biases as inputs and as sums, a residual or none, any order.
#[test]
fn stencils_and_matrices_are_fused_whatever_the_order_of_the_sums() {
    for seed in 0..120 {
        let mut form = Form { builder: Builder::new(&[3, 9, 7]), random: Random::new(seed), seed: 1000 * seed };
        let stem = form.weights(&[CHANNELS, 3, 1, 1], 0.5);
        let mut x = form.builder.node("Conv", &["x", &stem], &[]);
        let mut stencils = Vec::new();
        for _ in 0..=form.random.below(3) {
            let stencil = Stencil::ALL[form.random.below(Stencil::ALL.len())];
            let group_size = [1, 1, 2][form.random.below(3)];
            stencils.push((stencil, group_size));
            let (with_bias, first) = (form.coin(), form.coin());
            let mut parts = Vec::new();
            for is_stencil in [first, !first] {
                let part =
                    if is_stencil { form.stencil(&x, stencil, group_size, with_bias) } else { form.pointwise(&x, !with_bias) };
                parts.push(if form.random.below(3) == 0 { form.norm(&part) } else { part });
            }
            // With a residual there is no norm of the sum, which would be one of the residual too.
            if form.coin() {
                parts.push(x.clone());
                x = form.sum(parts);
            } else {
                x = form.sum(parts);
                if form.coin() {
                    x = form.norm(&x);
                }
            }
            if form.coin() {
                x = form.builder.node("Relu", &[&x], &[]);
            }
        }
        form.builder.node("GlobalAveragePool", &[&x], &[]);
        let model = check(&form.builder, &format!("seed {seed}"));
        let found: Vec<(Stencil, usize)> = model
            .graph()
            .unwrap()
            .nodes()
            .iter()
            .filter_map(|node| match node.operation {
                Operation::Lean { stencil, group_size, .. } => Some((stencil, group_size)),
                _ => None,
            })
            .collect();
        assert_eq!(found, stencils, "seed {seed}");
        // Nothing is left of the parts.
        assert_eq!(layers(&model, "conv"), 1, "seed {seed}: {:?}", model.graph());
    }
}

/// Branches that someone else reads too, or that read different images, stay what they are.
#[test]
fn what_is_no_lean_convolution_is_not_made_one() {
    let form = |build: fn(&mut Form, &str) -> String| {
        let mut form = Form { builder: Builder::new(&[CHANNELS, 6, 6]), random: Random::new(1), seed: 1 };
        let relu = form.builder.node("Relu", &["x"], &[]);
        let sum = build(&mut form, &relu);
        form.builder.node("GlobalAveragePool", &[&sum], &[]);
        let model = check(&form.builder, "no lean convolution");
        assert_eq!(layers(&model, "lean"), 0);
    };
    form(|form, x| {
        let (spatial, pointwise) = (form.stencil(x, Stencil::Box9, 1, false), form.pointwise("x", false));
        form.builder.node("Add", &[&spatial, &pointwise], &[])
    });
    form(|form, x| {
        let (spatial, pointwise) = (form.stencil(x, Stencil::Box9, 1, false), form.pointwise(x, false));
        let sum = form.builder.node("Add", &[&spatial, &pointwise], &[]);
        form.builder.node("Add", &[&sum, &spatial], &[])
    });
    form(|form, x| {
        let spatial = form.stencil(x, Stencil::Box9, 1, false);
        form.pointwise(&spatial, false)
    });
    // A single group of all channels is a dense convolution.
    form(|form, x| {
        let (spatial, pointwise) = (form.stencil(x, Stencil::Box9, CHANNELS, false), form.pointwise(x, false));
        form.builder.node("Add", &[&spatial, &pointwise], &[])
    });
}

#[test]
fn blocks_are_named_after_their_modules() {
    let mut form = Form { builder: Builder::new(&[CHANNELS, 6, 6]), random: Random::new(1), seed: 1 };
    let (spatial, pointwise) = (form.stencil("x", Stencil::Cross5, 1, false), form.pointwise("x", true));
    form.builder.node("Add", &[&spatial, &pointwise], &[]);
    form.builder.node("GlobalAveragePool", &["v2"], &[]);
    for (old, new) in [("w0", "stages.0.0.conv1.spatial.weight"), ("w1", "stages.0.0.conv1.pointwise.weight")] {
        let graph = form.builder.graph();
        graph.initializer.iter_mut().filter(|tensor| tensor.name == old).for_each(|tensor| tensor.name = new.to_owned());
        let inputs = graph.node.iter_mut().flat_map(|node| &mut node.input);
        inputs.filter(|name| *name == old).for_each(|name| *name = new.to_owned());
    }
    let model = check(&form.builder, "names");
    let names: Vec<String> = model.graph().unwrap().parameters().into_iter().map(|spec| spec.name).collect();
    let module = "stages.0.0.conv1";
    assert_eq!(names, ["spatial.weight", "pointwise.weight", "pointwise.bias"].map(|part| format!("{module}.{part}")));
}
