//! ONNX operators as their specification says, one value after another in f64.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use leanresnet::internals::onnx_proto::{AttributeProto, DataType, ModelProto, NodeProto, TensorProto};

/// An array of any number of axes.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    fn map(dims: Vec<usize>, value: impl Fn(&[usize]) -> f64) -> Self {
        let count = dims.iter().product();
        let mut values = Vec::with_capacity(count);
        for mut index in 0..count {
            let mut at = vec![0; dims.len()];
            for axis in (0..dims.len()).rev() {
                at[axis] = index % dims[axis];
                index /= dims[axis];
            }
            values.push(value(&at));
        }
        Array { dims, values }
    }

    fn at(&self, at: &[usize]) -> f64 {
        self.values[at.iter().zip(&self.dims).fold(0, |index, (at, extent)| index * extent + at)]
    }

    /// The value at a place of the result of broadcasting.
    fn broadcast_at(&self, at: &[usize]) -> f64 {
        let own = &at[at.len() - self.dims.len()..];
        self.at(&own.iter().zip(&self.dims).map(|(at, extent)| at % extent).collect::<Vec<_>>())
    }

    /// The value of an image at a place that may be outside.
    fn pixel(&self, n: usize, c: usize, row: isize, column: isize) -> Option<f64> {
        let inside = (0..self.dims[2] as isize).contains(&row) && (0..self.dims[3] as isize).contains(&column);
        inside.then(|| self.at(&[n, c, row as usize, column as usize]))
    }

    fn reshaped(&self, dims: Vec<usize>) -> Self {
        Array { dims, values: self.values.clone() }
    }
}

/// The output of a model for a batch.
pub(crate) fn run(model: &ModelProto, x: Array) -> Array {
    let graph = model.graph.as_ref().unwrap();
    let mut values: HashMap<&str, Array> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), constant(tensor))).collect();
    values.insert(&graph.input[0].name, x);
    for node in &graph.node {
        let inputs: Vec<Option<&Array>> = node.input.iter().map(|name| values.get(name.as_str())).collect();
        let output = node_output(node, &inputs);
        values.insert(&node.output[0], output);
    }
    values.remove(graph.output[0].name.as_str()).unwrap()
}

fn constant(tensor: &TensorProto) -> Array {
    let dims: Vec<usize> = tensor.dims.iter().map(|&extent| extent as usize).collect();
    let raw = &tensor.raw_data;
    let values = if tensor.data_type == i32::from(DataType::Int64) {
        let raw = raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
        raw.chain(tensor.int64_data.iter().copied()).map(|value| value as f64).collect()
    } else {
        raw.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
    };
    Array { dims, values }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

fn ints(node: &NodeProto, name: &str, default: &[usize]) -> Vec<usize> {
    attribute(node, name).map_or(default.to_vec(), |attribute| attribute.ints.iter().map(|&value| value as usize).collect())
}

/// Extents of the output of windows and the padding that they are put on.
fn windows(node: &NodeProto, size: [usize; 2], kernel: [usize; 2]) -> ([usize; 2], [usize; 2], [usize; 2]) {
    let (strides, dilations) = (ints(node, "strides", &[1, 1]), ints(node, "dilations", &[1, 1]));
    let pads = ints(node, "pads", &[0; 4]);
    let auto =
        attribute(node, "auto_pad").map_or("NOTSET".to_owned(), |attribute| String::from_utf8(attribute.s.clone()).unwrap());
    let (mut output, mut before, mut padded) = ([0; 2], [0; 2], [0; 2]);
    for axis in 0..2 {
        let reach = (kernel[axis] - 1) * dilations[axis] + 1;
        let (start, end) = match auto.as_str() {
            "NOTSET" => (pads[axis], pads[axis + 2]),
            "VALID" => (0, 0),
            same => {
                let count = size[axis].div_ceil(strides[axis]);
                let total = ((count - 1) * strides[axis] + reach).saturating_sub(size[axis]);
                if same == "SAME_UPPER" { (total / 2, total - total / 2) } else { (total - total / 2, total / 2) }
            }
        };
        padded[axis] = size[axis] + start + end;
        output[axis] = (padded[axis] - reach) / strides[axis] + 1;
        if int(node, "ceil_mode", 0) != 0 {
            output[axis] = (padded[axis] - reach).div_ceil(strides[axis]) + 1;
            if (output[axis] - 1) * strides[axis] >= size[axis] + start {
                output[axis] -= 1;
            }
        }
        before[axis] = start;
    }
    (output, before, padded)
}

fn node_output(node: &NodeProto, inputs: &[Option<&Array>]) -> Array {
    if node.op_type == "Constant" {
        return constant(attribute(node, "value").unwrap().t.as_ref().unwrap());
    }
    let x = inputs[0].unwrap();
    match node.op_type.as_str() {
        "Identity" | "Dropout" => x.clone(),
        "Relu" => Array { dims: x.dims.clone(), values: x.values.iter().map(|value| value.max(0.0)).collect() },
        "Add" | "Sub" | "Mul" | "Div" => {
            let y = inputs[1].unwrap();
            let rank = x.dims.len().max(y.dims.len());
            let extent =
                |array: &Array, axis: usize| (axis + array.dims.len()).checked_sub(rank).map_or(1, |axis| array.dims[axis]);
            let dims = (0..rank).map(|axis| extent(x, axis).max(extent(y, axis))).collect();
            Array::map(dims, |at| {
                let (a, b) = (x.broadcast_at(at), y.broadcast_at(at));
                match node.op_type.as_str() {
                    "Add" => a + b,
                    "Sub" => a - b,
                    "Mul" => a * b,
                    _ => a / b,
                }
            })
        }
        // To truths, which is all that the models here cast to.
        "Cast" => Array::map(x.dims.clone(), |at| f64::from(u8::from(x.at(at) != 0.0))),
        // The last input has the shape of the output.
        "Where" => {
            let (first, second) = (inputs[1].unwrap(), inputs[2].unwrap());
            Array::map(second.dims.clone(), |at| if x.broadcast_at(at) == 0.0 { second.at(at) } else { first.broadcast_at(at) })
        }
        "Sum" => Array::map(x.dims.clone(), |at| inputs.iter().map(|input| input.unwrap().broadcast_at(at)).sum()),
        "BatchNormalization" => {
            let epsilon = attribute(node, "epsilon").map_or(1e-5, |attribute| f64::from(attribute.f));
            let part = |index: usize, channel: usize| inputs[index].unwrap().values[channel];
            Array::map(x.dims.clone(), |at| {
                let c = at[1];
                (x.at(at) - part(3, c)) / (part(4, c) + epsilon).sqrt() * part(1, c) + part(2, c)
            })
        }
        "Conv" => conv(node, x, inputs[1].unwrap(), inputs.get(2).copied().flatten()),
        "MaxPool" | "AveragePool" => pool(node, x),
        "ReduceMean" if int(node, "keepdims", 1) == 0 => mean(x),
        "GlobalAveragePool" | "ReduceMean" => mean(x).reshaped(vec![x.dims[0], x.dims[1], 1, 1]),
        "Flatten" | "Squeeze" => x.reshaped(vec![x.dims[0], x.values.len() / x.dims[0]]),
        "Unsqueeze" => x.reshaped(vec![x.dims[0], x.dims[1], 1, 1]),
        "Reshape" => {
            let wanted = inputs[1].unwrap().values.iter().enumerate();
            let mut dims: Vec<usize> =
                wanted.map(|(axis, &extent)| if extent == 0.0 { x.dims[axis] } else { extent.max(0.0) as usize }).collect();
            if let Some(rest) = inputs[1].unwrap().values.iter().position(|extent| *extent == -1.0) {
                dims[rest] = 1;
                dims[rest] = x.values.len() / dims.iter().product::<usize>();
            }
            x.reshaped(dims)
        }
        "Pad" => {
            let pads: Vec<usize> = inputs[1].unwrap().values.iter().map(|value| *value as usize).collect();
            let dims = vec![x.dims[0], x.dims[1], x.dims[2] + pads[2] + pads[6], x.dims[3] + pads[3] + pads[7]];
            Array::map(dims, |at| {
                x.pixel(at[0], at[1], at[2] as isize - pads[2] as isize, at[3] as isize - pads[3] as isize).unwrap_or(0.0)
            })
        }
        "Transpose" => Array::map(vec![x.dims[1], x.dims[0]], |at| x.at(&[at[1], at[0]])),
        "MatMul" => product(x, inputs[1].unwrap(), false, 1.0),
        "Gemm" => {
            let float = |name: &str| attribute(node, name).map_or(1.0, |attribute| f64::from(attribute.f));
            let mut output = product(x, inputs[1].unwrap(), int(node, "transB", 0) != 0, float("alpha"));
            if let Some(bias) = inputs.get(2).copied().flatten() {
                let sum = Array::map(output.dims.clone(), |at| output.at(at) + float("beta") * bias.broadcast_at(at));
                output = sum;
            }
            output
        }
        other => panic!("{other} is not known here"),
    }
}

fn conv(node: &NodeProto, x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
    let [outputs, members, rows, columns] = weight.dims[..] else { panic!("4 extents") };
    let (strides, dilations) = (ints(node, "strides", &[1, 1]), ints(node, "dilations", &[1, 1]));
    let group_outputs = outputs / int(node, "group", 1) as usize;
    let (output, before, _) = windows(node, [x.dims[2], x.dims[3]], [rows, columns]);
    Array::map(vec![x.dims[0], outputs, output[0], output[1]], |at| {
        let mut sum = bias.map_or(0.0, |bias| bias.values[at[1]]);
        for (m, i, j) in (0..members).flat_map(|m| (0..rows).flat_map(move |i| (0..columns).map(move |j| (m, i, j)))) {
            let row = (at[2] * strides[0] + i * dilations[0]) as isize - before[0] as isize;
            let column = (at[3] * strides[1] + j * dilations[1]) as isize - before[1] as isize;
            let value = x.pixel(at[0], at[1] / group_outputs * members + m, row, column).unwrap_or(0.0);
            sum += value * weight.at(&[at[1], m, i, j]);
        }
        sum
    })
}

fn pool(node: &NodeProto, x: &Array) -> Array {
    let kernel = ints(node, "kernel_shape", &[]);
    let strides = ints(node, "strides", &[1, 1]);
    let (output, before, padded) = windows(node, [x.dims[2], x.dims[3]], [kernel[0], kernel[1]]);
    Array::map(vec![x.dims[0], x.dims[1], output[0], output[1]], |at| {
        let (mut inside, mut count) = (Vec::new(), 0);
        for (i, j) in (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| (i, j))) {
            let (row, column) = (at[2] * strides[0] + i, at[3] * strides[1] + j);
            count += usize::from(row < padded[0] && column < padded[1]);
            inside.extend(x.pixel(at[0], at[1], row as isize - before[0] as isize, column as isize - before[1] as isize));
        }
        if node.op_type == "MaxPool" {
            return inside.into_iter().fold(f64::NEG_INFINITY, f64::max);
        }
        let divisor = if int(node, "count_include_pad", 0) != 0 { count } else { inside.len() };
        inside.iter().sum::<f64>() / divisor as f64
    })
}

/// The mean over height and width.
fn mean(x: &Array) -> Array {
    let pixels = x.dims[2] * x.dims[3];
    let values = x.values.chunks_exact(pixels).map(|channel| channel.iter().sum::<f64>() / pixels as f64).collect();
    Array { dims: x.dims[..2].to_vec(), values }
}

fn product(x: &Array, matrix: &Array, is_transposed: bool, alpha: f64) -> Array {
    let outputs = matrix.dims[usize::from(!is_transposed)];
    Array::map(vec![x.dims[0], outputs], |at| {
        let weight = |inner: usize| if is_transposed { matrix.at(&[at[1], inner]) } else { matrix.at(&[inner, at[1]]) };
        alpha * (0..x.dims[1]).map(|inner| x.at(&[at[0], inner]) * weight(inner)).sum::<f64>()
    })
}
