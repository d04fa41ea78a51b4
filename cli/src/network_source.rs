//! NET on the command line: a preset, a configuration file or a model, with keys changed by `--set`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Args;
use leanresnet::{Model, Network};

use crate::configuration::Configuration;
use crate::failure::Failure;
use crate::model_source;
use crate::shipped::ShippedModel;

/// Which network.
#[derive(Args, Clone, Debug, Default)]
pub struct NetworkSource {
    /// A model file, a checkpoint, a run folder, or cifar10-s, which comes with this tool: its network
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "config"])]
    #[arg(help = format!("A network by name: {} [default: small]", Network::PRESETS.join(", ")))]
    pub preset: Option<String>,
    /// A configuration file (TOML)
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub config: Option<PathBuf>,
    /// Change a key of the configuration, for example network.block.stencil=box9; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl NetworkSource {
    /// The configuration with the network, and with the other tables of a configuration file.
    pub fn configuration(&self) -> Result<Configuration, Failure> {
        let mut configuration = match (&self.model, &self.config) {
            (Some(path), _) => match ShippedModel::named(path) {
                Some(shipped) => Configuration::of_preset(shipped.name),
                None => Configuration::of_network(model_source::load(path)?.model.network()?)?,
            },
            (None, Some(path)) => Configuration::read(path)?,
            (None, None) => Configuration::of_preset(self.preset.as_deref().unwrap_or("small")),
        };
        for argument in &self.set {
            configuration.set_argument(argument)?;
        }
        configuration.default_network();
        Ok(configuration)
    }

    /// The model, if the command line names one that is an imported graph and has no configuration.
    pub fn graph_model(&self) -> Result<Option<Model>, Failure> {
        match &self.model {
            Some(path) if ShippedModel::named(path).is_none() && self.set.is_empty() => {
                Ok(Some(model_source::load(path)?.model).filter(|model| model.graph().is_some()))
            }
            _ => Ok(None),
        }
    }

    /// The network alone.
    pub fn network(&self) -> Result<Network, Failure> {
        self.configuration()?.network()
    }

    /// True if the command line says nothing about the network.
    pub fn is_empty(&self) -> bool {
        self.model.is_none() && self.config.is_none() && self.preset.is_none() && self.set.is_empty()
    }

    /// True if the network is a preset; that of a shipped model is the preset of its name.
    pub fn is_preset(&self) -> bool {
        self.config.is_none() && self.model.as_deref().is_none_or(|path| ShippedModel::named(path).is_some())
    }

    /// A word for the network, for names of folders and tables.
    pub fn label(&self) -> String {
        let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match (&self.model, &self.config, &self.preset) {
            (Some(path), _, _) | (None, Some(path), _) => stem(path),
            (None, None, Some(name)) => name.clone(),
            (None, None, None) => "small".to_owned(),
        }
    }
}
