//! The `[network]` table inside the text of a configuration file.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::net::network::Network;
use crate::net::table::NetworkTable;

/// The version of configuration files that this crate reads and writes.
const VERSION: u64 = 1;

/// The tables of a configuration file; only `network` is looked into.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default = "version")]
    version: u64,
    network: Option<NetworkTable>,
    #[serde(default, skip_serializing, rename = "data")]
    _data: Option<toml::Table>,
    #[serde(default, skip_serializing, rename = "train")]
    _train: Option<toml::Table>,
}

fn version() -> u64 {
    VERSION
}

pub(crate) fn parse(text: &str) -> Result<Network> {
    let file: ConfigFile = toml::from_str(text).map_err(|error| syntax_error(text, &error))?;
    if file.version != VERSION {
        return Err(Error::invalid("version of the configuration", VERSION, file.version));
    }
    file.network.ok_or_else(|| Error::invalid("configuration", "a table [network]", "none"))?.resolve()
}

pub(crate) fn write(network: &Network) -> String {
    let file = ConfigFile { version: VERSION, network: Some(NetworkTable::from(network.clone())), _data: None, _train: None };
    toml::to_string(&file).expect("a valid network has only finite numbers, strings and tables")
}

/// Line and column of the mistake, and the parser's message in this crate's words.
pub(crate) fn syntax_error(text: &str, error: &toml::de::Error) -> Error {
    let what = match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
            format!("configuration, line {line}, column {column}")
        }
        None => "configuration".to_owned(),
    };
    match error.message().rsplit_once(", expected ") {
        Some((got, expected)) => Error::invalid(what, expected, got),
        None => Error::invalid(what, "TOML with the documented keys", error.message()),
    }
}
