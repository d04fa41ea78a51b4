//! What the layers of a plan cost: multiply-adds, bytes, and how much memory is in use around them.
#![forbid(unsafe_code)]

use crate::exec::activation::Activation;
use crate::net::op::{Op, Step, TensorId};
use crate::net::plan::Plan;

/// Parts of a step whose time is measured: blocks have two, their convolutions.
pub(crate) const PARTS: usize = 2;

/// How a run is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Images that run at a time.
    pub(crate) images: usize,
    pub(crate) threads: usize,
}

/// The cost of a part of a step, for one image.
#[derive(Debug)]
pub(crate) struct Cost {
    /// Which step of the plan, and which part of it.
    pub(crate) step: usize,
    pub(crate) part: usize,
    pub(crate) name: String,
    /// The kernel of a convolution.
    pub(crate) kernel: Option<&'static str>,
    pub(crate) macs: u64,
    /// Activations that are read and written, and weights.
    pub(crate) bytes: usize,
    /// What a thread has in use until it comes back to the same values.
    pub(crate) working_set: usize,
}

/// The costs of all parts in the order of execution.
pub(crate) fn costs<T: Activation>(plan: &Plan<T>, cut: Cut) -> Vec<Cost> {
    let mut costs = Vec::new();
    for stage in 0..plan.stages.len() {
        for step in plan.stage(stage) {
            for (index, part) in parts(plan, &plan.steps[step]).into_iter().enumerate() {
                let working_set =
                    if cut.images < cut.threads { part.split_working_set(plan, cut) } else { part.working_set(plan, stage, cut) };
                let (kernel, macs, bytes) = (part.kernel, part.macs, part.bytes(plan));
                costs.push(Cost { step, part: index, name: part.name, kernel, macs, bytes, working_set });
            }
        }
    }
    costs
}

/// A part of a step.
struct Part {
    name: String,
    input: Place,
    output: Place,
    /// True if it adds to what the output holds.
    adds: bool,
    /// The kernel of a convolution.
    kernel: Option<&'static str>,
    macs: u64,
    /// Its weights, in bytes.
    weights: usize,
    /// Weights that are used in turn with its own, in bytes.
    other_weights: usize,
}

/// Where the values of an image lie.
#[derive(Clone, Copy)]
enum Place {
    Tensor(TensorId),
    /// The caller's images, of so many values.
    Caller(usize),
    /// Memory of the worker, so many bytes.
    Worker(usize),
}

fn parts<T: Activation>(plan: &Plan<T>, step: &Step<T>) -> Vec<Part> {
    let name = || step.name.clone();
    let plain =
        |input, output| Part { name: name(), input, output, adds: false, kernel: None, macs: 0, weights: 0, other_weights: 0 };
    match &step.op {
        Op::Load { to } => vec![plain(Place::Caller(plan.input.iter().product()), Place::Tensor(*to))],
        Op::Pad { from, to, .. } | Op::Pool { from, to, .. } | Op::GlobalPool { from, to } | Op::Flatten { from, to, .. } => {
            vec![plain(Place::Tensor(*from), Place::Tensor(*to))]
        }
        Op::Add { from, to, .. } => vec![Part { adds: true, ..plain(Place::Tensor(*from), Place::Tensor(*to)) }],
        Op::Relu { y } => vec![plain(Place::Tensor(*y), Place::Tensor(*y))],
        Op::Output { from } => vec![plain(Place::Tensor(*from), Place::Worker(size_of::<f32>() * plan.classes))],
        Op::Convolve { from, to, conv, weights, add_to_output } => {
            let part = plain(Place::Tensor(*from), Place::Tensor(*to));
            let kernel = Some(conv.kernel.name);
            vec![Part { adds: *add_to_output, kernel, macs: step.macs[0], weights: weights.bytes(), ..part }]
        }
        Op::PooledConvolve { from, to, pair, weights } => {
            let middle = Place::Worker(size_of::<T>() * pair.middle().elements());
            let places = [(Place::Tensor(*from), middle), (middle, Place::Tensor(*to))];
            let pool = |(input, output)| Part { name: format!("{}.pool", step.name), ..plain(input, output) };
            let conv = |(input, output)| Part {
                name: format!("{}.conv", step.name),
                kernel: Some(pair.conv.kernel.name),
                macs: step.macs[0],
                weights: weights.bytes(),
                ..plain(input, output)
            };
            if pair.pool_first { vec![pool(places[0]), conv(places[1])] } else { vec![conv(places[0]), pool(places[1])] }
        }
        Op::Block { y, middle, block, weights } => {
            let part = |half: usize, input, output, kernel| Part {
                name: format!("{}.conv{}", step.name, half + 1),
                adds: half == 1,
                kernel: Some(kernel),
                macs: step.macs[half],
                weights: weights[half].bytes(),
                other_weights: weights[1 - half].bytes(),
                ..plain(Place::Tensor(input), Place::Tensor(output))
            };
            vec![part(0, *y, *middle, block.first.kernel.name), part(1, *middle, *y, block.second.kernel.name)]
        }
        Op::Head { from, conv, weights } => {
            let part = plain(Place::Tensor(*from), Place::Worker(size_of::<f32>() * conv.output.elements()));
            vec![Part { kernel: Some(conv.kernel.name), macs: step.macs[0], weights: weights.bytes(), ..part }]
        }
    }
}

impl Part {
    fn bytes<T: Activation>(&self, plan: &Plan<T>) -> usize {
        let passes = if self.adds { 2 } else { 1 };
        self.input.bytes(plan) + passes * self.output.bytes(plan) + self.weights
    }

    /// Where threads share the images: those of one group stay in use for a stage, the caller's for the run.
    fn working_set<T: Activation>(&self, plan: &Plan<T>, stage: usize, cut: Cut) -> usize {
        let share = cut.images.div_ceil(cut.threads);
        let group = plan.group(stage, cut.images, cut.threads);
        let activations = |place: Place| {
            let images = match place {
                Place::Worker(_) => 1,
                Place::Tensor(tensor) if !plan.tensors[tensor].between_stages => 1,
                Place::Tensor(_) => group,
                Place::Caller(_) => share,
            };
            images * place.bytes(plan)
        };
        activations(self.input) + activations(self.output) + self.weights + self.other_weights
    }

    /// Where threads share the rows of every operator.
    fn split_working_set<T: Activation>(&self, plan: &Plan<T>, cut: Cut) -> usize {
        cut.images * (self.input.bytes(plan) + self.output.bytes(plan)) / cut.threads + self.weights
    }
}

impl Place {
    /// Bytes of an image, without a border.
    fn bytes<T: Activation>(self, plan: &Plan<T>) -> usize {
        match self {
            Place::Tensor(tensor) => size_of::<T>() * plan.tensors[tensor].extent.pixels() * plan.tensors[tensor].extent.channels,
            Place::Worker(bytes) => bytes,
            Place::Caller(values) => size_of::<f32>() * values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Kernels;
    use crate::isa::Isa;
    use crate::net::{Block, Connection, ConnectionForm, Model, Network, Operator};

    fn costs_of(network: &Network, images: usize, threads: usize) -> Vec<Cost> {
        let plan = Plan::<f32>::new(&Model::random(network, 1), Kernels::of(Isa::Portable).unwrap()).unwrap();
        costs(&plan, Cut { images, threads })
    }

    fn find<'a>(costs: &'a [Cost], name: &str) -> &'a Cost {
        costs.iter().find(|cost| cost.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn multiply_adds_are_those_of_the_network_and_names_are_unique() {
        let dense = Network::builder()
            .with_input([3, 9, 8])
            .with_stage(8, 1)
            .with_stage_of(16, 2, &Block::default().with_operator(Operator::Dense))
            .with_connection(&Connection::default().with_form(ConnectionForm::StridedConv))
            .build()
            .unwrap();
        let of = |operator| Network::builder().with_stage_of(8, 2, &Block::default().with_operator(operator)).build().unwrap();
        let (separable, shift) = (of(Operator::Separable), of(Operator::Shift));
        for network in [Network::preset("small").unwrap(), Network::preset("imagenet").unwrap(), dense, separable, shift] {
            let costs = costs_of(&network, 1, 1);
            assert_eq!(costs.iter().map(|cost| cost.macs).sum::<u64>(), network.macs());
            let mut names: Vec<&str> = costs.iter().map(|cost| cost.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), costs.len());
        }
    }

    /// 32 x 32 pixels of 32 channels; a lean convolution of 32 channels has a panel of 32 + 4 rows (the centre of its
    /// cross is in the matrix), and a bias.
    #[test]
    fn bytes_are_activations_and_weights() {
        let (image, weights) = (4 * 32 * 32 * 32, 4 * 32 * (32 + 4 + 1));
        let costs = costs_of(&Network::preset("small").unwrap(), 1, 1);
        assert_eq!(find(&costs, "input").bytes, 2 * 4 * 32 * 32 * 3);
        assert_eq!(find(&costs, "stages.0.0.conv1").bytes, 2 * image + weights);
        assert_eq!(find(&costs, "stages.0.0.conv2").bytes, 3 * image + weights);
        assert_eq!(find(&costs, "connections.0.pool").bytes, image + image / 4);
        assert_eq!(find(&costs, "stages.0.0.conv2").working_set, 2 * image + 2 * weights);
    }

    #[test]
    fn images_of_a_group_stay_in_use_for_a_stage_and_those_of_the_caller_for_the_run() {
        let image = 4 * 32 * 32 * 32;
        let network = Network::preset("small").unwrap();
        let set = |images, threads, name: &str| find(&costs_of(&network, images, threads), name).working_set;
        assert_eq!(set(64, 1, "input"), 65 * image * 3 / 32);
        assert_eq!(set(64, 2, "input"), 33 * image * 3 / 32);
        // The first stage takes one image after the other, the second one sixteen images of a megabyte together.
        assert_eq!(set(64, 1, "stages.0.0.conv1"), 2 * image + 2 * 4 * 32 * 37);
        assert_eq!(set(64, 1, "connections.0.pool"), image + image / 4);
        assert_eq!(set(64, 1, "stages.1.0.conv1"), 17 * image / 2 + 2 * 4 * 64 * 69);
        assert_eq!(set(1, 2, "stages.0.0.conv1"), image + 4 * 32 * 37);
    }
}
