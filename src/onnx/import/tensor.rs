//! Tensors that a file holds: weights, biases, shapes.
#![forbid(unsafe_code)]

use std::rc::Rc;

use crate::onnx::import::refusal::{Checked, refusal, shown};
use crate::onnx::proto::{DataType, TensorProto};

/// Most axes of a tensor.
pub(super) const MAX_AXES: usize = 16;

/// A tensor whose values are known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) dims: Vec<usize>,
    values: Values,
}

/// Shared: folding a shape away copies nothing.
#[derive(Clone, Debug, PartialEq)]
enum Values {
    Floats(Rc<Vec<f32>>),
    Integers(Rc<Vec<i64>>),
}

impl Tensor {
    /// A tensor of floats; `dims` is as large as `values` is long.
    pub(super) fn floats(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Tensor { dims, values: Values::Floats(Rc::new(values)) }
    }

    /// A tensor of integers; `dims` is as large as `values` is long.
    pub(super) fn integers(dims: Vec<usize>, values: Vec<i64>) -> Self {
        Tensor { dims, values: Values::Integers(Rc::new(values)) }
    }

    /// The values of a message, numbers of all formats of floating point as f32.
    pub(super) fn decode(tensor: TensorProto) -> Checked<Self> {
        let what = |part: &str| format!("{part} of tensor `{}`", shown(&tensor.name));
        if tensor.data_location != 0 || !tensor.external_data.is_empty() {
            return Err(refusal(what("values"), "values inside of the model file", "values in another file"));
        }
        if tensor.dims.len() > MAX_AXES {
            return Err(refusal(what("axes"), format!("at most {MAX_AXES}"), tensor.dims.len()));
        }
        let mut count = 1_usize;
        let mut dims = Vec::with_capacity(tensor.dims.len());
        for &extent in &tensor.dims {
            let product = usize::try_from(extent).ok().and_then(|extent| Some((extent, count.checked_mul(extent)?)));
            let Some((extent, product)) = product else {
                return Err(refusal(what("shape"), "extents that fit into memory", format!("{:?}", tensor.dims)));
            };
            dims.push(extent);
            count = product;
        }
        let kind = DataType::try_from(tensor.data_type).ok();
        let TensorProto { raw_data, float_data, double_data, int32_data, int64_data, .. } = &tensor;
        let typed_length = match kind {
            Some(DataType::Float) => float_data.len(),
            Some(DataType::Double) => double_data.len(),
            Some(DataType::Int64) => int64_data.len(),
            _ => int32_data.len(),
        };
        let Some((kind, bytes)) = kind.and_then(|kind| Some((kind, bytes_of(kind)?))) else {
            let expected = "FLOAT, FLOAT16, BFLOAT16, DOUBLE, INT32, INT64 or BOOL";
            return Err(refusal(what("type"), expected, format!("type {}", tensor.data_type)));
        };
        // Raw bytes are there, or the field of the type; the other one is empty. Nothing is allocated before the sizes agree.
        let is_raw = !raw_data.is_empty() || typed_length == 0;
        let fits = if is_raw { count.checked_mul(bytes) == Some(raw_data.len()) } else { typed_length == count };
        if !fits {
            let got = if is_raw { format!("{} bytes", raw_data.len()) } else { format!("{typed_length} values") };
            return Err(refusal(what("values"), format!("{count} values of {bytes} bytes"), got));
        }
        let floats = |values: Vec<f32>| Values::Floats(Rc::new(values));
        let integers = |values: Vec<i64>| Values::Integers(Rc::new(values));
        let values = match kind {
            DataType::Float if is_raw => floats(raw(raw_data, f32::from_le_bytes)),
            DataType::Float => floats(tensor.float_data),
            DataType::Double if is_raw => floats(raw(raw_data, |bytes| f64::from_le_bytes(bytes) as f32)),
            DataType::Double => floats(double_data.iter().map(|value| *value as f32).collect()),
            DataType::Float16 if is_raw => floats(raw(raw_data, |bytes| half::f16::from_le_bytes(bytes).to_f32())),
            DataType::Float16 => floats(int32_data.iter().map(|bits| half::f16::from_bits(*bits as u16).to_f32()).collect()),
            DataType::Bfloat16 if is_raw => floats(raw(raw_data, |bytes| half::bf16::from_le_bytes(bytes).to_f32())),
            DataType::Bfloat16 => floats(int32_data.iter().map(|bits| half::bf16::from_bits(*bits as u16).to_f32()).collect()),
            DataType::Int32 if is_raw => integers(raw(raw_data, |bytes| i64::from(i32::from_le_bytes(bytes)))),
            DataType::Bool if is_raw => integers(raw(raw_data, |[byte]| i64::from(byte))),
            DataType::Int32 | DataType::Bool => integers(int32_data.iter().map(|value| i64::from(*value)).collect()),
            DataType::Int64 if is_raw => integers(raw(raw_data, i64::from_le_bytes)),
            DataType::Int64 => integers(tensor.int64_data),
            DataType::Undefined => unreachable!("a value of it has no size"),
        };
        Ok(Tensor { dims, values })
    }

    /// The values of a tensor of floats.
    pub(super) fn as_floats(&self) -> Checked<&Rc<Vec<f32>>> {
        match &self.values {
            Values::Floats(values) => Ok(values),
            Values::Integers(_) => Err(refusal("constant", "floats", "integers")),
        }
    }

    /// The values of a tensor of integers.
    pub(super) fn as_integers(&self) -> Checked<&[i64]> {
        match &self.values {
            Values::Integers(values) => Ok(values),
            Values::Floats(_) => Err(refusal("constant", "integers", "floats")),
        }
    }

    /// The only value of a tensor of floats.
    pub(super) fn as_float(&self) -> Checked<f32> {
        match self.as_floats()?[..] {
            [value] => Ok(value),
            ref values => Err(refusal("constant", "a single value", format!("{} values", values.len()))),
        }
    }

    /// Number of values.
    pub(super) fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// The same values in another shape; `None` if there are more or fewer, or too many axes.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Option<Self> {
        let product = dims.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
        (product == self.count() && dims.len() <= MAX_AXES).then(|| Tensor { dims, values: self.values.clone() })
    }

    /// The value of `operation` for every pair of values of two tensors of floats that are broadcast to `dims`.
    pub(super) fn combined(&self, other: &Tensor, dims: Vec<usize>, operation: fn(f32, f32) -> f32) -> Checked<Self> {
        let (ours, theirs) = (self.as_floats()?, other.as_floats()?);
        let value = |index| operation(ours[self.position(&dims, index)], theirs[other.position(&dims, index)]);
        let values = (0..dims.iter().product()).map(value).collect();
        Ok(Tensor::floats(dims, values))
    }

    /// The values of `first` where those of this tensor are not 0, elsewhere those of `second`; all three are broadcast to `dims`.
    pub(super) fn selected(&self, first: &Tensor, second: &Tensor, dims: Vec<usize>) -> Checked<Self> {
        let (conditions, ours, theirs) = (self.as_integers()?, first.as_floats()?, second.as_floats()?);
        let value = |index| match conditions[self.position(&dims, index)] {
            0 => theirs[second.position(&dims, index)],
            _ => ours[first.position(&dims, index)],
        };
        let values = (0..dims.iter().product()).map(value).collect();
        Ok(Tensor::floats(dims, values))
    }

    /// Where the value lies that stands at `index` when the tensor is broadcast to `dims`.
    fn position(&self, dims: &[usize], mut index: usize) -> usize {
        let (mut position, mut step) = (0, 1);
        let missing = dims.len() - self.dims.len();
        for axis in (0..dims.len()).rev() {
            let at = index % dims[axis];
            index /= dims[axis];
            if axis >= missing && self.dims[axis - missing] > 1 {
                position += at * step;
                step *= self.dims[axis - missing];
            }
        }
        position
    }

    /// The truth of every value: 1 for what is not 0.
    pub(super) fn truths(&self) -> Self {
        let truths = match &self.values {
            Values::Floats(values) => values.iter().map(|value| i64::from(*value != 0.0)).collect(),
            Values::Integers(values) => values.iter().map(|value| i64::from(*value != 0)).collect(),
        };
        Tensor::integers(self.dims.clone(), truths)
    }

    /// The tensor with its axes in another order: axis i of the result is axis `order[i]`, each of which stands there once.
    pub(super) fn transposed(&self, order: &[usize]) -> Checked<Self> {
        let values = self.as_floats()?;
        let dims: Vec<usize> = order.iter().map(|&axis| self.dims[axis]).collect();
        let step_of = |axis: usize| self.dims[axis + 1..].iter().product::<usize>();
        let steps: Vec<usize> = order.iter().map(|&axis| step_of(axis)).collect();
        let from = |mut index: usize| {
            let mut position = 0;
            for (extent, step) in dims.iter().zip(&steps).rev() {
                position += index % extent * step;
                index /= extent;
            }
            position
        };
        let values = (0..self.count()).map(|index| values[from(index)]).collect();
        Ok(Tensor::floats(dims, values))
    }
}

/// The shape of tensors of two shapes that are broadcast to each other; `None` if they do not fit.
pub(super) fn broadcast_dims(first: &[usize], second: &[usize]) -> Option<Vec<usize>> {
    let rank = first.len().max(second.len());
    let extent = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis]);
    let pairs = (0..rank).map(|axis| (extent(first, axis), extent(second, axis)));
    pairs
        .map(|pair| match pair {
            (a, b) if a == b => Some(a),
            (1, extent) | (extent, 1) => Some(extent),
            _ => None,
        })
        .collect()
}

/// Bytes of a raw value.
fn bytes_of(kind: DataType) -> Option<usize> {
    match kind {
        DataType::Undefined => None,
        DataType::Bool => Some(1),
        DataType::Float16 | DataType::Bfloat16 => Some(2),
        DataType::Float | DataType::Int32 => Some(4),
        DataType::Double | DataType::Int64 => Some(8),
    }
}

fn raw<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|chunk| value(chunk.try_into().expect("chunks of this size"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(dims: &[i64], data_type: i32) -> TensorProto {
        TensorProto { dims: dims.to_vec(), data_type, name: "t".to_owned(), ..Default::default() }
    }

    #[test]
    fn every_format_is_read_raw_and_typed() {
        let values = [1.5_f32, -0.25, 0.0, 3.0];
        let raw = |bytes: Vec<Vec<u8>>| bytes.concat();
        let half_bits: Vec<i32> = values.iter().map(|value| i32::from(half::f16::from_f32(*value).to_bits())).collect();
        let bfloat_bits: Vec<i32> = values.iter().map(|value| i32::from(half::bf16::from_f32(*value).to_bits())).collect();
        let cases = [
            TensorProto { float_data: values.to_vec(), ..proto(&[2, 2], 1) },
            TensorProto { raw_data: raw(values.iter().map(|v| v.to_le_bytes().to_vec()).collect()), ..proto(&[2, 2], 1) },
            TensorProto { double_data: values.iter().map(|v| f64::from(*v)).collect(), ..proto(&[2, 2], 11) },
            TensorProto {
                raw_data: raw(values.iter().map(|v| f64::from(*v).to_le_bytes().to_vec()).collect()),
                ..proto(&[2, 2], 11)
            },
            TensorProto { int32_data: half_bits.clone(), ..proto(&[2, 2], 10) },
            TensorProto {
                raw_data: raw(half_bits.iter().map(|v| (*v as u16).to_le_bytes().to_vec()).collect()),
                ..proto(&[2, 2], 10)
            },
            TensorProto { int32_data: bfloat_bits.clone(), ..proto(&[2, 2], 16) },
            TensorProto {
                raw_data: raw(bfloat_bits.iter().map(|v| (*v as u16).to_le_bytes().to_vec()).collect()),
                ..proto(&[2, 2], 16)
            },
        ];
        for case in cases {
            assert_eq!(Tensor::decode(case).unwrap(), Tensor::floats(vec![2, 2], values.to_vec()));
        }
        for case in [
            TensorProto { int64_data: vec![3, -1], ..proto(&[2], 7) },
            TensorProto { raw_data: [3_i64.to_le_bytes(), (-1_i64).to_le_bytes()].concat(), ..proto(&[2], 7) },
            TensorProto { int32_data: vec![3, -1], ..proto(&[2], 6) },
            TensorProto { raw_data: [3_i32.to_le_bytes(), (-1_i32).to_le_bytes()].concat(), ..proto(&[2], 6) },
        ] {
            assert_eq!(Tensor::decode(case).unwrap(), Tensor::integers(vec![2], vec![3, -1]));
        }
        assert_eq!(Tensor::decode(TensorProto { raw_data: vec![1], ..proto(&[], 9) }).unwrap().as_integers().unwrap(), [1]);
    }

    #[test]
    fn sizes_and_types_that_do_not_fit_are_refused() {
        let refused = |tensor: TensorProto, part: &str| {
            let message = format!("{:?}", Tensor::decode(tensor).unwrap_err());
            assert!(message.contains(part), "{message}");
        };
        refused(proto(&[1 << 40, 1 << 40], 1), "extents that fit into memory");
        refused(proto(&[-1], 1), "extents that fit into memory");
        refused(proto(&[1 << 40], 1), "1099511627776 values of 4 bytes, got 0 bytes");
        refused(TensorProto { raw_data: vec![0; 7], ..proto(&[2], 1) }, "got 7 bytes");
        refused(TensorProto { float_data: vec![0.0; 3], ..proto(&[2], 1) }, "got 3 values");
        refused(proto(&[2], 8), "type 8");
        refused(proto(&[2], 0), "type 0");
        refused(TensorProto { data_location: 1, ..proto(&[2], 1) }, "values in another file");
    }

    #[test]
    fn pairs_are_broadcast() {
        let matrix = Tensor::floats(vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let column = Tensor::floats(vec![2, 1], vec![10.0, 20.0]);
        let dims = broadcast_dims(&matrix.dims, &column.dims).unwrap();
        let product = matrix.combined(&column, dims, |a, b| a - b).unwrap();
        assert_eq!(product, Tensor::floats(vec![2, 3], vec![-10.0, -9.0, -8.0, -17.0, -16.0, -15.0]));
        let row = Tensor::floats(vec![3], vec![1.0, 2.0, 3.0]);
        let dims = broadcast_dims(&column.dims, &row.dims).unwrap();
        assert_eq!(dims, [2, 3]);
        let sum = column.combined(&row, dims, |a, b| a + b).unwrap();
        assert_eq!(sum, Tensor::floats(vec![2, 3], vec![11.0, 12.0, 13.0, 21.0, 22.0, 23.0]));
        assert!(broadcast_dims(&matrix.dims, &[2]).is_none());
        let chosen = Tensor::integers(vec![3], vec![0, 1, 0]).selected(&column, &matrix, vec![2, 3]).unwrap();
        assert_eq!(chosen, Tensor::floats(vec![2, 3], vec![0.0, 10.0, 2.0, 3.0, 20.0, 5.0]));
        assert_eq!(row.truths(), Tensor::integers(vec![3], vec![1; 3]));
    }

    #[test]
    fn axes_change_places() {
        let tensor = Tensor::floats(vec![2, 3, 1], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let expected = Tensor::floats(vec![1, 3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(tensor.transposed(&[2, 1, 0]).unwrap(), expected);
        assert_eq!(tensor.reshaped(vec![6]).unwrap().transposed(&[0]).unwrap().dims, [6]);
        assert!(tensor.reshaped(vec![5]).is_none());
    }
}
