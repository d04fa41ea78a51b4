//! ONNX's operators as plain loops in f64, by the text of their specification, as far as exported files have them. Whatever else a file
//! has is a panic: unknown operators and attributes, values that nobody computed or that are computed twice, tensors without reader.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use leanresnet::internals::onnx_proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// Values of any shape, the last extent fastest.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    fn image_shape(&self) -> [usize; 4] {
        self.shape[..].try_into().expect("images: batch, channels, height, width")
    }

    fn map(shape: &[usize], value: impl Fn(&[usize]) -> f64) -> Self {
        let count: usize = shape.iter().product();
        let at = |mut index: usize| {
            let mut place = vec![0; shape.len()];
            for (position, extent) in place.iter_mut().zip(shape).rev() {
                *position = index % extent;
                index /= extent;
            }
            value(&place)
        };
        Array { shape: shape.to_vec(), values: (0..count).map(at).collect() }
    }

    /// The value of an image at a place that may be outside of it.
    fn at(&self, n: usize, c: usize, h: isize, w: isize) -> Option<f64> {
        let [_, channels, height, width] = self.image_shape();
        let inside = (0..height as isize).contains(&h) && (0..width as isize).contains(&w);
        inside.then(|| self.values[((n * channels + c) * height + h as usize) * width + w as usize])
    }
}

/// What a graph of one input and one output computes.
pub(crate) fn run(graph: &GraphProto, images: Array) -> Array {
    let [input, output] = [&graph.input, &graph.output].map(|list| {
        assert_eq!(list.len(), 1);
        list[0].name.clone()
    });
    let mut integers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    let mut values = BTreeMap::from([(input, images)]);
    for tensor in &graph.initializer {
        if tensor.data_type == i32::from(DataType::Int64) {
            integers.insert(&tensor.name, tensor.raw_data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect());
        } else {
            assert!(values.insert(tensor.name.clone(), floats(tensor)).is_none(), "{} twice", tensor.name);
        }
    }
    let mut read = BTreeSet::new();
    let mut names = BTreeSet::new();
    for node in &graph.node {
        assert!(!node.name.is_empty() && names.insert(&node.name), "name `{}` of a node", node.name);
        let (floats, shape): (Vec<&String>, Vec<&String>) =
            node.input.iter().partition(|name| !integers.contains_key(name.as_str()));
        read.extend(node.input.iter().cloned());
        let inputs: Vec<&Array> =
            floats.iter().map(|name| values.get(*name).unwrap_or_else(|| panic!("{}: no value {name}", node.name))).collect();
        let result = apply(node, &inputs, shape.first().map(|name| &integers[name.as_str()][..]));
        assert_eq!(node.output.len(), 1);
        assert!(values.insert(node.output[0].clone(), result).is_none(), "{} twice", node.output[0]);
    }
    let unread: Vec<&String> = graph.initializer.iter().map(|tensor| &tensor.name).filter(|name| !read.contains(*name)).collect();
    assert!(unread.is_empty(), "tensors without reader: {unread:?}");
    values.remove(&output).expect("the output is computed")
}

fn floats(tensor: &TensorProto) -> Array {
    assert_eq!(tensor.data_type, i32::from(DataType::Float), "{}", tensor.name);
    let shape: Vec<usize> = tensor.dims.iter().map(|extent| *extent as usize).collect();
    let (values, rest) = tensor.raw_data.as_chunks();
    let values: Vec<f64> = values.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
    assert!(rest.is_empty() && values.len() == shape.iter().product::<usize>(), "{}", tensor.name);
    Array { shape, values }
}

/// The attributes of a node that are asked for; the rest is an error.
struct Attributes<'a> {
    node: &'a NodeProto,
}

impl<'a> Attributes<'a> {
    fn of(node: &'a NodeProto, known: &[&str]) -> Self {
        for attribute in &node.attribute {
            assert!(known.contains(&attribute.name.as_str()), "{}: attribute {}", node.name, attribute.name);
        }
        Attributes { node }
    }

    fn get(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    fn integer(&self, name: &str, default: i64) -> i64 {
        self.get(name).map_or(default, |attribute| attribute.i)
    }

    fn integers<const N: usize>(&self, name: &str, default: [i64; N]) -> [usize; N] {
        let values = self.get(name).map_or(&default[..], |attribute| &attribute.ints);
        <[i64; N]>::try_from(values).unwrap_or_else(|_| panic!("{}: {name}", self.node.name)).map(|value| value as usize)
    }
}

/// Kernel, strides, pads (top, left, bottom, right), dilations.
struct Window {
    kernel: [usize; 2],
    strides: [usize; 2],
    pads: [usize; 4],
    dilations: [usize; 2],
}

impl Window {
    fn new(attributes: &Attributes<'_>) -> Self {
        Window {
            kernel: attributes.integers("kernel_shape", [0; 2]),
            strides: attributes.integers("strides", [1; 2]),
            pads: attributes.integers("pads", [0; 4]),
            dilations: attributes.integers("dilations", [1; 2]),
        }
    }

    /// Height and width of the output.
    fn output(&self, size: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| {
            let padded = size[axis] + self.pads[axis] + self.pads[axis + 2];
            (padded - (self.kernel[axis] - 1) * self.dilations[axis] - 1) / self.strides[axis] + 1
        })
    }

    /// Row and column of the kernel, and the pixel under it, for an output pixel.
    fn taps(&self, h: usize, w: usize) -> impl Iterator<Item = ([usize; 2], [isize; 2])> + '_ {
        let pixel = move |axis: usize, output: usize, tap: usize| {
            (output * self.strides[axis] + tap * self.dilations[axis]) as isize - self.pads[axis] as isize
        };
        let row = move |i: usize| (0..self.kernel[1]).map(move |j| ([i, j], [pixel(0, h, i), pixel(1, w, j)]));
        (0..self.kernel[0]).flat_map(row)
    }
}

fn apply(node: &NodeProto, inputs: &[&Array], extents: Option<&[i64]>) -> Array {
    assert!(node.domain.is_empty(), "{}", node.domain);
    let x = inputs[0];
    match node.op_type.as_str() {
        "Conv" => conv(node, inputs),
        "BatchNormalization" => batch_normalization(node, inputs),
        "MaxPool" | "AveragePool" => pool(node, x),
        "Gemm" => gemm(node, inputs),
        "Add" => {
            Attributes::of(node, &[]);
            assert_eq!(x.shape, inputs[1].shape, "{}: no broadcasting", node.name);
            let sums = x.values.iter().zip(&inputs[1].values).map(|(a, b)| a + b);
            Array { shape: x.shape.clone(), values: sums.collect() }
        }
        "Relu" => {
            Attributes::of(node, &[]);
            Array { shape: x.shape.clone(), values: x.values.iter().map(|value| value.max(0.0)).collect() }
        }
        "GlobalAveragePool" => {
            Attributes::of(node, &[]);
            let [batch, channels, height, width] = x.image_shape();
            let means = x.values.chunks_exact(height * width).map(|plane| plane.iter().sum::<f64>() / plane.len() as f64);
            Array { shape: vec![batch, channels, 1, 1], values: means.collect() }
        }
        "Flatten" => {
            assert_eq!(Attributes::of(node, &["axis"]).integer("axis", 1), 1);
            Array { shape: vec![x.shape[0], x.shape[1..].iter().product()], values: x.values.clone() }
        }
        "Reshape" => {
            Attributes::of(node, &[]);
            let wanted = extents.expect("a shape").iter().enumerate();
            let shape: Vec<usize> =
                wanted.map(|(axis, &extent)| if extent == 0 { x.shape[axis] } else { extent as usize }).collect();
            assert_eq!(shape.iter().product::<usize>(), x.values.len(), "{}", node.name);
            Array { shape, values: x.values.clone() }
        }
        other => panic!("operator {other}"),
    }
}

fn conv(node: &NodeProto, inputs: &[&Array]) -> Array {
    let attributes = Attributes::of(node, &["kernel_shape", "strides", "pads", "dilations", "group"]);
    let (window, groups) = (Window::new(&attributes), attributes.integer("group", 1) as usize);
    let (x, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
    let ([batch, channels, height, width], [outputs, members, rows, columns]) = (x.image_shape(), weight.image_shape());
    assert_eq!((members * groups, outputs % groups, [rows, columns]), (channels, 0, window.kernel), "{}", node.name);
    let [out_height, out_width] = window.output([height, width]);
    Array::map(&[batch, outputs, out_height, out_width], |place| {
        let [n, o, h, w] = place[..] else { unreachable!() };
        let first = o / (outputs / groups) * members;
        let mut sum = bias.map_or(0.0, |bias| bias.values[o]);
        for ([i, j], [row, column]) in window.taps(h, w) {
            for m in 0..members {
                let value = x.at(n, first + m, row, column).unwrap_or(0.0);
                sum += value * weight.values[((o * members + m) * rows + i) * columns + j];
            }
        }
        sum
    })
}

fn batch_normalization(node: &NodeProto, inputs: &[&Array]) -> Array {
    let attributes = Attributes::of(node, &["epsilon"]);
    let epsilon = attributes.get("epsilon").map_or(f64::from(1e-5_f32), |attribute| f64::from(attribute.f));
    let [x, scale, bias, mean, variance] = inputs[..] else { panic!("{}: five inputs", node.name) };
    for parameter in [scale, bias, mean, variance] {
        assert_eq!(parameter.shape, [x.shape[1]], "{}", node.name);
    }
    let plane: usize = x.shape[2..].iter().product();
    let normalise = |(at, value): (usize, &f64)| {
        let c = at / plane % x.shape[1];
        (value - mean.values[c]) / (variance.values[c] + epsilon).sqrt() * scale.values[c] + bias.values[c]
    };
    Array { shape: x.shape.clone(), values: x.values.iter().enumerate().map(normalise).collect() }
}

fn pool(node: &NodeProto, x: &Array) -> Array {
    let attributes = Attributes::of(node, &["kernel_shape", "strides", "pads", "count_include_pad"]);
    let window = Window::new(&attributes);
    let includes_padding = attributes.integer("count_include_pad", 0) == 1;
    let [batch, channels, height, width] = x.image_shape();
    let [out_height, out_width] = window.output([height, width]);
    Array::map(&[batch, channels, out_height, out_width], |place| {
        let [n, c, h, w] = place[..] else { unreachable!() };
        let inside: Vec<f64> = window.taps(h, w).filter_map(|(_, [row, column])| x.at(n, c, row, column)).collect();
        if node.op_type == "MaxPool" {
            return inside.into_iter().fold(f64::NEG_INFINITY, f64::max);
        }
        let count = if includes_padding { window.kernel[0] * window.kernel[1] } else { inside.len() };
        inside.iter().sum::<f64>() / count as f64
    })
}

fn gemm(node: &NodeProto, inputs: &[&Array]) -> Array {
    assert_eq!(Attributes::of(node, &["transB"]).integer("transB", 0), 1, "{}", node.name);
    let (x, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
    let ([batch, channels], [classes, columns]) = ([x.shape[0], x.shape[1]], [weight.shape[0], weight.shape[1]]);
    assert_eq!((x.shape.len(), channels), (2, columns), "{}", node.name);
    Array::map(&[batch, classes], |place| {
        let rows = [&x.values[place[0] * channels..][..channels], &weight.values[place[1] * channels..][..channels]];
        let products = rows[0].iter().zip(rows[1]).map(|(a, b)| a * b);
        bias.map_or(0.0, |bias| bias.values[place[1]]) + products.sum::<f64>()
    })
}
