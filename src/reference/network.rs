//! A whole network as a list of layers, with its loss and the gradients of all parameters.
#![forbid(unsafe_code)]

use super::{
    Block, HeadWeights, Loss, Norm, Operator, Real, Shape, average_pool, average_pool_backward, cross_entropy,
    global_average_pool, global_average_pool_backward, head_data_gradient, head_forward, head_weight_gradients, relu,
    relu_backward,
};

/// One layer, or the gradients of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer<T> {
    /// A convolution: stem or connection.
    Convolution(Operator<T>),
    /// Batch normalisation.
    Norm(Norm<T>),
    /// The rectifier.
    Relu,
    /// A residual or symmetric block.
    Block(Box<Block<T>>),
    /// The 2x2 average pool.
    AveragePool,
    /// The mean of each channel; leaves images of one pixel.
    GlobalAveragePool,
    /// The linear head, after the global pool.
    Head(HeadWeights<T>),
}

impl<T: Real> Layer<T> {
    /// The layer's output and its shape.
    pub fn forward(&self, x: &[T], shape: Shape) -> (Vec<T>, Shape) {
        match self {
            Layer::Convolution(operator) => (operator.forward(x, shape), operator.output_shape(shape)),
            Layer::Norm(norm) => (norm.forward(x), shape),
            Layer::Relu => (x.iter().map(|&value| relu(value)).collect(), shape),
            Layer::Block(block) => (block.forward(x, shape), shape),
            Layer::AveragePool => average_pool(x, shape),
            Layer::GlobalAveragePool => (global_average_pool(x, shape), Shape::new(shape.n, 1, 1, shape.c)),
            Layer::Head(weights) => (head_forward(x, weights), Shape::new(shape.n, 1, 1, weights.classes())),
        }
    }

    /// Gradient at the layer's input `x` and gradients of its parameters, from the gradient `dy` at its output.
    pub fn backward(&self, x: &[T], dy: &[T], shape: Shape) -> (Vec<T>, Self) {
        match self {
            Layer::Convolution(operator) => {
                let gradients = operator.weight_gradients(x, dy, shape);
                (operator.data_gradient(dy, shape), Layer::Convolution(gradients))
            }
            Layer::Norm(norm) => {
                let (dx, gradients) = norm.backward(x, dy);
                (dx, Layer::Norm(gradients))
            }
            Layer::Relu => (relu_backward(dy, &self.forward(x, shape).0), Layer::Relu),
            Layer::Block(block) => {
                let (dx, gradients) = block.backward(x, dy, shape);
                (dx, Layer::Block(Box::new(gradients)))
            }
            Layer::AveragePool => (average_pool_backward(dy, shape), Layer::AveragePool),
            Layer::GlobalAveragePool => (global_average_pool_backward(dy, shape), Layer::GlobalAveragePool),
            Layer::Head(weights) => {
                let gradients = head_weight_gradients(x, dy, weights.classes());
                (head_data_gradient(dy, weights), Layer::Head(gradients))
            }
        }
    }

    /// All trainable numbers, tensor by tensor.
    pub fn parameters(&mut self) -> Vec<&mut Vec<T>> {
        match self {
            Layer::Convolution(operator) => operator.parameters(),
            Layer::Norm(norm) => norm.parameters(),
            Layer::Block(block) => block.parameters(),
            Layer::Head(weights) => vec![&mut weights.weight, &mut weights.bias],
            Layer::Relu | Layer::AveragePool | Layer::GlobalAveragePool => Vec::new(),
        }
    }
}

/// Layers, first to last, or the gradients of their parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Network<T> {
    /// The layers.
    pub layers: Vec<Layer<T>>,
}

impl<T: Real> Network<T> {
    /// The last layer's output.
    pub fn forward(&self, x: &[T], shape: Shape) -> Vec<T> {
        let start = (x.to_vec(), shape);
        self.layers.iter().fold(start, |(x, shape), layer| layer.forward(&x, shape)).0
    }

    /// Cross entropy of the output against `labels`, and the gradients of all parameters.
    pub fn backward(&self, x: &[T], shape: Shape, labels: &[usize], smoothing: f64) -> (f64, Self) {
        let mut inputs = vec![(x.to_vec(), shape)];
        for layer in &self.layers {
            let (x, shape) = &inputs[inputs.len() - 1];
            inputs.push(layer.forward(x, *shape));
        }
        let (logits, _) = &inputs[self.layers.len()];
        let Loss { value, mut gradient } = cross_entropy(logits, labels, smoothing);
        let mut layers = Vec::with_capacity(self.layers.len());
        for (layer, (x, shape)) in self.layers.iter().zip(&inputs).rev() {
            let (dx, gradients) = layer.backward(x, &gradient, *shape);
            layers.push(gradients);
            gradient = dx;
        }
        layers.reverse();
        (value, Network { layers })
    }

    /// All trainable numbers, tensor by tensor, first layer first.
    pub fn parameters(&mut self) -> Vec<&mut Vec<T>> {
        self.layers.iter_mut().flat_map(Layer::parameters).collect()
    }
}
