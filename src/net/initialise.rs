//! Seeded initial values of a network's tensors.
#![forbid(unsafe_code)]

use crate::net::parameters::{ParameterRole, ParameterSpec};
use crate::random::{Purpose, Random};
use crate::stencil::Stencil;

/// The initial values of tensor number `position` of a network.
///
/// Weights of convolutions are normal with variance 2 / fan-in (He, Zhang, Ren and Sun 2015). The two parts of a lean convolution bring half of
/// the output's variance each: with one fan-in for all products of the sum, a stencil's few would hardly count, and training takes longer to
/// find out what neighbours are good for. The depth-wise part of a separable one, which no `ReLU` follows, has variance 1 / fan-in, as the head's
/// weight has. Channel c of a shift comes from tap c mod 9. Norms start as the identity.
pub(crate) fn initial_values(spec: &ParameterSpec, seed: u64, position: usize) -> Vec<f32> {
    let mut random = Random::keyed(seed, Purpose::Weights, position as u64, 0);
    let count = spec.values();
    let normal = |gain: f64| {
        let deviation = (gain / spec.fan_in as f64).sqrt() as f32;
        move || random.normal() * deviation
    };
    match spec.role {
        ParameterRole::ConvWeight => std::iter::repeat_with(normal(2.0)).take(count).collect(),
        ParameterRole::HeadWeight => std::iter::repeat_with(normal(1.0)).take(count).collect(),
        ParameterRole::SpatialWeight { stencil } => taps(stencil, count, normal(2.0)),
        ParameterRole::DepthwiseWeight { stencil } => taps(stencil, count, normal(1.0)),
        ParameterRole::ShiftWeight => (0..count).map(|at| if at / 9 % 9 == at % 9 { 1.0 } else { 0.0 }).collect(),
        ParameterRole::NormWeight | ParameterRole::RunningVar => vec![1.0; count],
        ParameterRole::Bias
        | ParameterRole::NormBias
        | ParameterRole::RunningMean
        | ParameterRole::NumBatchesTracked
        | ParameterRole::HeadBias => vec![0.0; count],
    }
}

/// Squares with a drawn value for every tap of the stencil, and 0 elsewhere.
fn taps(stencil: Stencil, count: usize, mut draw: impl FnMut() -> f32) -> Vec<f32> {
    stencil.mask().iter().cycle().take(count).map(|&tap| if tap { draw() } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Network;
    use crate::net::parameters::parameters;

    #[test]
    fn weights_have_their_deviation_and_the_rest_its_constant() {
        for (position, spec) in parameters(&Network::preset("small").unwrap()).iter().enumerate() {
            let values = initial_values(spec, 1, position);
            assert_eq!(values.len(), spec.values());
            let expected = match spec.role {
                ParameterRole::NormWeight | ParameterRole::RunningVar => {
                    assert!(values.iter().all(|value| *value == 1.0), "{}", spec.name);
                    continue;
                }
                ParameterRole::HeadWeight => 1.0 / 128.0,
                role if role.decays() => 2.0 / spec.fan_in as f64,
                _ => {
                    assert!(values.iter().all(|value| *value == 0.0), "{}", spec.name);
                    continue;
                }
            };
            let count = spec.trainable_values() as f64;
            let variance = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / count;
            // Five standard deviations of the sample variance.
            assert!((variance / expected - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "{}: {variance} {expected}", spec.name);
        }
    }

    #[test]
    fn values_outside_the_stencil_are_zero() {
        let specs = parameters(&Network::preset("small").unwrap());
        let (position, spec) = specs.iter().enumerate().find(|(_, spec)| spec.name.ends_with("spatial.weight")).unwrap();
        let values = initial_values(spec, 3, position);
        for (index, value) in values.iter().enumerate() {
            assert_eq!(*value != 0.0, [1, 3, 4, 5, 7].contains(&(index % 9)), "{index}");
        }
    }

    /// Trained models depend on these numbers: a change here is a change of behaviour.
    #[test]
    fn values_do_not_change() {
        let specs = parameters(&Network::preset("small").unwrap());
        let first = |name: &str| {
            let position = specs.iter().position(|spec| spec.name == name).unwrap();
            let values = initial_values(&specs[position], 1, position);
            [values[1].to_bits(), values[values.len() - 2].to_bits()]
        };
        let values = ["stem.conv.weight", "stages.1.0.conv1.spatial.weight", "head.weight"].map(first);
        assert_eq!(values, [[0x3E3C_9A84, 0xBE16_2B2C], [0xBCDE_3FBC, 0x3DED_492D], [0x3E05_BF6D, 0x3D24_032D]]);
    }

    #[test]
    fn seeds_and_positions_give_other_values() {
        let specs = parameters(&Network::preset("small").unwrap());
        let values = |seed, position| initial_values(&specs[0], seed, position);
        assert_eq!(values(1, 0), values(1, 0));
        assert_ne!(values(1, 0), values(2, 0));
        assert_ne!(values(1, 0), values(1, 1));
    }
}
