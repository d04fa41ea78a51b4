//! Single convolutions: describe one, plan it, run it on packed weights.
//!
//! A lean convolution (Ephrath, Ruthotto, Haber, Treister 2019, [arXiv 1904.06952](https://arxiv.org/abs/1904.06952)) adds a depth-wise
//! stencil and a 1x1 convolution of the same input. With C channels, output channel i and pixel p:
//!
//! ```text
//! y_i(p) = b_i + sum over taps t of s_ti x_i(p + t) + sum over channels j of A_ij x_j(p)
//! ```
//!
//! Pixels outside the image are zeros. One kernel computes both parts in one pass over memory. A dense convolution with a k x k
//! kernel (k = 1, 3, 7) has padding (k - 1) / 2 and stride 1, 2 or 4, as PyTorch defines them.
//!
//! Taps may read groups of channels ([`ConvDesc::with_group_size`], `LeanConvNets`), and strides of 2 and 4 leave out outputs.
//!
//! Activations are f32, channels last: [images, height, width, channels], without gaps. They may begin anywhere; from the start of a cache
//! line on (64 bytes, as the crate `aligned-vec` allocates), layers of few channels run up to an eighth faster. After the sum comes the epilogue, each part
//! of it if asked for: times scale plus shift per channel ([`PackedWeights::with_scale`]), plus a residual, ReLU.
//!
//! Every output is one chain of fused multiply-adds in a fixed order, so its bits depend neither on the number of threads, nor on
//! how the work is cut, nor on the vector width of the instruction set.
//!
//! ```
//! use leanresnet::conv::{ConvDesc, ConvPlan, PackedWeights, TensorView, TensorViewMut};
//! use leanresnet::{Pool, Stencil};
//!
//! // Two images of 4 x 4 pixels and 8 channels. The stencil is all zeros, the matrix the identity: y = relu(x).
//! let identity: Vec<f32> = (0..64).map(|at| if at % 9 == 0 { 1.0 } else { 0.0 }).collect();
//! let weights = PackedWeights::lean(Stencil::Cross5, 8, &[0.0; 72], &identity, &[])?;
//!
//! let desc = ConvDesc::lean(8, Stencil::Cross5).with_relu(true);
//! let mut plan = ConvPlan::new(&desc, &Pool::inline())?;
//! let (x, mut y) = ([-1.5; 256], [f32::NAN; 256]);
//! let shape = [2, 4, 4, 8];
//! plan.run(&weights, TensorView::new(&x, shape)?, TensorViewMut::new(&mut y, plan.output_shape(shape)?)?)?;
//! assert_eq!(y, [0.0; 256]);
//! # Ok::<(), leanresnet::Error>(())
//! ```

mod desc;
pub(crate) mod pack;
mod plan;
mod view;
mod work;

pub use desc::{ConvDesc, ConvOperator};
pub use pack::PackedWeights;
pub use plan::{ConvPlan, ConvTask};
pub use view::{Residual, TensorView, TensorViewMut};
