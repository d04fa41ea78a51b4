//! Residual and symmetric blocks, composed of the operators.
#![forbid(unsafe_code)]

use super::{
    DenseWeights, Epilogue, LeanWeights, Norm, Real, Shape, dense_data_gradient, dense_forward, dense_weight_gradients,
    lean_data_gradient, lean_forward, lean_weight_gradients, relu, relu_backward,
};

/// A convolution of either kind, or the gradients of its weights.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator<T> {
    /// A lean convolution.
    Lean(LeanWeights<T>),
    /// A dense convolution.
    Dense(DenseWeights<T>),
    /// A depth-wise stencil (a lean convolution whose matrix and bias are 0), and then a 1x1 convolution.
    Separable(LeanWeights<T>, DenseWeights<T>),
}

impl<T: Real> Operator<T> {
    /// Shape of the output for inputs of shape `input`.
    pub fn output_shape(&self, input: Shape) -> Shape {
        match self {
            Operator::Lean(_) | Operator::Separable(..) => input,
            Operator::Dense(weights) => weights.output_shape(input),
        }
    }

    /// The convolution without epilogue.
    pub fn forward(&self, x: &[T], input: Shape) -> Vec<T> {
        match self {
            Operator::Lean(weights) => lean_forward(x, input, weights, &Epilogue::default()),
            Operator::Dense(weights) => dense_forward(x, input, weights, &Epilogue::default()),
            Operator::Separable(spatial, pointwise) => {
                let between = lean_forward(x, input, spatial, &Epilogue::default());
                dense_forward(&between, input, pointwise, &Epilogue::default())
            }
        }
    }

    /// Gradient at the input (of shape `input`), which is also the adjoint operator applied to `dy`.
    pub fn data_gradient(&self, dy: &[T], input: Shape) -> Vec<T> {
        match self {
            Operator::Lean(weights) => lean_data_gradient(dy, input, weights),
            Operator::Dense(weights) => dense_data_gradient(dy, input, weights),
            Operator::Separable(spatial, pointwise) => {
                lean_data_gradient(&dense_data_gradient(dy, input, pointwise), input, spatial)
            }
        }
    }

    /// Gradients of the weights.
    #[must_use]
    pub fn weight_gradients(&self, x: &[T], dy: &[T], input: Shape) -> Self {
        match self {
            Operator::Lean(weights) => Operator::Lean(lean_weight_gradients(x, dy, input, &weights.taps)),
            Operator::Dense(weights) => Operator::Dense(dense_weight_gradients(x, dy, input, weights)),
            Operator::Separable(spatial, pointwise) => {
                let between = lean_forward(x, input, spatial, &Epilogue::default());
                let dbetween = dense_data_gradient(dy, input, pointwise);
                let mut stencil = lean_weight_gradients(x, &dbetween, input, &spatial.taps);
                // Its matrix and bias are no parameters.
                stencil.pointwise.fill(T::ZERO);
                stencil.bias.fill(T::ZERO);
                Operator::Separable(stencil, dense_weight_gradients(&between, dy, input, pointwise))
            }
        }
    }

    /// All trainable numbers, tensor by tensor.
    pub fn parameters(&mut self) -> Vec<&mut Vec<T>> {
        match self {
            Operator::Lean(weights) => vec![&mut weights.spatial, &mut weights.pointwise, &mut weights.bias],
            Operator::Dense(weights) => vec![&mut weights.weight, &mut weights.bias],
            Operator::Separable(spatial, pointwise) => {
                vec![&mut spatial.spatial, &mut pointwise.weight, &mut pointwise.bias]
            }
        }
    }

    /// The same operator with a bias of 0: its linear part.
    fn without_bias(&self) -> Self {
        let mut linear = self.clone();
        let bias = match &mut linear {
            Operator::Lean(weights) => &mut weights.bias,
            Operator::Dense(weights) | Operator::Separable(_, weights) => &mut weights.bias,
        };
        bias.fill(T::ZERO);
        linear
    }
}

/// One block, or the gradients of its parameters.
///
/// Residual: `x + scale N2 L2 relu(N1 L1 x)`. Symmetric (no second convolution): `x - scale N2 L1' relu(N1 L1 x)`, where
/// `L1'` is the adjoint of L1 without its bias. Absent norms are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Block<T> {
    /// L1.
    pub conv1: Operator<T>,
    /// N1.
    pub norm1: Option<Norm<T>>,
    /// L2 of a residual block; `None` makes the block symmetric.
    pub conv2: Option<Operator<T>>,
    /// N2.
    pub norm2: Option<Norm<T>>,
    /// Step size h of the branch.
    pub scale: T,
    /// Whether a ReLU follows the sum.
    pub relu_after_sum: bool,
}

/// The tensors inside a block that its backward pass needs.
struct Intermediates<T> {
    /// L1 x.
    first: Vec<T>,
    /// relu(N1 L1 x).
    hidden: Vec<T>,
    /// L2 or L1' of `hidden`.
    second: Vec<T>,
    /// The block's output.
    output: Vec<T>,
}

impl<T: Real> Block<T> {
    /// The block's output, of the input's shape.
    pub fn forward(&self, x: &[T], shape: Shape) -> Vec<T> {
        self.intermediates(x, shape).output
    }

    /// Gradient at the input and gradients of all parameters, from the gradient `dy` at the output.
    pub fn backward(&self, x: &[T], dy: &[T], shape: Shape) -> (Vec<T>, Self) {
        let inside = self.intermediates(x, shape);
        let dsum = if self.relu_after_sum { relu_backward(dy, &inside.output) } else { dy.to_vec() };
        let dbranch: Vec<T> = dsum.iter().map(|&gradient| gradient * self.factor()).collect();
        let (dsecond, norm2) = norm_backward(self.norm2.as_ref(), &inside.second, dbranch);
        let dhidden = match &self.conv2 {
            Some(conv2) => conv2.data_gradient(&dsecond, shape),
            None => self.conv1.without_bias().forward(&dsecond, shape),
        };
        let dnormalised = relu_backward(&dhidden, &inside.hidden);
        let (dfirst, norm1) = norm_backward(self.norm1.as_ref(), &inside.first, dnormalised);
        let dx = self.conv1.data_gradient(&dfirst, shape);

        let mut conv1 = self.conv1.weight_gradients(x, &dfirst, shape);
        if self.conv2.is_none() {
            // <dsecond, L1' hidden> = <L1 dsecond, hidden>: L1 seen once more, with input `dsecond` and gradient `hidden`.
            let mut adjoint_use = self.conv1.weight_gradients(&dsecond, &inside.hidden, shape).without_bias();
            for (total, more) in conv1.parameters().into_iter().zip(adjoint_use.parameters()) {
                *total = sum(total, more);
            }
        }
        let conv2 = self.conv2.as_ref().map(|conv2| conv2.weight_gradients(&inside.hidden, &dsecond, shape));
        (sum(&dsum, &dx), Block { conv1, norm1, conv2, norm2, ..*self })
    }

    /// All trainable numbers, tensor by tensor.
    pub fn parameters(&mut self) -> Vec<&mut Vec<T>> {
        let mut all = self.conv1.parameters();
        all.extend(self.norm1.iter_mut().flat_map(Norm::parameters));
        all.extend(self.conv2.iter_mut().flat_map(Operator::parameters));
        all.extend(self.norm2.iter_mut().flat_map(Norm::parameters));
        all
    }

    fn intermediates(&self, x: &[T], shape: Shape) -> Intermediates<T> {
        let first = self.conv1.forward(x, shape);
        let hidden: Vec<T> = norm_forward(self.norm1.as_ref(), &first).into_iter().map(relu).collect();
        let second = match &self.conv2 {
            Some(conv2) => conv2.forward(&hidden, shape),
            None => self.conv1.data_gradient(&hidden, shape),
        };
        let branch = norm_forward(self.norm2.as_ref(), &second);
        let mut output: Vec<T> = branch.iter().zip(x).map(|(&value, &input)| value * self.factor() + input).collect();
        if self.relu_after_sum {
            output = output.into_iter().map(relu).collect();
        }
        Intermediates { first, hidden, second, output }
    }

    /// What the branch is multiplied by before the sum.
    fn factor(&self) -> T {
        if self.conv2.is_some() { self.scale } else { -self.scale }
    }
}

fn norm_forward<T: Real>(norm: Option<&Norm<T>>, x: &[T]) -> Vec<T> {
    norm.map_or_else(|| x.to_vec(), |norm| norm.forward(x))
}

fn norm_backward<T: Real>(norm: Option<&Norm<T>>, x: &[T], dy: Vec<T>) -> (Vec<T>, Option<Norm<T>>) {
    match norm {
        Some(norm) => {
            let (dx, gradients) = norm.backward(x, &dy);
            (dx, Some(gradients))
        }
        None => (dy, None),
    }
}

fn sum<T: Real>(a: &[T], b: &[T]) -> Vec<T> {
    a.iter().zip(b).map(|(&a, &b)| a + b).collect()
}
