//! Pools, means and padding.
#![forbid(unsafe_code)]

use crate::net::Operation;
use crate::onnx::import::draft::{Draft, Op, Window};
use crate::onnx::import::node::{Axes, Image, Node, Value, axis_from_front};
use crate::onnx::import::refusal::{Checked, refusal};
use crate::onnx::import::window::{Geometry, numbers};

pub(super) fn max_pool(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    // The order of the second output, which nobody reads.
    let _ = node.integer("storage_order", 0)?;
    let (image, geometry) = pool(node, draft)?;
    let size = size(draft, image);
    let Window { kernel, stride, mut padding, .. } = geometry.window(size)?;
    let mut from = image.node;
    // Zeros are as good as no pixels where nothing is below 0.
    if let Op::Pad(zeros) = draft.nodes[from].op {
        let total = [0, 1, 2, 3].map(|side| padding[side] + zeros[side]);
        let inner = draft.nodes[from].inputs[0];
        if draft.nodes[inner].is_nonnegative && all_below(total, kernel) {
            (padding, from) = (total, inner);
        }
    }
    let operation = Operation::MaxPool { kernel, stride, padding };
    push(node, draft, image, from, operation)
}

pub(super) fn average_pool(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let (image, geometry) = pool(node, draft)?;
    let size = size(draft, image);
    if geometry.is_global(size) {
        return push(node, draft, image, image.node, Operation::GlobalAveragePool);
    }
    let mut counts_padding = node.integer("count_include_pad", 0)? != 0;
    if counts_padding && geometry.beyond != [0; 2] {
        return Err(refusal("attribute ceil_mode", "0, or extents that it does not change, with count_include_pad", 1));
    }
    let Window { kernel, stride, mut padding, .. } = geometry.window(size)?;
    let mut from = image.node;
    // Zeros of the image count as pixels do; those of the pool may not.
    if let Op::Pad(zeros) = draft.nodes[from].op
        && (counts_padding || padding == [0; 4])
    {
        let total = [0, 1, 2, 3].map(|side| padding[side] + zeros[side]);
        if all_below(total, kernel) {
            (padding, counts_padding, from) = (total, true, draft.nodes[from].inputs[0]);
        }
    }
    let operation = Operation::AveragePool { kernel, stride, padding, counts_padding };
    push(node, draft, image, from, operation)
}

pub(super) fn global_average_pool(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let image = node.nchw_image(0)?;
    push(node, draft, image, image.node, Operation::GlobalAveragePool)
}

pub(super) fn reduce_mean(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let keeps_axes = node.integer("keepdims", 1)? != 0;
    let does_nothing_without_axes = node.integer("noop_with_empty_axes", 0)? != 0;
    let image = node.nchw_image(0)?;
    let mut axes = node.axes(1, 4)?.unwrap_or_default();
    if axes.is_empty() && does_nothing_without_axes {
        return Ok(Value::Image(image));
    }
    axes.sort_unstable();
    if axes != [2, 3] {
        let got = if axes.is_empty() { "all axes".to_owned() } else { format!("{axes:?}") };
        return Err(refusal("axes", "[2, 3], height and width", got));
    }
    let mean = draft.push(node.name(), Op::Plain(Operation::GlobalAveragePool), &[image.node])?;
    Ok(Value::Image(Image { node: mean, axes: if keeps_axes { Axes::Nchw } else { Axes::Nc } }))
}

/// Zeros around images.
pub(super) fn pad(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let mode = node.text("mode", "constant")?;
    if mode != "constant" {
        return Err(refusal("attribute mode", "constant", mode));
    }
    let value = match node.optional_constant(2)? {
        Some(tensor) => tensor.as_float()?,
        None => node.float("value", 0.0)?,
    };
    if value != 0.0 {
        return Err(refusal("value of the padding", 0, value));
    }
    let image = node.image(0)?;
    let rank = image.axes.count();
    let given = match node.optional_constant(1)? {
        Some(tensor) => tensor.as_integers()?.to_vec(),
        None => node.integers("pads")?.map(<[i64]>::to_vec).ok_or_else(|| refusal("pads", "an input or attribute", "none"))?,
    };
    let axes: Vec<usize> = match node.optional_constant(3)? {
        Some(tensor) => tensor.as_integers()?.iter().map(|&axis| axis_from_front(axis, rank)).collect::<Checked<_>>()?,
        None => (0..rank).collect(),
    };
    if given.len() != 2 * axes.len() {
        return Err(refusal("number of pads", 2 * axes.len(), given.len()));
    }
    let mut zeros = [0; 4];
    for (index, pixels) in given.iter().enumerate() {
        let (axis, is_end) = (axes[index % axes.len()], index >= axes.len());
        if *pixels == 0 {
            continue;
        }
        let expected = "0 to 1024 pixels above, left, below and right";
        match usize::try_from(*pixels) {
            Ok(pixels) if axis >= 2 && pixels <= 1024 => zeros[axis - 2 + 2 * usize::from(is_end)] = pixels,
            _ => return Err(refusal("pads", expected, format!("{pixels} on axis {axis}"))),
        }
    }
    if zeros == [0; 4] {
        return Ok(Value::Image(image));
    }
    let mut from = image.node;
    if let Op::Pad(inner) = draft.nodes[from].op {
        zeros = [0, 1, 2, 3].map(|side| zeros[side] + inner[side]);
        from = draft.nodes[from].inputs[0];
    }
    let padded = draft.push(node.name(), Op::Pad(zeros), &[from])?;
    Ok(Value::Image(Image { node: padded, ..image }))
}

/// Image and window of a pool.
fn pool(node: &Node<'_>, draft: &Draft) -> Checked<(Image, Geometry)> {
    let image = node.nchw_image(0)?;
    let kernel = numbers::<2>(node, "kernel_shape", 1)?.ok_or_else(|| refusal("attribute kernel_shape", "2 numbers", "none"))?;
    let geometry = Geometry::of(node, kernel, size(draft, image))?;
    if (0..2).any(|axis| geometry.kernel[axis] > 1 && geometry.dilation[axis] > 1) {
        return Err(refusal("attribute dilations", "[1, 1] in pools", format!("{:?}", geometry.dilation)));
    }
    if !all_below(geometry.padding, kernel) {
        return Err(refusal("padding", format!("less than the kernel, {kernel:?}"), format!("{:?}", geometry.padding)));
    }
    Ok((image, geometry))
}

/// Whether every window has a pixel.
fn all_below(padding: [usize; 4], kernel: [usize; 2]) -> bool {
    (0..4).all(|side| padding[side] < kernel[side % 2])
}

fn size(draft: &Draft, image: Image) -> [usize; 2] {
    let [_, height, width] = draft.shape(image.node);
    [height, width]
}

fn push(node: &Node<'_>, draft: &mut Draft, image: Image, from: usize, operation: Operation) -> Checked<Value> {
    let pooled = draft.push(node.name(), Op::Plain(operation), &[from])?;
    Ok(Value::Image(Image { node: pooled, ..image }))
}
