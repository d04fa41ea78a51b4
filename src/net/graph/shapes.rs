//! The sizes of a graph's images, and the checks that every graph passes before anything is computed or allocated from its numbers.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::conv::pack::GROUP_SIZES;
use crate::error::{Error, Result};
use crate::net::graph::{Node, Operation};

/// Most nodes.
const MAX_NODES: usize = 10_000;
/// Longest name of a node in bytes.
const MAX_NAME: usize = 256;
/// Largest number of channels, rows or columns.
const MAX_EXTENT: usize = 1 << 20;
/// Largest number of values of an image between nodes.
const MAX_ACTIVATION: usize = 1 << 31;
/// Largest number of stored values, and of values of a convolution's kernel for all pairs of channels.
const MAX_PARAMETERS: usize = 1 << 31;
/// Rows (and columns) that a kernel reaches over, at most: the convolution kernels have pointers for as many.
pub(crate) const MAX_REACH: usize = 7;
/// Largest window of a pool, stride and padding.
const MAX_WINDOW: usize = 1024;

/// Channels, height and width of the image and of every node's output.
///
/// # Errors
/// [`Error::Invalid`] for nodes that do not fit.
pub(super) fn shapes(input: [usize; 3], nodes: &[Node]) -> Result<Vec<[usize; 3]>> {
    check_size("input of the graph", input)?;
    within("number of nodes", nodes.len(), 1, MAX_NODES)?;
    let mut names = HashSet::new();
    let mut shapes = vec![input];
    let mut parameters = 0_usize;
    for node in nodes {
        let Node { name, inputs, operation } = node;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) || !names.insert(name) {
            let expected = format!("1 to {MAX_NAME} printable bytes that no other node has");
            return Err(Error::invalid("name of a node", expected, format!("`{name}`")));
        }
        let arity = if *operation == Operation::Add { 2 } else { 1 };
        if inputs.len() != arity || inputs.iter().any(|&value| value >= shapes.len()) {
            let expected = format!("{arity} below {}, as nodes come after those that they read", shapes.len());
            return Err(Error::invalid(format!("inputs of node `{name}`"), expected, format!("{inputs:?}")));
        }
        let read: Vec<[usize; 3]> = inputs.iter().map(|&value| shapes[value]).collect();
        shapes.push(output_shape(name, operation, &read)?);
        let tensors = node.parameters(read[0][0]);
        parameters = tensors.iter().map(|tensor| product(&tensor.shape)).fold(parameters, usize::saturating_add);
        within("number of stored values", parameters, 0, MAX_PARAMETERS)?;
    }
    let [_, height, width] = shapes[nodes.len()];
    if (height, width) != (1, 1) {
        let got = format!("{height} x {width} pixels");
        return Err(Error::invalid("output of the last node", "one pixel, whose channels are the classes", got));
    }
    Ok(shapes)
}

/// Channels, height and width of the output of a node by itself, bounded as in a graph.
///
/// # Errors
/// [`Error::Invalid`] for an operation that does not fit what it reads.
pub(crate) fn output_shape(name: &str, operation: &Operation, read: &[[usize; 3]]) -> Result<[usize; 3]> {
    let output = output(name, operation, read)?;
    check_size(&format!("output of node `{name}`"), output)?;
    Ok(output)
}

/// Channels, height and width of a node's output.
fn output(name: &str, operation: &Operation, read: &[[usize; 3]]) -> Result<[usize; 3]> {
    let [channels, height, width] = read[0];
    let what = |part: &str| format!("{part} of node `{name}`");
    match *operation {
        Operation::Conv { outputs, kernel, stride, padding, dilation, groups, .. } => {
            within(&what("dilation"), dilation, 1, MAX_REACH)?;
            let reach = kernel.map(|taps| taps.saturating_sub(1).saturating_mul(dilation).saturating_add(1));
            for (taps, reach) in kernel.into_iter().zip(reach) {
                within(&what("kernel"), taps, 1, MAX_REACH)?;
                within(&what("pixels under the kernel"), reach, 1, MAX_REACH)?;
            }
            within(&what("output channels"), outputs, 1, MAX_EXTENT)?;
            if groups == 0 || channels % groups != 0 || outputs % groups != 0 {
                let expected = format!("a divisor of {channels} inputs and {outputs} outputs");
                return Err(Error::invalid(what("groups"), expected, groups));
            }
            within(&what("values of the full kernel"), product(&[outputs, channels, reach[0], reach[1]]), 1, MAX_PARAMETERS)?;
            let [height, width] = windows(name, [height, width], reach, stride, padding)?;
            Ok([outputs, height, width])
        }
        Operation::Lean { group_size, .. } => {
            if !GROUP_SIZES.contains(&group_size) || channels % group_size != 0 {
                let expected = format!("one of {GROUP_SIZES:?} that divides {channels}");
                return Err(Error::invalid(what("group size"), expected, group_size));
            }
            Ok(read[0])
        }
        Operation::MaxPool { kernel, stride, padding } | Operation::AveragePool { kernel, stride, padding, .. } => {
            for (index, taps) in kernel.into_iter().enumerate() {
                within(&what("window"), taps, 1, MAX_WINDOW)?;
                within(&what("padding"), padding[index], 0, taps - 1)?;
            }
            let [height, width] = windows(name, [height, width], kernel, stride, padding)?;
            Ok([channels, height, width])
        }
        Operation::GlobalAveragePool => Ok([channels, 1, 1]),
        Operation::Flatten => Ok([product(&read[0]), 1, 1]),
        Operation::Add if read[0] != read[1] => {
            Err(Error::invalid(what("inputs"), format!("two of {:?}", read[0]), format!("one of {:?}", read[1])))
        }
        Operation::Add | Operation::Relu => Ok(read[0]),
    }
}

/// Rows and columns of windows on an image.
fn windows(name: &str, size: [usize; 2], reach: [usize; 2], stride: usize, padding: [usize; 4]) -> Result<[usize; 2]> {
    within(&format!("stride of node `{name}`"), stride, 1, MAX_WINDOW)?;
    let mut output = [0; 2];
    for (index, output) in output.iter_mut().enumerate() {
        let (before, after) = (padding[index], padding[index + 2]);
        within(&format!("padding of node `{name}`"), before.max(after), 0, MAX_WINDOW)?;
        let padded = size[index] + before + after;
        within(&format!("pixels under the window of node `{name}`"), reach[index], 1, padded)?;
        *output = (padded - reach[index]) / stride + 1;
    }
    Ok(output)
}

fn check_size(what: &str, shape: [usize; 3]) -> Result<()> {
    for extent in shape {
        within(&format!("extent of the {what}"), extent, 1, MAX_EXTENT)?;
    }
    within(&format!("values of the {what}"), product(&shape), 1, MAX_ACTIVATION)
}

fn product(extents: &[usize]) -> usize {
    extents.iter().fold(1, |product: usize, &extent| product.saturating_mul(extent))
}

fn within(what: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(Error::invalid(what, format!("{least} to {most}"), value)) }
}
