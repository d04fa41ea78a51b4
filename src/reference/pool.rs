//! Average pools.
#![forbid(unsafe_code)]

use super::{Real, Shape};

/// The four pixels of a 2x2 window, in the order of summation.
const WINDOW: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// Shape after a 2x2 pool: half the rows and columns; an odd last one is dropped.
fn pooled(shape: Shape) -> Shape {
    Shape::new(shape.n, shape.h / 2, shape.w / 2, shape.c)
}

/// The mean of each 2x2 window: the sum of its four pixels in row-major order, times 0.25.
pub fn average_pool<T: Real>(x: &[T], shape: Shape) -> (Vec<T>, Shape) {
    assert_eq!(x.len(), shape.elements());
    let output = pooled(shape);
    let mut y = Vec::with_capacity(output.elements());
    for (image, row, column) in output.positions() {
        for channel in 0..shape.c {
            let [a, b, c, d] = WINDOW.map(|(down, right)| x[shape.index(image, 2 * row + down, 2 * column + right, channel)]);
            y.push((a + b + c + d) * T::from_f64(0.25));
        }
    }
    (y, output)
}

/// Gradient at the pool's input (of shape `shape`): a quarter of `dy` to each pixel of the window, 0 to dropped pixels.
pub fn average_pool_backward<T: Real>(dy: &[T], shape: Shape) -> Vec<T> {
    let output = pooled(shape);
    assert_eq!(dy.len(), output.elements());
    let mut dx = vec![T::ZERO; shape.elements()];
    for (image, row, column) in output.positions() {
        for channel in 0..shape.c {
            let share = dy[output.index(image, row, column, channel)] * T::from_f64(0.25);
            for (down, right) in WINDOW {
                dx[shape.index(image, 2 * row + down, 2 * column + right, channel)] = share;
            }
        }
    }
    dx
}

/// The mean of each image's channel, `[n][c]`: the sum in pixel order, times `1 / (h w)` (itself rounded to `T`).
pub fn global_average_pool<T: Real>(x: &[T], shape: Shape) -> Vec<T> {
    assert_eq!(x.len(), shape.elements());
    let mut y = vec![T::ZERO; shape.n * shape.c];
    for (image, row, column) in shape.positions() {
        for channel in 0..shape.c {
            let sum = &mut y[image * shape.c + channel];
            *sum = *sum + x[shape.index(image, row, column, channel)];
        }
    }
    y.iter().map(|&sum| sum * pixel_share(shape)).collect()
}

/// Gradient at the global pool's input (of shape `shape`), from `dy` as `[n][c]`.
pub fn global_average_pool_backward<T: Real>(dy: &[T], shape: Shape) -> Vec<T> {
    assert_eq!(dy.len(), shape.n * shape.c);
    let mut dx = Vec::with_capacity(shape.elements());
    for (image, _, _) in shape.positions() {
        dx.extend((0..shape.c).map(|channel| dy[image * shape.c + channel] * pixel_share(shape)));
    }
    dx
}

fn pixel_share<T: Real>(shape: Shape) -> T {
    T::ONE / T::from_f64((shape.h * shape.w) as f64)
}
