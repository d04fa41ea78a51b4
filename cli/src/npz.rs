//! NumPy's archives of arrays: a zip with a `.npy` file for every array, stored, as `numpy.savez` writes them.
#![forbid(unsafe_code)]

use std::io::{Cursor, Write};

use leanresnet::Model;
use zip::result::ZipResult;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::failure::Failure;
use crate::npy;

/// The archive of a model's tensors under their names. The counters of batch norms, which models do not hold, are 0.
pub fn archive(model: &Model) -> Result<Vec<u8>, Failure> {
    write(model).map_err(|error| Failure::bug(format!("cannot make an archive: {error}")))
}

fn write(model: &Model) -> ZipResult<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for spec in model.parameters() {
        let array = match model.tensor(&spec.name) {
            Some((shape, values)) => {
                let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                [npy::header("<f4", shape), values].concat()
            }
            None => [npy::header("<i8", &[]), 0_i64.to_le_bytes().to_vec()].concat(),
        };
        let is_large = array.len() > u32::MAX as usize;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(is_large);
        archive.start_file(format!("{}.npy", spec.name), options)?;
        archive.write_all(&array)?;
    }
    Ok(archive.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use leanresnet::Network;
    use std::io::Read;

    #[test]
    fn every_tensor_is_an_array() {
        let network = Network::builder().with_input([3, 4, 4]).with_stage(4, 1).build().unwrap();
        let model = Model::random(&network, 1);
        let bytes = archive(&model).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        assert_eq!(archive.len(), model.parameters().len());
        for spec in model.parameters() {
            let mut array = Vec::new();
            let mut file = archive.by_name(&format!("{}.npy", spec.name)).unwrap();
            assert_eq!(file.compression(), CompressionMethod::Stored);
            file.read_to_end(&mut array).unwrap();
            let expected = match model.tensor(&spec.name) {
                Some((shape, values)) => {
                    [npy::header("<f4", shape), values.iter().flat_map(|value| value.to_le_bytes()).collect()].concat()
                }
                None => [npy::header("<i8", &[]), vec![0; 8]].concat(),
            };
            assert!(array == expected, "{}", spec.name);
        }
    }
}
