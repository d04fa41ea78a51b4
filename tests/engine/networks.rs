//! The table of networks, with random weights and data for them.
#![forbid(unsafe_code)]

use leanresnet::data::SoftLabel;
use leanresnet::net::{
    Block, BlockForm, Connection, ConnectionForm, Norm, Operator, ParameterRole, ParameterSpec, Stem, parameters,
};
use leanresnet::{Model, Network, Stencil};

use crate::common::data::{Random, uniform};

/// A network with what the tests vary besides it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) network: Network,
    /// Images of a training batch.
    pub(crate) batch: usize,
    pub(crate) smoothing: f64,
}

impl Case {
    /// Random weights, norms, biases and running statistics.
    pub(crate) fn model(&self) -> Model {
        random_model(&self.network, self.name.bytes().fold(7, |seed, byte| seed * 31 % 1_000_003 + u64::from(byte)))
    }

    /// `count` random images, channels last.
    pub(crate) fn images(&self, count: usize) -> Vec<f32> {
        uniform(1 + count as u64, count * self.network.input().iter().product::<usize>())
    }

    /// One random class per image.
    pub(crate) fn classes_of(&self, count: usize) -> Vec<usize> {
        let mut random = Random::new(5);
        (0..count).map(|_| random.below(self.network.classes())).collect()
    }

    /// The same as labels.
    pub(crate) fn labels(&self, count: usize) -> Vec<SoftLabel> {
        self.classes_of(count).into_iter().map(|class| SoftLabel::hard(class as u32)).collect()
    }
}

fn random_model(network: &Network, seed: u64) -> Model {
    let initial = Model::random(network, seed);
    let values = |position: usize, spec: &ParameterSpec| {
        let noise = uniform(seed + position as u64, spec.values());
        let random = |centre: f32, width: f32| noise.iter().map(|value| centre + width * value).collect();
        match spec.role {
            ParameterRole::NormWeight => random(1.0, 0.5),
            ParameterRole::RunningVar => random(1.0, 0.8),
            ParameterRole::HeadWeight => random(0.0, 1.0 / (spec.fan_in as f32).sqrt()),
            role if role.decays() || role == ParameterRole::ShiftWeight => initial.tensor(&spec.name).unwrap().1.to_vec(),
            _ => random(0.0, 0.5),
        }
    };
    let held = parameters(network).into_iter().filter(|spec| spec.role != ParameterRole::NumBatchesTracked);
    let tensors = held.enumerate().map(|(position, spec)| (spec.name.clone(), spec.shape.clone(), values(position, &spec)));
    Model::from_tensors(network, tensors).unwrap()
}

/// A network of 7 classes; the first stage has two blocks, the others one.
#[expect(clippy::needless_pass_by_value, reason = "the cases make stems and connections on the spot")]
fn network(input: [usize; 3], stem: Stem, block: &Block, connection: Connection, widths: &[usize]) -> Network {
    let builder = Network::builder().with_input(input).with_classes(7).with_stem(&stem).with_block(block);
    let builder = builder.with_connection(&connection);
    let stages = widths.iter().enumerate();
    stages.fold(builder, |builder, (stage, width)| builder.with_stage(*width, if stage == 0 { 2 } else { 1 })).build().unwrap()
}

fn case(name: &'static str, network: Network) -> Case {
    Case { name, network, batch: 3, smoothing: 0.0 }
}

/// Blocks of every form, norm count, operator and stencil, at odd sizes and widths that fill no vector.
fn blocks() -> Vec<Case> {
    let residual = Block::default;
    let symmetric = || residual().with_form(BlockForm::Symmetric);
    let (cross4, box9) = (Stencil::Cross4, Stencil::Box9);
    let table = [
        ("residual, 0 norms, cross4, bias", residual().with_norms(0).with_stencil(cross4).with_bias(true)),
        (
            "residual, 0 norms, box9, relu, scale 0.5",
            residual().with_norms(0).with_stencil(box9).with_relu_after_sum(true).with_scale(0.5),
        ),
        ("residual, 1 norm, cross5", residual()),
        ("residual, 1 norm, cross4, bias, relu", residual().with_stencil(cross4).with_bias(true).with_relu_after_sum(true)),
        ("residual, 1 norm, box9, scale 0.5", residual().with_stencil(box9).with_scale(0.5)),
        ("residual, 2 norms, cross5", residual().with_norms(2)),
        (
            "residual, 2 norms, box9, relu, scale 0.5",
            residual().with_norms(2).with_stencil(box9).with_relu_after_sum(true).with_scale(0.5),
        ),
        ("residual, 1 norm, row3 and col3", residual().with_stencils([Stencil::Row3, Stencil::Col3])),
        ("residual, 2 norms, box25, relu", residual().with_norms(2).with_stencil(Stencil::Box25).with_relu_after_sum(true)),
        ("residual, 1 norm, box9 and box25", residual().with_stencils([box9, Stencil::Box25])),
        ("symmetric, 1 norm, box25", symmetric().with_stencil(Stencil::Box25)),
        ("symmetric, 0 norms, cross5, bias", symmetric().with_norms(0).with_bias(true)),
        ("symmetric, 0 norms, box9, scale 0.5", symmetric().with_norms(0).with_stencil(box9).with_scale(0.5)),
        ("symmetric, 1 norm, cross5", symmetric()),
        (
            "symmetric, 1 norm, cross4, bias, relu, scale 0.5",
            symmetric().with_stencil(cross4).with_bias(true).with_relu_after_sum(true).with_scale(0.5),
        ),
        ("symmetric, 2 norms, box9, relu", symmetric().with_norms(2).with_stencil(box9).with_relu_after_sum(true)),
        ("symmetric, 2 norms, cross5, bias, scale -0.5", symmetric().with_norms(2).with_bias(true).with_scale(-0.5)),
    ];
    table
        .into_iter()
        .map(|(name, block)| case(name, network([3, 9, 7], Stem::default(), &block, Connection::default(), &[12, 33])))
        .collect()
}

/// The same with dense convolutions.
fn dense_blocks() -> Vec<Case> {
    let residual = || Block::default().with_operator(Operator::Dense);
    let symmetric = || residual().with_form(BlockForm::Symmetric);
    let table = [
        ("dense residual, 0 norms, bias, relu", residual().with_norms(0).with_bias(true).with_relu_after_sum(true)),
        ("dense residual, 1 norm", residual()),
        ("dense residual, 2 norms, relu, scale 0.5", residual().with_norms(2).with_relu_after_sum(true).with_scale(0.5)),
        ("dense symmetric, 0 norms, scale 0.5", symmetric().with_norms(0).with_scale(0.5)),
        ("dense symmetric, 1 norm, bias", symmetric().with_bias(true)),
        ("dense symmetric, 2 norms, relu", symmetric().with_norms(2).with_relu_after_sum(true)),
    ];
    table
        .into_iter()
        .map(|(name, block)| case(name, network([3, 9, 7], Stem::default(), &block, Connection::default(), &[5, 12])))
        .collect()
}

/// Blocks with a stencil or a shift before the matrix.
fn separable_blocks() -> Vec<Case> {
    let separable = || Block::default().with_operator(Operator::Separable);
    let shift = || Block::default().with_operator(Operator::Shift);
    let table = [
        ("separable, 0 norms, cross4, bias, relu", {
            separable().with_norms(0).with_stencil(Stencil::Cross4).with_bias(true).with_relu_after_sum(true)
        }),
        ("separable, 1 norm, cross5, scale 0.5", separable().with_scale(0.5)),
        ("separable, 1 norm, row3 and box25, bias", {
            separable().with_stencils([Stencil::Row3, Stencil::Box25]).with_bias(true)
        }),
        ("separable, 2 norms, box9, relu", separable().with_norms(2).with_stencil(Stencil::Box9).with_relu_after_sum(true)),
        ("shift, 0 norms, bias", shift().with_norms(0).with_bias(true)),
        ("shift, 1 norm", shift()),
        ("shift, 2 norms, relu, scale 0.5", shift().with_norms(2).with_relu_after_sum(true).with_scale(0.5)),
    ];
    table
        .into_iter()
        .map(|(name, block)| case(name, network([3, 9, 7], Stem::default(), &block, Connection::default(), &[12, 33])))
        .collect()
}

/// Stems of every kernel and stride.
fn stems() -> Vec<Case> {
    let stem = |kernel, stride| Stem::default().with_kernel(kernel).with_stride(stride);
    let biased = |stem: Stem| stem.with_norm(Norm::None).with_bias(true);
    let table = [
        ("stem 1/1, bias", biased(stem(1, 1)), [3, 9, 7]),
        ("stem 1/2", stem(1, 2), [3, 11, 8]),
        ("stem 1/4, no norm", stem(1, 4).with_norm(Norm::None), [4, 13, 11]),
        ("stem 3/1, bias", biased(stem(3, 1)), [1, 5, 6]),
        ("stem 3/2, norm and bias", stem(3, 2).with_bias(true), [3, 11, 8]),
        ("stem 3/4", stem(3, 4), [3, 14, 11]),
        ("stem 7/1", stem(7, 1), [2, 6, 5]),
        ("stem 7/2, bias", biased(stem(7, 2)), [3, 13, 10]),
        ("stem 7/4", stem(7, 4), [3, 23, 18]),
    ];
    table
        .into_iter()
        .map(|(name, stem, input)| case(name, network(input, stem, &Block::default(), Connection::default(), &[5, 12])))
        .collect()
}

/// Connections of every form.
fn connections() -> Vec<Case> {
    let connection = |form| Connection::default().with_form(form);
    let biased = |form| connection(form).with_norm(Norm::None).with_bias(true);
    let table = [
        ("pool-conv, bias", biased(ConnectionForm::PoolConv)),
        ("conv-pool", connection(ConnectionForm::ConvPool)),
        ("conv-pool, bias", biased(ConnectionForm::ConvPool)),
        ("strided-conv", connection(ConnectionForm::StridedConv)),
        ("strided-conv, bias", biased(ConnectionForm::StridedConv)),
        ("strided-conv, norm and bias", connection(ConnectionForm::StridedConv).with_bias(true)),
    ];
    let of = |connection| network([3, 9, 7], Stem::default(), &Block::default(), connection, &[5, 12, 33]);
    table.into_iter().map(|(name, connection)| case(name, of(connection))).collect()
}

/// Batches of more images than chunks, several panels, single pixels, smoothed labels.
fn extremes() -> Vec<Case> {
    let symmetric = Block::default().with_form(BlockForm::Symmetric).with_bias(true);
    let dense = Block::default().with_operator(Operator::Dense).with_bias(true).with_form(BlockForm::Symmetric);
    let strided = Connection::default().with_form(ConnectionForm::StridedConv).with_bias(true);
    let plain = Connection::default;
    let stem = Stem::default;
    vec![
        Case { batch: 35, ..case("35 images", network([3, 5, 4], stem(), &symmetric, strided, &[5, 12])) },
        Case { batch: 35, ..case("35 images, dense", network([3, 5, 4], stem().with_bias(true), &dense, plain(), &[5, 6])) },
        Case { smoothing: 0.1, ..case("smoothed labels", network([3, 9, 7], stem(), &Block::default(), plain(), &[5])) },
        case("three panels", network([3, 4, 5], stem(), &Block::default(), plain(), &[65, 70])),
        case("single pixels at the end", network([2, 3, 2], stem(), &Block::default(), plain(), &[5, 4])),
        case("single pixels", network([1, 1, 1], stem(), &Block::default().with_norms(2), plain(), &[4])),
        case(
            "single rows",
            network([3, 1, 9], stem(), &symmetric, Connection::default().with_form(ConnectionForm::StridedConv), &[4, 8]),
        ),
    ]
}

/// Blocks whose taps read groups of channels: inference has them, training not yet.
#[allow(dead_code, reason = "some tests only train")]
pub(crate) fn groups() -> Vec<Case> {
    let grouped = |size| Block::default().with_group_size(size);
    let symmetric = |size| grouped(size).with_form(BlockForm::Symmetric);
    let table = [
        ("groups of 2, cross5", grouped(2)),
        ("groups of 4, cross4, 2 norms", grouped(4).with_stencil(Stencil::Cross4).with_norms(2)),
        ("groups of 8, cross5, bias, relu", grouped(8).with_bias(true).with_relu_after_sum(true)),
        ("groups of 16, row3 and box25", grouped(16).with_stencils([Stencil::Row3, Stencil::Box25])),
        ("groups of 32, box9", grouped(32).with_stencil(Stencil::Box9)),
        ("groups of 4, symmetric, cross5", symmetric(4)),
        ("groups of 4, separable, cross5", grouped(4).with_operator(Operator::Separable)),
        ("groups of 16, symmetric, box9, scale 0.5", symmetric(16).with_stencil(Stencil::Box9).with_scale(0.5)),
    ];
    table
        .into_iter()
        .map(|(name, block)| case(name, network([3, 9, 7], Stem::default(), &block, Connection::default(), &[32, 96])))
        .collect()
}

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    [blocks(), dense_blocks(), separable_blocks(), stems(), connections(), extremes()].into_iter().flatten().collect()
}

/// Networks of few rows and several panels of channels and classes: threads that share an image split its channels.
#[allow(dead_code, reason = "only inference splits images")]
pub(crate) fn wide() -> Vec<Case> {
    let wide = |operator, form| {
        let block = Block::default().with_operator(operator);
        let builder = Network::builder().with_input([3, 5, 6]).with_classes(70).with_block(&block);
        builder.with_connection(&Connection::default().with_form(form)).with_stage(40, 2).with_stage(100, 2).build().unwrap()
    };
    vec![
        case("wide, lean, pool-conv", wide(Operator::Lean, ConnectionForm::PoolConv)),
        case("wide, lean, conv-pool", wide(Operator::Lean, ConnectionForm::ConvPool)),
        case("wide, separable, pool-conv", wide(Operator::Separable, ConnectionForm::PoolConv)),
        case("wide, shift, pool-conv", wide(Operator::Shift, ConnectionForm::PoolConv)),
        case("wide, dense, strided-conv", wide(Operator::Dense, ConnectionForm::StridedConv)),
    ]
}
