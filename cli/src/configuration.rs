//! A configuration under construction: the tables of a file, changed by flags, before the library reads them.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::{Error, Network, RunConfig};
use toml::{Table, Value};

use crate::failure::{Failure, expected};

/// The largest configuration file that is read, bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// The tables of a configuration file.
#[derive(Clone, Debug)]
pub struct Configuration {
    tables: Table,
}

impl Configuration {
    /// Only a preset.
    pub fn of_preset(name: &str) -> Self {
        let network = Table::from_iter([("preset".to_owned(), Value::from(name))]);
        Self { tables: Table::from_iter([("network".to_owned(), Value::Table(network))]) }
    }

    /// The network of a model.
    pub fn of_network(network: &Network) -> Result<Self, Failure> {
        Self::parse(&network.to_toml())
    }

    /// Every table of a file. Tables that are there must be right; the table of the network may be missing.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let io = |error| Failure::io("read", path, &error);
        let length = std::fs::metadata(path).map_err(io)?.len();
        let hint = "leanresnet summary --config FILE takes a file such as the config.toml of a run folder";
        if length > LARGEST_FILE {
            let message = expected(path.display(), format!("a configuration of at most {LARGEST_FILE} bytes"), length);
            return Err(Failure::usage(message, hint));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let configuration = Self::parse(&text).map_err(|failure| failure.about(path).with_hint(hint))?;
        if configuration.tables.contains_key("network") {
            // The library gives line and column in the file itself, which the changed tables no longer know.
            RunConfig::from_toml(&text).map_err(|error| Failure::from(error).about(path).with_hint(hint))?;
        }
        Ok(configuration)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        match text.parse::<Table>() {
            Ok(tables) => Ok(Self { tables }),
            // The library words this error, with its place.
            Err(_) => {
                Err(Network::from_toml(text).err().map_or_else(|| Failure::bug("TOML that only one parser reads"), Failure::from))
            }
        }
    }

    /// Takes the preset `small` if nothing describes a network.
    pub fn default_network(&mut self) {
        if !self.tables.contains_key("network") {
            self.tables.insert("network".into(), Value::Table(Table::from_iter([("preset".to_owned(), Value::from("small"))])));
        }
    }

    /// The value at a dotted path such as `train.schedule.lr`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.tables.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.as_table()?.get(key))
    }

    /// Sets the value at a dotted path; tables on the way are made.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<(), Failure> {
        let wrong = |wanted: &str| {
            let message = expected(format!("key `{path}`"), wanted, "one that is not");
            Failure::usage(message, "for example: leanresnet summary --preset small --set network.block.stencil=box9")
        };
        let (tables, last) = path.rsplit_once('.').ok_or_else(|| wrong("a path with a table, such as network.classes"))?;
        if path.split('.').any(str::is_empty) {
            return Err(wrong("names separated by single dots"));
        }
        let mut table = &mut self.tables;
        for key in tables.split('.') {
            let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().ok_or_else(|| wrong("a path of tables"))?;
        }
        table.insert(last.to_owned(), value.into());
        Ok(())
    }

    /// Removes the value at a dotted path, if there is one.
    pub fn remove(&mut self, path: &str) {
        let mut keys: Vec<&str> = path.split('.').collect();
        let Some(last) = keys.pop() else { return };
        let table = keys.into_iter().try_fold(&mut self.tables, |table, key| table.get_mut(key)?.as_table_mut());
        if let Some(table) = table {
            table.remove(last);
        }
    }

    /// Applies `KEY=VALUE` of the command line. The value is TOML, or else a word.
    pub fn set_argument(&mut self, argument: &str) -> Result<(), Failure> {
        let hint = "for example: leanresnet summary --preset small --set network.block.stencil=box9";
        let Some((path, text)) = argument.split_once('=') else {
            return Err(Failure::usage(expected("--set", "KEY=VALUE", format!("`{argument}`")), hint));
        };
        let parsed = format!("value = {text}").parse::<Table>().ok().filter(|table| table.len() == 1);
        let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::from(text));
        self.set(path.trim(), value)
    }

    /// The network alone.
    pub fn network(&self) -> Result<Network, Failure> {
        Network::from_toml(&self.text()).map_err(without_place)
    }

    /// Everything.
    pub fn run_config(&self) -> Result<RunConfig, Failure> {
        RunConfig::from_toml(&self.text()).map_err(without_place)
    }

    fn text(&self) -> String {
        self.tables.to_string()
    }
}

/// Lines and columns in the text that was put together here mean nothing to the user.
fn without_place(error: Error) -> Failure {
    match error {
        Error::Invalid { what, expected, got } if what.starts_with("configuration, line ") => {
            Error::Invalid { what: "configuration with its flags".into(), expected, got }.into()
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_by_path() {
        let mut configuration = Configuration::of_preset("small");
        configuration.set_argument("network.block.stencil=box9").unwrap();
        configuration.set_argument("network.classes = 7").unwrap();
        configuration.set_argument("train.schedule={ name = \"constant\", lr = 0.5 }").unwrap();
        let config = configuration.run_config().unwrap();
        assert_eq!((config.network.classes(), config.train.schedule.lr()), (7, 0.5));
        assert_eq!(config.network.stages()[0].block.stencils[0], leanresnet::Stencil::Box9);
        configuration.remove("train.schedule");
        assert_eq!(configuration.run_config().unwrap().train.schedule.lr(), 0.1);
        assert_eq!(configuration.get("network.classes").and_then(Value::as_integer), Some(7));
    }

    #[test]
    fn wrong_arguments_are_explained() {
        let mut configuration = Configuration::of_preset("small");
        for (argument, word) in [("classes", "KEY=VALUE"), ("classes=3", "a path with a table"), ("network..x=3", "single dots")]
        {
            let failure = configuration.set_argument(argument).unwrap_err();
            assert!(failure.message().contains(word) && failure.exit_code() == 2, "{}", failure.message());
        }
        configuration.set_argument("network.clases=3").unwrap();
        let failure = configuration.network().unwrap_err();
        assert!(failure.message().contains("clases") && !failure.message().contains("line"), "{}", failure.message());
    }

    #[test]
    fn a_value_cannot_bring_other_keys() {
        let mut configuration = Configuration::of_preset("small");
        configuration.set_argument("network.preset=3\nvalue2 = 4").unwrap();
        assert!(configuration.network().is_err());
    }
}
