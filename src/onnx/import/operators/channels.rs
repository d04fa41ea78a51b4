//! Norms, sums, products with constants, ReLU: what happens to every pixel by itself.
#![forbid(unsafe_code)]

use crate::net::Operation;
use crate::net::channel_map::ChannelMap;
use crate::onnx::import::draft::{Draft, Op};
use crate::onnx::import::node::{Axes, Image, Node, Value};
use crate::onnx::import::refusal::{Checked, refusal};
use crate::onnx::import::tensor::{Tensor, broadcast_dims};

pub(super) fn batch_normalization(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    if node.integer("training_mode", 0)? != 0 {
        return Err(refusal("attribute training_mode", "0, as in inference", 1));
    }
    if node.integer("spatial", 1)? == 0 {
        return Err(refusal("attribute spatial", "1, statistics of channels", 0));
    }
    let image = node.image(0)?;
    let channels = draft.shape(image.node)[0];
    let mut parts = Vec::new();
    for input in 1..5 {
        let tensor = node.constant(input)?;
        if tensor.dims != [channels] {
            return Err(refusal(format!("shape of input {input}"), format!("[{channels}]"), format!("{:?}", tensor.dims)));
        }
        parts.push(tensor.as_floats()?);
    }
    let epsilon = f64::from(node.float("epsilon", 1e-5)?);
    map(node, draft, image, ChannelMap::batch_norm(parts[0], parts[1], parts[2], parts[3], epsilon))
}

pub(super) fn add(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    match constants(node, draft, |a, b| a + b)? {
        Some(folded) => Ok(folded),
        None => sum(node, draft),
    }
}

/// What two constants make together; `None` if one of the two inputs is computed.
fn constants(node: &Node<'_>, draft: &mut Draft, operation: fn(f32, f32) -> f32) -> Checked<Option<Value>> {
    let (Value::Constant(first), Value::Constant(second)) = (node.value(0)?, node.value(1)?) else { return Ok(None) };
    let Some(dims) = broadcast_dims(&first.dims, &second.dims) else {
        return Err(refusal("shapes", "those of a broadcast", format!("{:?} and {:?}", first.dims, second.dims)));
    };
    draft.charge(dims.iter().fold(1, |product: usize, &extent| product.saturating_mul(extent)))?;
    Ok(Some(Value::Constant(first.combined(second, dims, operation)?)))
}

/// The sum of images and constants, any number of them.
pub(super) fn sum(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let mut images = Vec::new();
    for index in 0..node.inputs.len() {
        if let Value::Image(image) = node.value(index)? {
            images.push(*image);
        }
    }
    let Some(&first) = images.first() else { return Err(refusal("inputs", "one that is computed", "constants alone")) };
    for image in &images {
        let (expected, got) = (draft.shape(first.node), draft.shape(image.node));
        if (expected, first.axes) != (got, image.axes) {
            return Err(refusal("inputs", format!("all of {expected:?}"), format!("one of {got:?}")));
        }
    }
    let channels = draft.shape(first.node)[0];
    let mut shift = vec![0.0; channels];
    for value in node.inputs.iter().flatten() {
        if let Value::Constant(tensor) = value {
            draft.charge(channels)?;
            let terms = per_channel(tensor, first, draft)?;
            shift.iter_mut().zip(terms).for_each(|(shift, term)| *shift += term);
        }
    }
    let mut result = first;
    if images.len() > 1 {
        let inputs: Vec<usize> = images.iter().map(|image| image.node).collect();
        result.node = draft.push(node.name(), Op::Sum, &inputs)?;
    }
    if shift.iter().all(|term| *term == 0.0) {
        return Ok(Value::Image(result));
    }
    map(node, draft, result, ChannelMap { scale: vec![1.0; channels], shift })
}

pub(super) fn sub(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    if let Some(folded) = constants(node, draft, |a, b| a - b)? {
        return Ok(folded);
    }
    if let Value::Constant(tensor) = node.value(0)? {
        let image = node.image(1)?;
        let shift = per_channel(tensor, image, draft)?;
        return map(node, draft, image, ChannelMap { scale: vec![-1.0; shift.len()], shift });
    }
    let image = node.image(0)?;
    if let Value::Image(other) = node.value(1)? {
        let (expected, got) = (draft.shape(image.node), draft.shape(other.node));
        if (expected, image.axes) != (got, other.axes) {
            return Err(refusal("inputs", format!("both of {expected:?}"), format!("one of {got:?}")));
        }
        let negated = ChannelMap { scale: vec![-1.0; got[0]], shift: vec![0.0; got[0]] };
        let negated = draft.push(format!("{}.negated", node.name()), Op::Map(negated), &[other.node])?;
        let difference = draft.push(node.name(), Op::Sum, &[image.node, negated])?;
        return Ok(Value::Image(Image { node: difference, ..image }));
    }
    let shift: Vec<f64> = per_channel(node.constant(1)?, image, draft)?.into_iter().map(|term| -term).collect();
    map(node, draft, image, ChannelMap { scale: vec![1.0; shift.len()], shift })
}

pub(super) fn mul(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    if let Some(folded) = constants(node, draft, |a, b| a * b)? {
        return Ok(folded);
    }
    let image_index = usize::from(matches!(node.value(0)?, Value::Constant(_)));
    let image = node.image(image_index)?;
    let scale = per_channel(node.constant(1 - image_index)?, image, draft)?;
    map(node, draft, image, ChannelMap { shift: vec![0.0; scale.len()], scale })
}

pub(super) fn div(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    if let Some(folded) = constants(node, draft, |a, b| a / b)? {
        return Ok(folded);
    }
    let image = node.image(0)?;
    let scale: Vec<f64> = per_channel(node.constant(1)?, image, draft)?.into_iter().map(f64::recip).collect();
    map(node, draft, image, ChannelMap { shift: vec![0.0; scale.len()], scale })
}

pub(super) fn relu(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let image = node.image(0)?;
    let relu = draft.push(node.name(), Op::Plain(Operation::Relu), &[image.node])?;
    Ok(Value::Image(Image { node: relu, ..image }))
}

fn map(node: &Node<'_>, draft: &mut Draft, image: Image, map: ChannelMap) -> Checked<Value> {
    let mapped = draft.push(node.name(), Op::Map(map), &[image.node])?;
    Ok(Value::Image(Image { node: mapped, ..image }))
}

/// The value of a constant for every channel of an image that it is broadcast to.
pub(super) fn per_channel(tensor: &Tensor, image: Image, draft: &Draft) -> Checked<Vec<f64>> {
    let values = tensor.as_floats()?;
    let [channels, height, width] = draft.shape(image.node);
    let all = [1, channels, height, width];
    let rank = image.axes.count();
    let axes = &all[..rank];
    let refused = |expected: String| Err(refusal("shape of the constant", expected, format!("{:?}", tensor.dims)));
    let given = tensor.dims.len();
    let fits = given <= rank && (0..given).all(|axis| [1, axes[rank - given + axis]].contains(&tensor.dims[axis]));
    if !fits || values.is_empty() {
        return refused(format!("one that can be broadcast to {axes:?}, and not more"));
    }
    let extent = |axis: usize| (axis + given).checked_sub(rank).map_or(1, |axis| tensor.dims[axis]);
    let pixels = match image.axes {
        Axes::Nchw => extent(2) * extent(3),
        Axes::Nc => 1,
    };
    if values.chunks_exact(pixels).any(|channel| channel.iter().any(|value| value.to_bits() != channel[0].to_bits())) {
        return refused("one value for all pixels of a channel".to_owned());
    }
    let is_shared = extent(1) == 1;
    Ok((0..channels).map(|channel| f64::from(values[if is_shared { 0 } else { channel * pixels }])).collect())
}
