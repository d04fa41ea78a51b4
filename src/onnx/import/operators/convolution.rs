//! Convolutions and matrix products.
#![forbid(unsafe_code)]

use std::rc::Rc;

use crate::net::channel_map::ChannelMap;
use crate::net::graph::MAX_REACH;
use crate::onnx::import::draft::{Convolution, Draft, Op, Window};
use crate::onnx::import::node::{Axes, Image, Node, Value};
use crate::onnx::import::operators::channels::per_channel;
use crate::onnx::import::refusal::{Checked, refusal};
use crate::onnx::import::tensor::Tensor;
use crate::onnx::import::window::{Geometry, numbers};

pub(super) fn conv(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let image = node.nchw_image(0)?;
    let weight = node.constant(1)?;
    let [outputs, of_group, rows, columns] = weight.dims[..] else {
        return Err(refusal("shape of the weight", "4 extents, of images with height and width", format!("{:?}", weight.dims)));
    };
    let kernel = [rows, columns];
    let stated = numbers::<2>(node, "kernel_shape", 1)?.unwrap_or(kernel);
    if stated != kernel {
        return Err(refusal("attribute kernel_shape", format!("{kernel:?}, as the weight has it"), format!("{stated:?}")));
    }
    let [channels, height, width] = draft.shape(image.node);
    let groups = usize::try_from(node.integer("group", 1)?).unwrap_or(0);
    if groups == 0 || of_group.checked_mul(groups) != Some(channels) || outputs == 0 {
        let got = format!("a weight {:?} in {groups} groups", weight.dims);
        return Err(refusal("channels", format!("those of the input, {channels}"), got));
    }
    let mut geometry = Geometry::of(node, kernel, [height, width])?;
    let mut values = Rc::clone(weight.as_floats()?);
    if geometry.dilation[0] != geometry.dilation[1] && !kernel.contains(&1) {
        let reach = [0, 1].map(|axis| geometry.reach(axis));
        if reach.into_iter().any(|reach| reach > MAX_REACH) {
            return Err(refusal("pixels under the kernel", format!("at most {MAX_REACH}"), format!("{reach:?}")));
        }
        values = Rc::new(spread(&values, kernel, geometry.dilation, reach));
        (geometry.kernel, geometry.dilation) = (reach, [1; 2]);
    }
    let mut map = ChannelMap::identity(outputs);
    if let Some(bias) = node.optional_constant(2)? {
        if bias.dims != [outputs] {
            return Err(refusal("shape of the bias", format!("[{outputs}]"), format!("{:?}", bias.dims)));
        }
        map.shift = bias.as_floats()?.iter().map(|value| f64::from(*value)).collect();
    }
    let mut window = geometry.window([height, width])?;
    let mut from = image.node;
    if let Op::Pad(zeros) = &draft.nodes[from].op {
        window.padding.iter_mut().zip(zeros).for_each(|(padding, zeros)| *padding += zeros);
        from = draft.nodes[from].inputs[0];
    }
    let convolution = Convolution { window, groups, weight: values, map };
    let output = draft.push(node.name_of_weights(), Op::Convolve(convolution), &[from])?;
    Ok(Value::Image(Image { node: output, ..image }))
}

/// Kernels with zeros where dilation leaves gaps: what rows and columns of different dilations become.
fn spread(values: &[f32], kernel: [usize; 2], dilation: [usize; 2], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let taps = kernel[0] * kernel[1];
    let mut spread = vec![0.0; values.len() / taps * rows * columns];
    for (index, value) in values.iter().enumerate() {
        let (row, column) = (index % taps / kernel[1] * dilation[0], index % kernel[1] * dilation[1]);
        spread[(index / taps * rows + row) * columns + column] = *value;
    }
    spread
}

pub(super) fn gemm(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    if node.integer("transA", 0)? != 0 {
        return Err(refusal("attribute transA", "0, or values of different images would be multiplied", 1));
    }
    let image = vectors(node)?;
    let is_transposed = node.integer("transB", 0)? != 0;
    let (outputs, weight) = matrix(node.constant(1)?, is_transposed, draft.shape(image.node)[0])?;
    let map = ChannelMap::identity(outputs).times(f64::from(node.float("alpha", 1.0)?));
    let product = linear(node, draft, image, weight, map)?;
    let Some(bias) = node.optional_constant(2)? else { return Ok(Value::Image(product)) };
    let beta = f64::from(node.float("beta", 1.0)?);
    let shift: Vec<f64> = per_channel(bias, product, draft)?.into_iter().map(|term| beta * term).collect();
    if let Op::Convolve(convolution) = &mut draft.nodes[product.node].op {
        convolution.map.shift = shift;
    }
    Ok(Value::Image(product))
}

pub(super) fn matmul(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let image = vectors(node)?;
    let (outputs, weight) = matrix(node.constant(1)?, false, draft.shape(image.node)[0])?;
    linear(node, draft, image, weight, ChannelMap::identity(outputs)).map(Value::Image)
}

/// The first input of a matrix product: a vector per image.
fn vectors(node: &Node<'_>) -> Checked<Image> {
    let image = node.image(0)?;
    match image.axes {
        Axes::Nc => Ok(image),
        Axes::Nchw => Err(refusal("input 0", "2 axes, a vector per image", "4 axes")),
    }
}

/// Output channels and weight `[outputs, inputs]` of a matrix `[inputs, outputs]`, or the other way round if it is transposed.
fn matrix(tensor: &Tensor, is_transposed: bool, inputs: usize) -> Checked<(usize, Rc<Vec<f32>>)> {
    let (outputs, weight) = match (&tensor.dims[..], is_transposed) {
        (&[outputs, rows], true) if rows == inputs => (outputs, tensor.clone()),
        (&[rows, outputs], false) if rows == inputs => (outputs, tensor.transposed(&[1, 0])?),
        (dims, _) => return Err(refusal("shape of the matrix", format!("{inputs} inputs"), format!("{dims:?}"))),
    };
    if outputs == 0 {
        return Err(refusal("shape of the matrix", "outputs", "none"));
    }
    Ok((outputs, Rc::clone(weight.as_floats()?)))
}

/// A linear layer: a 1x1 convolution of images of one pixel.
fn linear(node: &Node<'_>, draft: &mut Draft, image: Image, weight: Rc<Vec<f32>>, map: ChannelMap) -> Checked<Image> {
    let convolution = Convolution { window: Window::PIXEL, groups: 1, weight, map };
    let output = draft.push(node.name_of_weights(), Op::Convolve(convolution), &[image.node])?;
    Ok(Image { node: output, axes: Axes::Nc })
}
