//! Nodes that cannot be imported: why, and one error that lists them all.
#![forbid(unsafe_code)]

use std::fmt::{self, Display, Write};

use crate::error::Error;
use crate::onnx::proto::{AttributeProto, AttributeType, NodeProto};

/// Most nodes that an error spells out; the others are counted.
const MAX_LISTED: usize = 100;
/// Longest text of a name or of an attribute's value in an error, characters.
const MAX_TEXT: usize = 80;
/// Most attributes of a node that an error spells out. No operator has as many.
const MAX_ATTRIBUTES: usize = 16;

/// Why a node cannot be imported.
#[derive(Debug)]
pub(super) struct Refusal(String);

/// What a node gives, or why not.
pub(super) type Checked<T> = Result<T, Refusal>;

/// A refusal in the form that errors have.
pub(super) fn refusal(what: impl Display, expected: impl Display, got: impl Display) -> Refusal {
    Refusal(format!("{what}; expected {expected}, got {got}"))
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal(error.to_string())
    }
}

/// All nodes that were refused.
#[derive(Default)]
pub(super) struct Refusals {
    listed: Vec<String>,
    /// Those beyond the longest list.
    more: usize,
    /// Nodes that read what a refused node should have made: only their operators were looked at.
    unchecked: usize,
}

impl Refusals {
    pub(super) fn add(&mut self, node: &NodeProto, reason: &Refusal) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(format!("{}: {}", Described(node), reason.0));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn add_unchecked(&mut self) {
        self.unchecked += 1;
    }

    /// One error about all of them, if there are any.
    pub(super) fn check(&self, source_name: &str) -> crate::Result<()> {
        if self.listed.is_empty() {
            return Ok(());
        }
        let mut got = "these:".to_owned();
        for node in &self.listed {
            let _ = write!(got, "\n  {node}");
        }
        if self.more > 0 {
            let _ = write!(got, "\n  and {} more", self.more);
        }
        if self.unchecked > 0 {
            let _ = write!(got, "\n  and {} that read their outputs, of which only the operators were checked", self.unchecked);
        }
        let what = match self.listed.len() + self.more {
            1 => "1 node that cannot be imported".to_owned(),
            count => format!("{count} nodes that cannot be imported"),
        };
        Err(Error::model(source_name, what, "operators and attributes that `leanresnet::onnx` lists", got))
    }
}

/// A text of someone else in an error: printable and short.
pub(super) fn shown(text: &str) -> String {
    let escaped: String = text.chars().take(MAX_TEXT).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_TEXT).is_some() { format!("{escaped}...") } else { escaped }
}

/// A node with its name, operator and attributes.
struct Described<'a>(&'a NodeProto);

impl Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeProto { name, output, op_type, domain, attribute, .. } = self.0;
        match (name.as_str(), output.first()) {
            ("", Some(output)) => write!(f, "node of output `{}`, ", shown(output))?,
            (name, _) => write!(f, "node `{}`, ", shown(name))?,
        }
        if !domain.is_empty() {
            write!(f, "{}.", shown(domain))?;
        }
        f.write_str(&shown(op_type))?;
        for (index, attribute) in attribute.iter().take(MAX_ATTRIBUTES).enumerate() {
            let separator = if index == 0 { " with " } else { ", " };
            write!(f, "{separator}{} {}", shown(&attribute.name), shown(&value(attribute)))?;
        }
        if attribute.len() > MAX_ATTRIBUTES { write!(f, " and {} more", attribute.len() - MAX_ATTRIBUTES) } else { Ok(()) }
    }
}

/// The value of an attribute in words.
fn value(attribute: &AttributeProto) -> String {
    // Lists may be long, and only their beginning is shown.
    fn list<T: fmt::Debug>(values: &[T]) -> String {
        format!("{:?}", &values[..values.len().min(MAX_TEXT)])
    }
    match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Float) => attribute.f.to_string(),
        Ok(AttributeType::Int) => attribute.i.to_string(),
        Ok(AttributeType::String) => String::from_utf8_lossy(&attribute.s[..attribute.s.len().min(4 * MAX_TEXT)]).into_owned(),
        Ok(AttributeType::Floats) => list(&attribute.floats),
        Ok(AttributeType::Ints) => list(&attribute.ints),
        Ok(AttributeType::Tensor) => {
            format!("tensor {}", attribute.t.as_ref().map_or_else(String::new, |tensor| list(&tensor.dims)))
        }
        Ok(other) => format!("({other:?})").to_lowercase(),
        Err(_) => "(of an unknown type)".to_owned(),
    }
}
