//! What changes the shape of a batch or nothing at all, and constants.
#![forbid(unsafe_code)]

use crate::net::Operation;
use crate::onnx::import::draft::{Draft, Op};
use crate::onnx::import::node::{Axes, Image, Node, Value, axis_from_front, extents};
use crate::onnx::import::refusal::{Checked, refusal};
use crate::onnx::import::tensor::{MAX_AXES, Tensor, broadcast_dims};
use crate::onnx::proto::DataType;

pub(super) fn constant(node: &Node<'_>, _: &mut Draft) -> Checked<Value> {
    let tensor = if let Some(tensor) = node.tensor("value")? {
        tensor
    } else if let Some(values) = node.floats("value_floats")? {
        Tensor::floats(vec![values.len()], values.to_vec())
    } else if let Some(values) = node.integers("value_ints")? {
        Tensor::integers(vec![values.len()], values.to_vec())
    } else if node.proto.attribute.iter().any(|attribute| attribute.name == "value_float") {
        Tensor::floats(Vec::new(), vec![node.float("value_float", 0.0)?])
    } else if node.proto.attribute.iter().any(|attribute| attribute.name == "value_int") {
        Tensor::integers(Vec::new(), vec![node.integer("value_int", 0)?])
    } else {
        return Err(refusal("attributes", "a value", "none"));
    };
    Ok(Value::Constant(tensor))
}

pub(super) fn identity(node: &Node<'_>, _: &mut Draft) -> Checked<Value> {
    node.value(0).cloned()
}

pub(super) fn dropout(node: &Node<'_>, _: &mut Draft) -> Checked<Value> {
    if let Some(training) = node.optional_constant(2)?
        && training.as_integers()?.iter().any(|is_training| *is_training != 0)
    {
        return Err(refusal("input training_mode", "false, as in inference", "true"));
    }
    node.value(0).cloned()
}

/// Numbers of all formats of floating point are f32 here, truths are integers.
pub(super) fn cast(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let value = node.value(0)?;
    let to = node.integer("to", 0)?;
    let kind = i32::try_from(to).ok().and_then(|to| DataType::try_from(to).ok());
    if let (Value::Constant(tensor), Some(DataType::Bool)) = (value, kind) {
        draft.charge(tensor.count())?;
        return Ok(Value::Constant(tensor.truths()));
    }
    let is_float = matches!(kind, Some(DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double));
    let is_kept = match value {
        Value::Image(_) => is_float,
        Value::Constant(tensor) if is_float => tensor.as_floats().is_ok(),
        Value::Constant(tensor) => matches!(kind, Some(DataType::Int64)) && tensor.as_integers().is_ok(),
    };
    if is_kept { Ok(value.clone()) } else { Err(refusal("attribute to", "another format of floating point", to)) }
}

/// Constants alone: masks of weights.
pub(super) fn select(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let [condition, first, second] = [node.constant(0)?, node.constant(1)?, node.constant(2)?];
    let dims = broadcast_dims(&condition.dims, &first.dims).and_then(|dims| broadcast_dims(&dims, &second.dims));
    let Some(dims) = dims else {
        let got = format!("{:?}, {:?} and {:?}", condition.dims, first.dims, second.dims);
        return Err(refusal("shapes", "those of a broadcast", got));
    };
    draft.charge(dims.iter().fold(1, |product: usize, &extent| product.saturating_mul(extent)))?;
    Ok(Value::Constant(condition.selected(first, second, dims)?))
}

pub(super) fn flatten(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let axis = node.integer("axis", 1)?;
    match node.value(0)? {
        Value::Image(image) => {
            let rank = image.axes.count();
            if axis != 1 && axis != 1 - rank as i64 {
                return Err(refusal("attribute axis", "1, after the axis of the batch", axis));
            }
            flat(node, draft, *image)
        }
        Value::Constant(tensor) => {
            let rank = tensor.dims.len();
            let axis = if axis == rank as i64 { rank } else { axis_from_front(axis, rank)? };
            let (rows, columns) = tensor.dims.split_at(axis);
            reshaped(tensor, &[rows.iter().product(), columns.iter().product()])
        }
    }
}

pub(super) fn reshape(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let target = node.constant(1)?.as_integers()?;
    let copies_zeros = node.integer("allowzero", 0)? == 0;
    match node.value(0)? {
        Value::Image(image) => {
            let batch = reshaped_batch(draft, *image, target, copies_zeros);
            let [channels, height, width] = draft.shape(image.node);
            match batch.as_deref() {
                Some(&[values]) if values == channels * height * width => flat(node, draft, *image),
                Some(&[c, h, w]) if [c, h, w] == [channels, height, width] => {
                    Ok(Value::Image(Image { axes: Axes::Nchw, ..*image }))
                }
                Some(&[values, 1, 1]) if values == channels * height * width => {
                    let Value::Image(flat) = flat(node, draft, *image)? else { unreachable!("an image was given") };
                    Ok(Value::Image(Image { axes: Axes::Nchw, ..flat }))
                }
                _ => {
                    let from: Vec<String> = extents(draft, *image)
                        .into_iter()
                        .map(|extent| extent.map_or("batch".to_owned(), |extent| extent.to_string()))
                        .collect();
                    let expected = format!("[0, -1] or what keeps the images of [{}] apart and whole", from.join(", "));
                    Err(refusal("shape", expected, format!("{target:?}")))
                }
            }
        }
        Value::Constant(tensor) => {
            let from: Vec<Option<usize>> = tensor.dims.iter().copied().map(Some).collect();
            let dims = resolved(&from, tensor.count(), target, copies_zeros);
            let dims = dims.ok_or_else(|| refusal("shape", format!("{} values", tensor.count()), format!("{target:?}")))?;
            reshaped(tensor, &dims)
        }
    }
}

/// The extents after the first of a batch in a new shape, if the first one is that of the batch.
fn reshaped_batch(draft: &Draft, image: Image, target: &[i64], copies_zeros: bool) -> Option<Vec<usize>> {
    let from = extents(draft, image);
    let per_image: usize = draft.shape(image.node).iter().product();
    let (&first, rest) = target.split_first()?;
    let is_batch = match first {
        0 => copies_zeros,
        // The rest is as large as an image, so that this is the number of images.
        -1 => true,
        fixed => usize::try_from(fixed).is_ok_and(|fixed| Some(fixed) == draft.batch),
    };
    if !is_batch {
        return None;
    }
    // The extent of the batch is the first of both, so that a 0 is at the same place in both.
    let rest_of_from = &from[1..];
    if first == -1 && rest.contains(&-1) { None } else { resolved(rest_of_from, per_image, rest, copies_zeros) }
}

/// A shape of `count` values in which 0 stands for the same extent as before and -1 for what is left.
fn resolved(from: &[Option<usize>], count: usize, target: &[i64], copies_zeros: bool) -> Option<Vec<usize>> {
    let mut dims = Vec::with_capacity(target.len());
    for (axis, &extent) in target.iter().enumerate() {
        dims.push(match extent {
            0 if copies_zeros => Some((*from.get(axis)?)?),
            -1 => None,
            extent => Some(usize::try_from(extent).ok()?),
        });
    }
    let known = dims.iter().flatten().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
    match dims.iter().filter(|extent| extent.is_none()).count() {
        0 => {}
        1 if known > 0 && count.is_multiple_of(known) => {
            dims.iter_mut().filter(|extent| extent.is_none()).for_each(|extent| *extent = Some(count / known));
        }
        _ => return None,
    }
    let dims: Vec<usize> = dims.into_iter().flatten().collect();
    (dims.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent)) == Some(count)).then_some(dims)
}

pub(super) fn squeeze(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    match node.value(0)? {
        Value::Image(image) => {
            let rank = image.axes.count();
            let extents = extents(draft, *image);
            let axes = node.axes(1, rank)?;
            let mut axes = axes.unwrap_or_else(|| (0..rank).filter(|&axis| extents[axis] == Some(1)).collect());
            axes.sort_unstable();
            let [_, height, width] = draft.shape(image.node);
            if (image.axes, &axes[..], [height, width]) != (Axes::Nchw, &[2, 3][..], [1, 1]) {
                return Err(refusal("axes", "[2, 3], height and width of one pixel", format!("{axes:?}")));
            }
            Ok(Value::Image(Image { axes: Axes::Nc, ..*image }))
        }
        Value::Constant(tensor) => {
            let rank = tensor.dims.len();
            let axes = node.axes(1, rank)?;
            let is_dropped = |axis: usize| axes.as_ref().map_or(tensor.dims[axis] == 1, |axes| axes.contains(&axis));
            let dims: Vec<usize> = (0..rank).filter(|&axis| !is_dropped(axis)).map(|axis| tensor.dims[axis]).collect();
            reshaped(tensor, &dims)
        }
    }
}

pub(super) fn unsqueeze(node: &Node<'_>, _: &mut Draft) -> Checked<Value> {
    let more = match node.optional_constant(1)? {
        Some(tensor) => tensor.count(),
        None => node.integers("axes")?.map_or(0, <[i64]>::len),
    };
    let rank_of = |rank: usize| match rank.saturating_add(more) {
        more if more <= MAX_AXES => Ok(more),
        more => Err(refusal("axes", format!("at most {MAX_AXES}"), more)),
    };
    match node.value(0)? {
        Value::Image(image) => {
            let mut axes = node.axes(1, rank_of(image.axes.count())?)?.unwrap_or_default();
            axes.sort_unstable();
            if (image.axes, &axes[..]) != (Axes::Nc, &[2, 3][..]) {
                return Err(refusal("axes", "[2, 3], height and width, of 2 axes", format!("{axes:?}")));
            }
            Ok(Value::Image(Image { axes: Axes::Nchw, ..*image }))
        }
        Value::Constant(tensor) => {
            let rank = rank_of(tensor.dims.len())?;
            let axes = node.axes(1, rank)?.ok_or_else(|| refusal("axes", "an input or attribute", "none"))?;
            let mut left = tensor.dims.iter();
            let dims = (0..rank).filter_map(|axis| if axes.contains(&axis) { Some(1) } else { left.next().copied() });
            reshaped(tensor, &dims.collect::<Vec<_>>())
        }
    }
}

pub(super) fn transpose(node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
    let given = node.integers("perm")?;
    let order = |rank: usize| -> Checked<Vec<usize>> {
        let Some(given) = given else { return Ok((0..rank).rev().collect()) };
        let order: Vec<usize> = given.iter().map(|&axis| axis_from_front(axis, rank)).collect::<Checked<_>>()?;
        let is_order = order.len() == rank && (0..rank).all(|axis| order.contains(&axis));
        if is_order {
            Ok(order)
        } else {
            Err(refusal("attribute perm", format!("each of {rank} axes once"), format!("{given:?}")))
        }
    };
    match node.value(0)? {
        Value::Image(image) => {
            let order = order(image.axes.count())?;
            let is_kept = order.iter().enumerate().all(|(axis, from)| axis == *from);
            if is_kept {
                node.value(0).cloned()
            } else {
                Err(refusal("attribute perm", "axes as they are: NCHW", format!("{order:?}")))
            }
        }
        Value::Constant(tensor) => {
            draft.charge(tensor.count())?;
            Ok(Value::Constant(tensor.transposed(&order(tensor.dims.len())?)?))
        }
    }
}

/// All values of an image as a vector.
fn flat(node: &Node<'_>, draft: &mut Draft, image: Image) -> Checked<Value> {
    let [_, height, width] = draft.shape(image.node);
    let node = if (height, width) == (1, 1) {
        image.node
    } else {
        draft.push(node.name(), Op::Plain(Operation::Flatten), &[image.node])?
    };
    Ok(Value::Image(Image { node, axes: Axes::Nc }))
}

fn reshaped(tensor: &Tensor, dims: &[usize]) -> Checked<Value> {
    let refused = || refusal("shape", format!("{} values", tensor.count()), format!("{dims:?}"));
    tensor.reshaped(dims.to_vec()).map(Value::Constant).ok_or_else(refused)
}
