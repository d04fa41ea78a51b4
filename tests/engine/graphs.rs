//! Graphs of operators against a naive interpreter in f64: logits, equal bits however a batch is run, and what is refused.
#![forbid(unsafe_code)]

use leanresnet::net::{Graph, Node, Operation};
use leanresnet::{Error, Images, Isa, Model, Pool, Precision, Session, Stencil};

use crate::common::data::{Random, uniform};

/// An image in f64: channels, height, width, and its values channel by channel.
#[derive(Clone)]
struct Image {
    shape: [usize; 3],
    values: Vec<f64>,
}

impl Image {
    /// The value at a place that may be outside of the image.
    fn at(&self, channel: usize, row: isize, column: isize) -> Option<f64> {
        let [_, height, width] = self.shape;
        let inside = (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
        inside.then(|| self.values[(channel * height + row as usize) * width + column as usize])
    }

    fn map(shape: [usize; 3], value: impl Fn(usize, usize, usize) -> f64) -> Self {
        let [channels, height, width] = shape;
        let places = (0..channels).flat_map(|c| (0..height).flat_map(move |h| (0..width).map(move |w| (c, h, w))));
        Image { shape, values: places.map(|(c, h, w)| value(c, h, w)).collect() }
    }
}

/// The logits of one image.
pub(crate) fn exact(model: &Model, image: &[f32]) -> Vec<f64> {
    let graph = model.graph().unwrap();
    let values = image.iter().map(|value| f64::from(*value)).collect();
    let mut images = vec![Image { shape: graph.input(), values }];
    for (index, node) in graph.nodes().iter().enumerate() {
        let output = run_node(model, node, &images, graph.shape(index + 1));
        images.push(output);
    }
    images.pop().unwrap().values
}

fn run_node(model: &Model, node: &Node, images: &[Image], shape: [usize; 3]) -> Image {
    let x = &images[node.inputs[0]];
    let tensor = |part: &str| model.tensor(&format!("{}.{part}", node.name)).map_or(&[][..], |(_, values)| values);
    let channels = x.shape[0];
    let window = |(h, w): (usize, usize), kernel: [usize; 2], stride: usize, padding: [usize; 4]| {
        let (top, left) = ((h * stride) as isize - padding[0] as isize, (w * stride) as isize - padding[1] as isize);
        let inner = move |i| (0..kernel[1]).map(move |j| (top + i as isize, left + j as isize));
        (0..kernel[0]).flat_map(inner).collect::<Vec<_>>()
    };
    match node.operation {
        Operation::Conv { outputs, kernel, stride, padding, dilation, groups, .. } => {
            let (weight, bias) = (tensor("weight"), tensor("bias"));
            let members = channels / groups;
            Image::map(shape, |o, h, w| {
                let mut sum = bias.get(o).map_or(0.0, |bias| f64::from(*bias));
                for (m, i, j) in
                    (0..members).flat_map(|m| (0..kernel[0]).flat_map(move |i| (0..kernel[1]).map(move |j| (m, i, j))))
                {
                    let row = (h * stride + i * dilation) as isize - padding[0] as isize;
                    let column = (w * stride + j * dilation) as isize - padding[1] as isize;
                    let value = x.at(o / (outputs / groups) * members + m, row, column).unwrap_or(0.0);
                    sum += value * f64::from(weight[((o * members + m) * kernel[0] + i) * kernel[1] + j]);
                }
                sum
            })
        }
        Operation::Lean { stencil, group_size, .. } => {
            let (spatial, pointwise, bias) = (tensor("spatial.weight"), tensor("pointwise.weight"), tensor("pointwise.bias"));
            let (side, radius) = (stencil.side(), stencil.radius() as isize);
            Image::map(shape, |o, h, w| {
                let mut sum = bias.get(o).map_or(0.0, |bias| f64::from(*bias));
                for (m, tap) in (0..group_size).flat_map(|m| (0..side * side).map(move |tap| (m, tap))) {
                    let (row, column) = ((h + tap / side) as isize - radius, (w + tap % side) as isize - radius);
                    let value = x.at(o / group_size * group_size + m, row, column).unwrap_or(0.0);
                    sum += value * f64::from(spatial[(o * group_size + m) * side * side + tap]);
                }
                let matrix =
                    (0..channels).map(|c| f64::from(pointwise[o * channels + c]) * x.at(c, h as isize, w as isize).unwrap());
                sum + matrix.sum::<f64>()
            })
        }
        Operation::MaxPool { kernel, stride, padding } => Image::map(shape, |c, h, w| {
            let places = window((h, w), kernel, stride, padding).into_iter();
            places.filter_map(|(row, column)| x.at(c, row, column)).fold(f64::NEG_INFINITY, f64::max)
        }),
        Operation::AveragePool { kernel, stride, padding, counts_padding } => Image::map(shape, |c, h, w| {
            let places = window((h, w), kernel, stride, padding);
            let padded = |&&(row, column): &&(isize, isize)| {
                row < (x.shape[1] + padding[2]) as isize && column < (x.shape[2] + padding[3]) as isize
            };
            let inside: Vec<f64> = places.iter().filter_map(|&(row, column)| x.at(c, row, column)).collect();
            let count = if counts_padding { places.iter().filter(padded).count() } else { inside.len() };
            inside.iter().sum::<f64>() / count as f64
        }),
        Operation::GlobalAveragePool => Image::map(shape, |c, _, _| {
            let pixels = x.shape[1] * x.shape[2];
            x.values[c * pixels..(c + 1) * pixels].iter().sum::<f64>() / pixels as f64
        }),
        Operation::Flatten => Image { shape, values: x.values.clone() },
        Operation::Add => {
            let other = &images[node.inputs[1]];
            Image { shape, values: x.values.iter().zip(&other.values).map(|(a, b)| a + b).collect() }
        }
        Operation::Relu => Image { shape, values: x.values.iter().map(|value| value.max(0.0)).collect() },
        ref other => panic!("{other} is not known here"),
    }
}

fn conv(outputs: usize, kernel: usize, stride: usize) -> Operation {
    let padding = [(kernel - 1) / 2; 4];
    Operation::Conv { outputs, kernel: [kernel; 2], stride, padding, dilation: 1, groups: 1, bias: true }
}

pub(crate) fn with_random_weights(graph: &Graph, seed: u64) -> Model {
    let mut tensors = Vec::new();
    for (position, spec) in graph.parameters().into_iter().enumerate() {
        let scale = if spec.fan_in > 0 { (3.0 / spec.fan_in as f32).sqrt() } else { 0.5 };
        let mut values: Vec<f32> =
            uniform(seed + position as u64, spec.values()).into_iter().map(|value| scale * value).collect();
        if let leanresnet::net::ParameterRole::SpatialWeight { stencil } = spec.role {
            let mask = stencil.mask();
            values.iter_mut().enumerate().filter(|(index, _)| !mask[index % mask.len()]).for_each(|(_, value)| *value = 0.0);
        }
        tensors.push((spec.name.clone(), spec.shape.clone(), values));
    }
    Model::from_graph(graph, tensors).unwrap()
}

/// Builds graphs node by node; every method returns the number of the value.
struct Builder {
    input: [usize; 3],
    nodes: Vec<Node>,
}

impl Builder {
    fn new(input: [usize; 3]) -> Self {
        Builder { input, nodes: Vec::new() }
    }

    fn add(&mut self, inputs: &[usize], operation: Operation) -> usize {
        self.nodes.push(Node::new(format!("n{}", self.nodes.len()), inputs, operation));
        self.nodes.len()
    }

    /// Relu(conv(value)).
    fn conv_relu(&mut self, value: usize, operation: Operation) -> usize {
        let value = self.add(&[value], operation);
        self.add(&[value], Operation::Relu)
    }

    /// Global pool and linear layer.
    fn finish(mut self, value: usize, classes: usize) -> Graph {
        let value = self.add(&[value], Operation::GlobalAveragePool);
        self.add(&[value], conv(classes, 1, 1));
        Graph::new(self.input, self.nodes).unwrap()
    }
}

/// A residual network as He et al. 2016 build it: stem with max pool, basic blocks, a 1x1 convolution with stride 2 beside the larger steps.
fn resnet() -> Graph {
    let mut graph = Builder::new([3, 37, 34]);
    let mut x = graph.conv_relu(0, conv(8, 7, 2));
    x = graph.add(&[x], Operation::MaxPool { kernel: [3, 3], stride: 2, padding: [1; 4] });
    for (width, stride) in [(8, 1), (8, 1), (16, 2), (16, 1), (40, 2)] {
        let inner = graph.conv_relu(x, conv(width, 3, stride));
        let inner = graph.add(&[inner], conv(width, 3, 1));
        let shortcut = if stride == 1 { x } else { graph.add(&[x], conv(width, 1, stride)) };
        let sum = graph.add(&[inner, shortcut], Operation::Add);
        x = graph.add(&[sum], Operation::Relu);
    }
    graph.finish(x, 7)
}

/// Lean blocks with and without ReLU between and after, pools before 1x1 convolutions, stencils of every kind.
fn lean() -> Graph {
    let mut graph = Builder::new([2, 12, 10]);
    let mut x = graph.conv_relu(0, conv(16, 3, 1));
    for (index, stencil) in Stencil::ALL.iter().enumerate() {
        let operation = Operation::Lean { stencil: *stencil, group_size: 1, bias: index % 2 == 0 };
        let mut inner = graph.add(&[x], operation.clone());
        if index != 1 {
            inner = graph.add(&[inner], Operation::Relu);
        }
        let inner = graph.add(&[inner], operation);
        x = graph.add(&[x, inner], Operation::Add);
        if index % 3 == 0 {
            x = graph.add(&[x], Operation::Relu);
        }
    }
    let pool = graph.add(&[x], Operation::AveragePool { kernel: [2, 2], stride: 2, padding: [0; 4], counts_padding: false });
    let x = graph.conv_relu(pool, conv(24, 1, 1));
    graph.finish(x, 5)
}

/// What does not fit the patterns: values that are read by several, sums of the same value, outputs that are not a head.
fn irregular() -> Graph {
    let mut graph = Builder::new([3, 9, 11]);
    let a = graph.add(&[0], conv(5, 3, 1));
    let twice = graph.add(&[a, a], Operation::Add);
    let b = graph.conv_relu(twice, conv(5, 1, 1));
    let c = graph.add(&[b], conv(5, 1, 1));
    let d = graph.add(&[b, c], Operation::Add);
    let e = graph.add(&[d], Operation::Relu);
    let f = graph.add(&[d, e], Operation::Add);
    let pools = [
        Operation::MaxPool { kernel: [3, 2], stride: 1, padding: [1, 0, 1, 1] },
        Operation::AveragePool { kernel: [3, 3], stride: 1, padding: [1; 4], counts_padding: true },
        Operation::AveragePool { kernel: [3, 3], stride: 1, padding: [1; 4], counts_padding: false },
    ];
    let mut sum = f;
    for pool in pools {
        let pooled = graph.add(&[f], pool);
        sum = graph.add(&[pooled, sum], Operation::Add);
    }
    let lean = graph.add(&[sum], Operation::Lean { stencil: Stencil::Box9, group_size: 1, bias: true });
    let sum = graph.add(&[lean, sum], Operation::Add);
    let pooled = graph.add(&[sum], Operation::MaxPool { kernel: [2, 2], stride: 3, padding: [0; 4] });
    let flat = graph.add(&[pooled], Operation::Flatten);
    let hidden = graph.conv_relu(flat, conv(33, 1, 1));
    graph.add(&[hidden], conv(6, 1, 1));
    Graph::new(graph.input, graph.nodes).unwrap()
}

/// Kernels of every form: rectangular, with gaps, in groups, padded on one side, without padding, with strides.
fn kernels() -> Graph {
    let mut graph = Builder::new([4, 23, 19]);
    let of = |outputs, kernel, stride, padding, dilation, groups| Operation::Conv {
        outputs,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias: groups % 2 == 1,
    };
    let mut x = 0;
    for operation in [
        of(8, [1, 3], 1, [0, 1, 0, 1], 1, 1),
        of(8, [3, 3], 1, [1; 4], 1, 8),
        of(16, [5, 2], 1, [2, 0, 2, 1], 1, 2),
        of(16, [3, 3], 1, [2; 4], 2, 1),
        of(16, [5, 5], 1, [2; 4], 1, 4),
        of(16, [3, 3], 2, [1; 4], 1, 16),
        of(16, [1, 1], 1, [0; 4], 1, 16),
        of(32, [2, 2], 1, [0, 0, 1, 1], 1, 1),
        of(32, [3, 3], 1, [0; 4], 1, 32),
        of(32, [7, 7], 1, [3; 4], 1, 1),
        of(32, [3, 3], 3, [2, 1, 0, 1], 1, 1),
    ] {
        x = graph.conv_relu(x, operation);
    }
    graph.finish(x, 4)
}

pub(crate) fn graphs() -> Vec<(&'static str, Graph)> {
    vec![("resnet", resnet()), ("lean", lean()), ("irregular", irregular()), ("kernels", kernels())]
}

fn run(session: &mut Session, graph: &Graph, images: &[f32]) -> Vec<f32> {
    let [channels, height, width] = graph.input();
    let count = images.len() / (channels * height * width);
    session.run(Images::nchw_f32(images, [count, channels, height, width]).unwrap()).unwrap().as_slice().to_vec()
}

pub(crate) fn images(graph: &Graph, count: usize) -> Vec<f32> {
    uniform(count as u64, count * graph.input().iter().product::<usize>())
}

fn session(model: &Model, isa: Isa, pool: &Pool, max_batch: usize, precision: Precision) -> Session {
    Session::builder(model).isa(isa).pool(pool.clone()).max_batch(max_batch).precision(precision).build().unwrap()
}

/// Largest difference, relative to the largest logit.
fn difference(logits: &[f32], exact: &[f64]) -> f64 {
    let largest = exact.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let differences = logits.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).abs());
    differences.fold(0.0, |largest: f64, value| if value.is_nan() { f64::NAN } else { largest.max(value) }) / largest
}

const IMAGES: usize = 5;

#[test]
fn logits_are_those_of_the_interpreter() {
    for (name, graph) in graphs() {
        let (model, images) = (with_random_weights(&graph, 3), images(&graph, IMAGES));
        let image = images.len() / IMAGES;
        let exact: Vec<f64> = images.chunks_exact(image).flat_map(|image| exact(&model, image)).collect();
        for isa in Isa::available() {
            let logits = run(&mut session(&model, isa, &Pool::inline(), 3, Precision::F32), &graph, &images);
            let error = difference(&logits, &exact);
            assert!(error < 4e-6, "{name} on {isa}: {error:.2e}");
        }
        for isa in [Isa::Portable, Precision::Bf16.isa().unwrap()] {
            let logits = run(&mut session(&model, isa, &Pool::inline(), 3, Precision::Bf16), &graph, &images);
            let error = difference(&logits, &exact);
            assert!(error < 0.05 && error > 1e-5, "{name} in bf16 on {isa}: {error:.2e}");
        }
    }
}

#[test]
fn bits_depend_on_the_image_alone() {
    let pools: Vec<Pool> = (1..=3).map(|threads| Pool::new(threads).unwrap()).collect();
    for (name, graph) in graphs() {
        let (model, images) = (with_random_weights(&graph, 4), images(&graph, 7));
        for (isa, precision) in [(Isa::active().unwrap(), Precision::F32), (Precision::Bf16.isa().unwrap(), Precision::Bf16)] {
            let expected = run(&mut session(&model, isa, &Pool::inline(), 64, precision), &graph, &images);
            for (pool, max_batch) in pools.iter().flat_map(|pool| [1, 2, 3, 64].map(|max_batch| (pool, max_batch))) {
                let mut session = session(&model, isa, pool, max_batch, precision);
                for repetition in 0..2 {
                    let what =
                        format!("{name} in {precision}, {} threads, max_batch {max_batch}, run {repetition}", pool.threads());
                    assert_eq!(run(&mut session, &graph, &images), expected, "{what}");
                }
            }
        }
    }
}

/// Operators one after another at random, with sums of whatever has the same shape.
pub(crate) fn random_graph(seed: u64) -> Graph {
    let mut random = Random::new(seed);
    let mut graph = Builder::new([1 + random.below(4), 5 + random.below(9), 5 + random.below(9)]);
    let mut shapes = vec![graph.input];
    for _ in 0..=random.below(14) {
        let value = if random.below(3) == 0 { random.below(shapes.len()) } else { shapes.len() - 1 };
        let [channels, height, width] = shapes[value];
        let same: Vec<usize> = (0..shapes.len()).filter(|&other| shapes[other] == shapes[value]).collect();
        let stencil = Stencil::ALL[random.below(Stencil::ALL.len())];
        let small = height.min(width);
        let (inputs, operation) = match random.below(10) {
            0 | 1 => (vec![value, same[random.below(same.len())]], Operation::Add),
            2 | 3 => (vec![value], Operation::Relu),
            4 | 5 => (vec![value], Operation::Lean { stencil, group_size: 1, bias: random.below(2) == 0 }),
            6 if small >= 2 => {
                let counts_padding = random.below(2) == 0;
                (
                    vec![value],
                    Operation::AveragePool { kernel: [2, 2], stride: 1 + random.below(2), padding: [0; 4], counts_padding },
                )
            }
            7 if small >= 3 => (vec![value], Operation::MaxPool { kernel: [3, 3], stride: 2, padding: [random.below(2); 4] }),
            8 => (vec![value], conv([channels, 3, 20][random.below(3)], 1, 1)),
            _ => (vec![value], conv([channels, 6, 17][random.below(3)], [1, 3, 5][random.below(3)], 1 + random.below(2))),
        };
        let output = graph.add(&inputs, operation);
        let so_far = Graph::new(graph.input, {
            let mut nodes = graph.nodes.clone();
            nodes.push(Node::new("end", &[output], Operation::GlobalAveragePool));
            nodes
        });
        shapes.push(so_far.unwrap().shape(output));
    }
    let last = shapes.len() - 1;
    graph.finish(last, 3)
}

#[test]
fn random_graphs_run_as_the_interpreter_does() {
    for seed in 0..150 {
        let graph = random_graph(seed);
        let (model, images) = (with_random_weights(&graph, seed), images(&graph, 3));
        let image = images.len() / 3;
        let exact: Vec<f64> = images.chunks_exact(image).flat_map(|image| exact(&model, image)).collect();
        let pool = Pool::new(2).unwrap();
        for max_batch in [1, 3] {
            let logits = run(&mut session(&model, Isa::active().unwrap(), &pool, max_batch, Precision::F32), &graph, &images);
            let error = difference(&logits, &exact);
            assert!(error < 1e-5, "seed {seed}, max_batch {max_batch}: {error:.2e}: {:?}", graph.nodes());
        }
    }
}

#[test]
fn graphs_are_stored_in_model_files() {
    for (name, graph) in graphs() {
        let model = with_random_weights(&graph, 5);
        let read = Model::from_bytes(&model.to_bytes().unwrap()).unwrap();
        assert_eq!(read, model, "{name}");
        assert_eq!(read.graph(), Some(&graph));
        assert!(matches!(read.network(), Err(Error::Invalid { .. })));
        assert_eq!((read.input(), read.classes()), (graph.input(), graph.classes()));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |nodes: Vec<Node>, part: &str| {
        let message = Graph::new([3, 8, 8], nodes).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    let node = |name: &str, inputs: &[usize], operation: Operation| Node::new(name, inputs, operation);
    let of = |kernel, stride, groups, dilation| Operation::Conv {
        outputs: 4,
        kernel,
        stride,
        padding: [0; 4],
        dilation,
        groups,
        bias: false,
    };
    refused(vec![], "number of nodes");
    refused(vec![node("a", &[0], conv(4, 3, 1))], "output of the last node; expected one pixel");
    refused(vec![node("a", &[1], Operation::GlobalAveragePool)], "inputs of node `a`");
    refused(vec![node("a", &[0, 0], Operation::GlobalAveragePool)], "inputs of node `a`; expected 1 below 1");
    refused(vec![node("a", &[0], Operation::Relu), node("a", &[1], Operation::GlobalAveragePool)], "name of a node");
    refused(vec![node("a", &[0], of([9, 9], 1, 1, 1))], "kernel of node `a`; expected 1 to 7, got 9");
    refused(vec![node("a", &[0], of([3, 3], 1, 1, 4))], "pixels under the kernel of node `a`");
    refused(vec![node("a", &[0], of([3, 3], 0, 1, 1))], "stride of node `a`");
    refused(vec![node("a", &[0], of([3, 3], 1, 2, 1))], "groups of node `a`");
    refused(vec![node("a", &[0], Operation::MaxPool { kernel: [2, 2], stride: 1, padding: [2; 4] })], "padding of node `a`");
    refused(vec![node("a", &[0], Operation::MaxPool { kernel: [9, 9], stride: 1, padding: [0; 4] })], "pixels under the window");
    let other_shape = vec![node("a", &[0], conv(4, 1, 1)), node("b", &[0, 1], Operation::Add)];
    refused(other_shape, "inputs of node `b`; expected two of [3, 8, 8], got one of [4, 8, 8]");
    let huge =
        Operation::Conv { outputs: 1 << 20, kernel: [1, 1], stride: 1, padding: [0; 4], dilation: 1, groups: 1, bias: false };
    refused(vec![node("a", &[0], huge.clone()), node("b", &[1], huge)], "values of the full kernel of node `b`");
}
