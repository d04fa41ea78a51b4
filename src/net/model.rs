//! A network with its weights.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::net::graph::Graph;
use crate::net::initialise::initial_values;
use crate::net::layers::{LayerSummary, layers};
use crate::net::mismatch::Mismatch;
use crate::net::network::Network;
use crate::net::parameters::{ParameterRole, ParameterSpec, parameters};
use crate::net::preprocess::Preprocess;
use crate::net::taps::check_taps;
use crate::net::validate;

/// Longest provenance in bytes.
const MAX_PROVENANCE: usize = 65_536;

/// A network, its weights, and what is needed to use it: how images become inputs, and what the classes are called.
///
/// Cloning is cheap: clones share the weights. A model never changes once it is made.
///
/// ```
/// use leanresnet::{Model, Network};
///
/// let model = Model::random(&Network::preset("small")?, 1);
/// let (shape, values) = model.tensor("stem.conv.weight").unwrap();
/// assert_eq!(shape, [32, 3, 3, 3]);
/// assert_eq!(values.len(), 32 * 3 * 3 * 3);
/// # Ok::<(), leanresnet::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Clone, PartialEq)]
struct Inner {
    description: Description,
    tensors: BTreeMap<String, Tensor>,
    preprocess: Preprocess,
    class_names: Vec<String>,
    provenance: String,
}

/// What a model computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Description {
    /// A network of this crate's own family.
    Network(Network),
    /// An imported graph.
    Graph(Graph),
}

impl Description {
    /// All tensors of a model's file.
    pub(crate) fn parameters(&self) -> Vec<ParameterSpec> {
        match self {
            Description::Network(network) => parameters(network),
            Description::Graph(graph) => graph.parameters(),
        }
    }

    /// The tensors, without those that only files have.
    fn held_parameters(&self) -> Vec<ParameterSpec> {
        self.parameters().into_iter().filter(is_held).collect()
    }
}

#[derive(Clone, PartialEq)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Model {
    /// A model with seeded initial weights: normal, with variance 2 / fan-in for convolutions and 1 / width for the head; norms
    /// start as the identity, biases at 0. The same seed gives the same bits everywhere.
    pub fn random(network: &Network, seed: u64) -> Self {
        let tensors = parameters(network)
            .into_iter()
            .enumerate()
            .filter(|(_, spec)| is_held(spec))
            .map(|(position, spec)| {
                let values = initial_values(&spec, seed, position);
                (spec.name, Tensor { shape: spec.shape, values })
            })
            .collect();
        Self::assemble(Description::Network(network.clone()), tensors, format!("initialised with seed {seed}"))
    }

    /// A model from tensors of (name, shape, values), in any order. Counters of batches are ignored.
    ///
    /// # Errors
    /// [`Error::Model`] that lists missing, unexpected, repeated and misshaped tensors, or names a value other than 0 outside of a
    /// stencil; [`Error::Shape`] if a shape and its number of values disagree.
    pub fn from_tensors(network: &Network, tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Result<Self> {
        Self::from_named_tensors(Description::Network(network.clone()), tensors, "tensors")
    }

    /// A model that runs a graph, from tensors as [`Graph::parameters`] lists them, in any order.
    ///
    /// # Errors
    /// Those of [`Model::from_tensors`].
    pub fn from_graph(graph: &Graph, tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Result<Self> {
        Self::from_named_tensors(Description::Graph(graph.clone()), tensors, "tensors")
    }

    /// [`Model::from_tensors`] with the source's name for messages.
    pub(crate) fn from_named_tensors(
        description: Description,
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
        source_name: &str,
    ) -> Result<Self> {
        let mut held = BTreeMap::new();
        for (name, shape, values) in tensors {
            if name.ends_with(".num_batches_tracked") {
                continue;
            }
            if shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent)) != Some(values.len()) {
                return Err(Error::shape(name, format!("values of shape {shape:?}"), format!("{} values", values.len())));
            }
            if held.contains_key(&name) {
                return Err(Error::model(source_name, format!("tensor `{name}`"), "one tensor of a name", "two"));
            }
            held.insert(name, Tensor { shape, values });
        }
        let specs = description.held_parameters();
        let found = held.iter().map(|(name, tensor)| (name.as_str(), &tensor.shape[..])).collect();
        Mismatch::between(&specs, &found).check(source_name)?;
        check_taps(source_name, specs.iter().map(|spec| (spec, &held[&spec.name].values[..])))?;
        Ok(Self::assemble(description, held, String::new()))
    }

    fn assemble(description: Description, tensors: BTreeMap<String, Tensor>, provenance: String) -> Self {
        let (channels, class_names) = match &description {
            Description::Network(network) => (network.input()[0], network.class_names().to_vec()),
            Description::Graph(graph) => (graph.input()[0], Vec::new()),
        };
        let preprocess = Preprocess::identity(channels);
        Self { inner: Arc::new(Inner { description, tensors, preprocess, class_names, provenance }) }
    }

    /// The same with another map from bytes to inputs.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it does not fit the network's input.
    pub fn with_preprocess(mut self, preprocess: Preprocess) -> Result<Self> {
        preprocess.validate(self.input())?;
        Arc::make_mut(&mut self.inner).preprocess = preprocess;
        Ok(self)
    }

    /// The same with other names of the classes.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are neither as many names as classes nor none, or a name cannot be printed.
    pub fn with_class_names(mut self, class_names: Vec<String>) -> Result<Self> {
        validate::class_names(&class_names, self.classes())?;
        Arc::make_mut(&mut self.inner).class_names = class_names;
        Ok(self)
    }

    /// The same with another account of where the weights come from.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is longer than 65,536 bytes.
    pub fn with_provenance(mut self, provenance: impl Into<String>) -> Result<Self> {
        let provenance = provenance.into();
        if provenance.len() > MAX_PROVENANCE {
            return Err(Error::invalid("provenance", format!("at most {MAX_PROVENANCE} bytes"), provenance.len()));
        }
        Arc::make_mut(&mut self.inner).provenance = provenance;
        Ok(self)
    }

    /// The description of the network.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an imported graph, which [`Model::graph`] has.
    pub fn network(&self) -> Result<&Network> {
        match &self.inner.description {
            Description::Network(network) => Ok(network),
            Description::Graph(_) => {
                Err(Error::invalid("model", "a network of stem, stages and head", "an imported graph, which can only be run"))
            }
        }
    }

    /// The graph of a model that came from another program; `None` for the networks that this crate describes.
    pub fn graph(&self) -> Option<&Graph> {
        match &self.inner.description {
            Description::Network(_) => None,
            Description::Graph(graph) => Some(graph),
        }
    }

    pub(crate) fn description(&self) -> &Description {
        &self.inner.description
    }

    /// Channels, height, width of the images.
    pub fn input(&self) -> [usize; 3] {
        match &self.inner.description {
            Description::Network(network) => network.input(),
            Description::Graph(graph) => graph.input(),
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        match &self.inner.description {
            Description::Network(network) => network.classes(),
            Description::Graph(graph) => graph.classes(),
        }
    }

    /// Size and cost of every layer, in forward order.
    pub fn layers(&self) -> Vec<LayerSummary> {
        match &self.inner.description {
            Description::Network(network) => layers(network),
            Description::Graph(graph) => graph.layers(),
        }
    }

    /// Whether a stencil reads groups of several channels.
    pub(crate) fn has_groups(&self) -> bool {
        match &self.inner.description {
            Description::Network(network) => network.stages().iter().any(|stage| stage.block.group_size > 1),
            Description::Graph(graph) => graph.has_groups(),
        }
    }

    /// The tensors that files of this model hold, in forward order: those of [`Model::tensor`], and the counters of batch norms.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        self.inner.description.parameters()
    }

    /// How bytes become inputs. A new model has `byte / 255`.
    pub fn preprocess(&self) -> &Preprocess {
        &self.inner.preprocess
    }

    /// Names of the classes: as many as there are classes, or none.
    pub fn class_names(&self) -> &[String] {
        &self.inner.class_names
    }

    /// Where the weights come from, in words.
    pub fn provenance(&self) -> &str {
        &self.inner.provenance
    }

    /// Shape and values of a tensor, the last extent fastest; nothing if the network has none of this name.
    ///
    /// The names are those of [`crate::net::parameters`] but for `num_batches_tracked`.
    pub fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.inner.tensors.get(name).map(|tensor| (&tensor.shape[..], &tensor.values[..]))
    }
}

impl fmt::Debug for Model {
    /// Without the weights, which are too many to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { description, preprocess, provenance, .. } = &*self.inner;
        let mut output = f.debug_struct("Model");
        output
            .field("description", description)
            .field("preprocess", preprocess)
            .field("provenance", provenance)
            .finish_non_exhaustive()
    }
}

/// Whether models hold this tensor: all but the counters, which only files have.
fn is_held(spec: &ParameterSpec) -> bool {
    spec.role != ParameterRole::NumBatchesTracked
}

const _: () = {
    const fn assert_send_and_sync<T: Send + Sync>() {}
    assert_send_and_sync::<Model>();
};
