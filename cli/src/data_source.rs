//! DATA on the command line: which data set, and where its files are.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Args;

use crate::configuration::Configuration;
use crate::failure::{Failure, expected};

/// Which data.
#[derive(Args, Clone, Debug, Default)]
pub struct DataSource {
    /// The data set: synthetic, cifar10, cifar100, mnist, fashion-mnist, stl10, folder, npz [default: synthetic]
    ///
    /// folder: pictures (PNG, JPEG, PPM) DIR/train/CLASS/PICTURE and DIR/test/CLASS/PICTURE (or val, or valid), scaled to the
    /// network's input. npz: DIR/train.npz and DIR/test.npz with the arrays x [n, channels, height, width] (uint8, which is
    /// normalised, or float32, which is taken as it is), y [n] and, if there are any, class_names; or one file in place of DIR
    /// with x_train, y_train, x_test and y_test.
    #[arg(long, value_name = "NAME")]
    pub data: Option<String>,
    /// The folder with the files of the data set (for npz also a file)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataSource {
    /// Sets the keys of the flags.
    pub fn apply(&self, configuration: &mut Configuration) -> Result<(), Failure> {
        if let Some(name) = &self.data {
            configuration.set("data.name", name.as_str())?;
            // The folder of another data set would be a wrong one.
            configuration.remove("data.dir");
        }
        if let Some(folder) = &self.data_dir {
            let text = folder.to_str().ok_or_else(|| {
                let message = expected("--data-dir", "a path in UTF-8", format!("`{}`", folder.display()));
                Failure::usage(message, "rename the folder, or make a symbolic link to it: ln -s FOLDER data")
            })?;
            configuration.set("data.dir", text)?;
        }
        Ok(())
    }
}
