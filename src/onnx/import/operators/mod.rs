//! The operators of ONNX that can be imported.

mod channels;
mod convolution;
mod pool;
mod shape;

use crate::onnx::import::draft::Draft;
use crate::onnx::import::node::{Node, Value};
use crate::onnx::import::refusal::Checked;

/// An operator.
pub(super) struct Operator {
    name: &'static str,
    /// Attributes that it may have; those that change nothing in inference among them.
    attributes: &'static [&'static str],
    /// Adds to the draft what a node computes.
    import: fn(&Node<'_>, &mut Draft) -> Checked<Value>,
}

const OPERATORS: &[Operator] = &[
    Operator { name: "Add", attributes: &[], import: channels::add },
    Operator {
        name: "AveragePool",
        attributes: &["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"],
        import: pool::average_pool,
    },
    Operator {
        name: "BatchNormalization",
        attributes: &["epsilon", "momentum", "spatial", "training_mode"],
        import: channels::batch_normalization,
    },
    Operator { name: "Cast", attributes: &["to", "saturate", "round_mode"], import: shape::cast },
    Operator {
        name: "Constant",
        attributes: &["value", "value_float", "value_floats", "value_int", "value_ints"],
        import: shape::constant,
    },
    Operator {
        name: "Conv",
        attributes: &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
        import: convolution::conv,
    },
    Operator { name: "Div", attributes: &[], import: channels::div },
    Operator { name: "Dropout", attributes: &["ratio", "seed"], import: shape::dropout },
    Operator { name: "Flatten", attributes: &["axis"], import: shape::flatten },
    Operator { name: "Gemm", attributes: &["alpha", "beta", "transA", "transB"], import: convolution::gemm },
    Operator { name: "GlobalAveragePool", attributes: &[], import: pool::global_average_pool },
    Operator { name: "Identity", attributes: &[], import: shape::identity },
    Operator { name: "MatMul", attributes: &[], import: convolution::matmul },
    Operator {
        name: "MaxPool",
        attributes: &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"],
        import: pool::max_pool,
    },
    Operator { name: "Mul", attributes: &[], import: channels::mul },
    Operator { name: "Pad", attributes: &["mode", "pads", "value"], import: pool::pad },
    Operator { name: "ReduceMean", attributes: &["axes", "keepdims", "noop_with_empty_axes"], import: pool::reduce_mean },
    Operator { name: "Relu", attributes: &[], import: channels::relu },
    Operator { name: "Reshape", attributes: &["allowzero"], import: shape::reshape },
    Operator { name: "Squeeze", attributes: &["axes"], import: shape::squeeze },
    Operator { name: "Sub", attributes: &[], import: channels::sub },
    Operator { name: "Sum", attributes: &[], import: channels::sum },
    Operator { name: "Transpose", attributes: &["perm"], import: shape::transpose },
    Operator { name: "Unsqueeze", attributes: &["axes"], import: shape::unsqueeze },
    Operator { name: "Where", attributes: &[], import: shape::select },
];

impl Operator {
    /// The operator of this name, in ONNX's own domain.
    pub(super) fn named(name: &str, domain: &str) -> Option<&'static Operator> {
        if !["", "ai.onnx"].contains(&domain) {
            return None;
        }
        OPERATORS.iter().find(|operator| operator.name == name)
    }

    /// Adds what a node of this operator computes to a draft.
    pub(super) fn import(&self, node: &Node<'_>, draft: &mut Draft) -> Checked<Value> {
        node.check_attributes(self.attributes)?;
        (self.import)(node, draft)
    }
}
