//! The lean convolution: a depth-wise stencil and a 1x1 convolution of the same input, summed.
#![forbid(unsafe_code)]

use super::{Epilogue, Real, Shape};

/// One point of a stencil: rows down, columns to the right of the output pixel.
pub type Tap = (i8, i8);

/// Weights of one lean convolution over `C` channels, or their gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct LeanWeights<T> {
    /// The stencil's points, in the order of summation.
    pub taps: Vec<Tap>,
    /// Input channels that a tap reads: those of the output channel's group.
    pub group_size: usize,
    /// `[taps][group_size][C]`; 0 is the first channel of the group.
    pub spatial: Vec<T>,
    /// `[C out][C in]`.
    pub pointwise: Vec<T>,
    /// `[C]`; zeros for a layer without bias.
    pub bias: Vec<T>,
}

impl<T: Real> LeanWeights<T> {
    /// Channels of input and output.
    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// The weights of the adjoint: the 1x1 matrix transposed (and those of groups), the stencil turned by 180 degrees, no bias.
    ///
    /// The taps keep their order; each takes the weight of its opposite, so the stencil must contain every tap's opposite.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let c = self.channels();
        let group = self.group_size;
        let mut adjoint = self.map(|_| T::ZERO);
        for (tap, &(dy, dx)) in self.taps.iter().enumerate() {
            let opposite = self.taps.iter().position(|&t| t == (-dy, -dx)).expect("the stencil is point-symmetric");
            for (channel, member) in (0..c).flat_map(|channel| (0..group).map(move |member| (channel, member))) {
                let (input, place) = (channel - channel % group + member, channel % group);
                adjoint.spatial[(tap * group + member) * c + channel] = self.spatial[(opposite * group + place) * c + input];
            }
        }
        for i in 0..c {
            for j in 0..c {
                adjoint.pointwise[i * c + j] = self.pointwise[j * c + i];
            }
        }
        adjoint
    }

    /// The same weights after `f`, for another number type or their absolute values.
    pub fn map<U>(&self, f: impl Fn(T) -> U) -> LeanWeights<U> {
        let all = |values: &[T]| values.iter().map(|&value| f(value)).collect();
        LeanWeights {
            taps: self.taps.clone(),
            group_size: self.group_size,
            spatial: all(&self.spatial),
            pointwise: all(&self.pointwise),
            bias: all(&self.bias),
        }
    }

    fn check(&self, shape: Shape) {
        let c = self.channels();
        assert_eq!(shape.c, c, "channels of the input");
        assert_eq!(self.spatial.len(), self.taps.len() * self.group_size * c, "stencil weights");
        assert_eq!(self.pointwise.len(), c * c, "1x1 weights");
    }
}

/// `y_i(p) = epilogue(b_i + sum_t s_{t,i} x_i(p + t) + sum_k A_{ik} x_k(p))`, summed in that order by fused multiply-adds.
///
/// A tap outside the image runs with `x = +0`. `x` and the result have `shape`.
pub fn lean_forward<T: Real>(x: &[T], shape: Shape, weights: &LeanWeights<T>, epilogue: &Epilogue<T>) -> Vec<T> {
    lean_forward_strided(x, shape, weights, 1, epilogue)
}

/// [`lean_forward`] at every `stride`-th row and column. The taps' channels of a group of up to 8 are summed as `i xor 0, i xor 1, ...`,
/// those of a larger group from its first to its last.
pub fn lean_forward_strided<T: Real>(
    x: &[T],
    shape: Shape,
    weights: &LeanWeights<T>,
    stride: usize,
    epilogue: &Epilogue<T>,
) -> Vec<T> {
    weights.check(shape);
    assert_eq!(x.len(), shape.elements());
    let group = weights.group_size;
    let mut y = Vec::new();
    for (image, row, column) in shape.positions().filter(|(_, row, column)| row % stride == 0 && column % stride == 0) {
        for i in 0..shape.c {
            let mut sum = weights.bias[i];
            for (tap, &(dy, dx)) in weights.taps.iter().enumerate() {
                for turn in 0..group {
                    let member = if group <= 8 { (i % group) ^ turn } else { turn };
                    let channel = i - i % group + member;
                    let neighbour = shape.padded(x, image, row as isize + dy as isize, column as isize + dx as isize, channel);
                    sum = neighbour.mul_add(weights.spatial[(tap * group + member) * shape.c + i], sum);
                }
            }
            for k in 0..shape.c {
                sum = x[shape.index(image, row, column, k)].mul_add(weights.pointwise[i * shape.c + k], sum);
            }
            y.push(epilogue.apply(sum, y.len(), i));
        }
    }
    y
}

/// Gradient at the input, from the gradient `dy` at the output: the lean convolution with [`LeanWeights::transposed`].
pub fn lean_data_gradient<T: Real>(dy: &[T], shape: Shape, weights: &LeanWeights<T>) -> Vec<T> {
    lean_forward(dy, shape, &weights.transposed(), &Epilogue::default())
}

/// Gradients of all weights, each summed over pixels in memory order.
pub fn lean_weight_gradients<T: Real>(x: &[T], dy: &[T], shape: Shape, taps: &[Tap]) -> LeanWeights<T> {
    assert_eq!(x.len(), shape.elements());
    assert_eq!(dy.len(), shape.elements());
    let c = shape.c;
    let mut gradients = LeanWeights {
        taps: taps.to_vec(),
        group_size: 1,
        spatial: vec![T::ZERO; taps.len() * c],
        pointwise: vec![T::ZERO; c * c],
        bias: vec![T::ZERO; c],
    };
    for (image, row, column) in shape.positions() {
        for i in 0..c {
            let gradient = dy[shape.index(image, row, column, i)];
            gradients.bias[i] = gradients.bias[i] + gradient;
            for (tap, &(down, right)) in taps.iter().enumerate() {
                let neighbour = shape.padded(x, image, row as isize + down as isize, column as isize + right as isize, i);
                let weight = &mut gradients.spatial[tap * c + i];
                *weight = gradient.mul_add(neighbour, *weight);
            }
            for k in 0..c {
                let weight = &mut gradients.pointwise[i * c + k];
                *weight = gradient.mul_add(x[shape.index(image, row, column, k)], *weight);
            }
        }
    }
    gradients
}
