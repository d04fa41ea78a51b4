//! A node of an ONNX graph as operators read it: its inputs and attributes, checked as they are asked for.
#![forbid(unsafe_code)]

use crate::onnx::import::draft::Draft;
use crate::onnx::import::refusal::{Checked, refusal, shown};
use crate::onnx::import::tensor::Tensor;
use crate::onnx::proto::{AttributeProto, AttributeType, NodeProto};

/// What is known of a value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Image(Image),
    Constant(Tensor),
}

/// A batch of images, or of vectors, which are images of one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// The node of the draft.
    pub(super) node: usize,
    /// The axes that it has in ONNX.
    pub(super) axes: Axes,
}

/// The axes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axes {
    /// Images, channels, height, width.
    Nchw,
    /// Vectors and their values; as an image, one pixel.
    Nc,
}

impl Axes {
    pub(super) fn count(self) -> usize {
        match self {
            Axes::Nchw => 4,
            Axes::Nc => 2,
        }
    }
}

/// A node with what is known of its inputs.
pub(super) struct Node<'a> {
    pub(super) proto: &'a NodeProto,
    /// `None` for inputs that are left out.
    pub(super) inputs: Vec<Option<Value>>,
}

impl Node<'_> {
    /// The name, for nodes of the graph that is made.
    pub(super) fn name(&self) -> String {
        let NodeProto { name, output, .. } = self.proto;
        if name.is_empty() { output.first().cloned().unwrap_or_default() } else { name.clone() }
    }

    /// The same for a node with weights: the name of the module in PyTorch, where the initialiser has that.
    pub(super) fn name_of_weights(&self) -> String {
        match self.proto.input.get(1).and_then(|weight| weight.strip_suffix(".weight")) {
            Some(module) if !module.is_empty() => module.to_owned(),
            _ => self.name(),
        }
    }

    pub(super) fn value(&self, index: usize) -> Checked<&Value> {
        self.optional(index).ok_or_else(|| refusal(format!("input {index}"), "a value", "none"))
    }

    pub(super) fn optional(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// An input that is computed.
    pub(super) fn image(&self, index: usize) -> Checked<Image> {
        match self.value(index)? {
            Value::Image(image) => Ok(*image),
            Value::Constant(_) => Err(refusal(format!("input {index}"), "a value that is computed", "a constant")),
        }
    }

    /// An input that is computed and has height and width.
    pub(super) fn nchw_image(&self, index: usize) -> Checked<Image> {
        let image = self.image(index)?;
        match image.axes {
            Axes::Nchw => Ok(image),
            Axes::Nc => Err(refusal(format!("input {index}"), "4 axes, NCHW", "2 axes")),
        }
    }

    /// An input that the file holds.
    pub(super) fn constant(&self, index: usize) -> Checked<&Tensor> {
        match self.value(index)? {
            Value::Constant(tensor) => Ok(tensor),
            Value::Image(_) => Err(refusal(format!("input {index}"), "an initialiser or constant", "a computed value")),
        }
    }

    /// An input that the file holds or that is left out.
    pub(super) fn optional_constant(&self, index: usize) -> Checked<Option<&Tensor>> {
        self.optional(index).map(|_| self.constant(index)).transpose()
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Checked<Option<&AttributeProto>> {
        let Some(attribute) = self.proto.attribute.iter().find(|attribute| attribute.name == name) else { return Ok(None) };
        // Writers of old leave the type out.
        let is_of_kind = [kind as i32, AttributeType::Undefined as i32].contains(&attribute.r#type);
        if !is_of_kind || !attribute.ref_attr_name.is_empty() {
            let got = AttributeType::try_from(attribute.r#type).map_or("another type".to_owned(), |kind| format!("{kind:?}"));
            return Err(refusal(format!("attribute {name}"), format!("a value of type {kind:?}"), got));
        }
        Ok(Some(attribute))
    }

    /// An attribute of one integer.
    pub(super) fn integer(&self, name: &str, default: i64) -> Checked<i64> {
        Ok(self.attribute(name, AttributeType::Int)?.map_or(default, |attribute| attribute.i))
    }

    /// An attribute of integers.
    pub(super) fn integers(&self, name: &str) -> Checked<Option<&[i64]>> {
        Ok(self.attribute(name, AttributeType::Ints)?.map(|attribute| &attribute.ints[..]))
    }

    /// An attribute of one number.
    pub(super) fn float(&self, name: &str, default: f32) -> Checked<f32> {
        Ok(self.attribute(name, AttributeType::Float)?.map_or(default, |attribute| attribute.f))
    }

    /// An attribute of numbers.
    pub(super) fn floats(&self, name: &str) -> Checked<Option<&[f32]>> {
        Ok(self.attribute(name, AttributeType::Floats)?.map(|attribute| &attribute.floats[..]))
    }

    /// An attribute of text.
    pub(super) fn text(&self, name: &str, default: &str) -> Checked<String> {
        let attribute = self.attribute(name, AttributeType::String)?;
        Ok(attribute.map_or_else(|| default.to_owned(), |attribute| String::from_utf8_lossy(&attribute.s).into_owned()))
    }

    /// An attribute that is a tensor.
    pub(super) fn tensor(&self, name: &str) -> Checked<Option<Tensor>> {
        let attribute = self.attribute(name, AttributeType::Tensor)?;
        attribute.and_then(|attribute| attribute.t.clone()).map(Tensor::decode).transpose()
    }

    /// Refuses attributes beyond those that an operator knows.
    pub(super) fn check_attributes(&self, known: &[&str]) -> Checked<()> {
        match self.proto.attribute.iter().find(|attribute| !known.contains(&attribute.name.as_str())) {
            None => Ok(()),
            Some(attribute) => {
                let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(refusal("attributes", expected, shown(&attribute.name)))
            }
        }
    }

    /// Axes as an attribute (in older versions of an operator) or as an input, counted from the front; `None` if neither is there.
    pub(super) fn axes(&self, input: usize, rank: usize) -> Checked<Option<Vec<usize>>> {
        let given = match self.optional_constant(input)? {
            Some(tensor) => Some(tensor.as_integers()?),
            None => self.integers("axes")?,
        };
        given.map(|axes| axes.iter().map(|&axis| axis_from_front(axis, rank)).collect()).transpose()
    }
}

/// An axis that may be counted from the back.
pub(super) fn axis_from_front(axis: i64, rank: usize) -> Checked<usize> {
    let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(from_front) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => Err(refusal("axis", format!("below {rank}, of as many axes"), axis)),
    }
}

/// The extents of a batch as ONNX sees them; `None` for a number of images that is not fixed.
pub(super) fn extents(draft: &Draft, image: Image) -> Vec<Option<usize>> {
    let [channels, height, width] = draft.shape(image.node);
    let all = [draft.batch, Some(channels), Some(height), Some(width)];
    all[..image.axes.count()].to_vec()
}
