//! Colours, background, clutter and noise of the generated images.
#![forbid(unsafe_code)]

use crate::random::Random;

use super::SIDE;
use super::pattern::{Pattern, between};

/// Points per side of the coarse grid whose interpolation clouds the colours.
const GRID: usize = 5;

type Colour = [f32; 3];

/// Everything in an image that says nothing about its class.
pub(super) struct Scene {
    background: Colour,
    object: Colour,
    clouds: [[Colour; GRID]; GRID],
    clutter: [Clutter; 4],
    /// Largest deviation of a channel by noise.
    noise: f32,
}

/// A short line with round ends; a very short one is a blob.
struct Clutter {
    start: [f32; 2],
    step: [f32; 2],
    radius: f32,
    colour: Colour,
}

impl Scene {
    pub(super) fn draw(random: &mut Random) -> Self {
        // The mean of the two greys does not depend on which of them is the object's.
        let contrast = between(30.0, 65.0, random) * if random.below(2) == 0 { 1.0 } else { -1.0 };
        let grey = between(85.0, 170.0, random);
        let background = tint(grey - contrast, 40.0, random);
        let object = tint(grey + contrast, 40.0, random);
        let strength = between(8.0, 30.0, random);
        let clouds = [(); GRID].map(|()| {
            [(); GRID].map(|()| {
                let shade = between(-strength, strength, random);
                tint(shade, 0.4 * strength, random)
            })
        });
        let clutter = [(); 4].map(|()| Clutter::draw(random));
        Self { background, object, clouds, clutter, noise: between(6.0, 28.0, random) }
    }

    /// Writes the image (32 x 32 x 3 bytes) of `pattern` in this scene to `pixels`.
    pub(super) fn paint(&self, pattern: &Pattern, random: &mut Random, pixels: &mut [u8]) {
        let mut canvas = [[[0.0; 3]; SIDE]; SIDE];
        for (y, row) in canvas.iter_mut().enumerate() {
            for (x, colour) in row.iter_mut().enumerate() {
                *colour = mix(self.background, self.object, pattern.coverage(x as f32 + 0.5, y as f32 + 0.5));
            }
        }
        for clutter in &self.clutter {
            clutter.paint(&mut canvas);
        }
        // The noise first: each random byte is then replaced by the channel that it disturbs.
        random.fill(pixels);
        for (y, (row, pixels)) in canvas.iter().zip(pixels.chunks_exact_mut(3 * SIDE)).enumerate() {
            let clouds = self.clouds_of_row(y);
            for (x, (colour, pixel)) in row.iter().zip(pixels.chunks_exact_mut(3)).enumerate() {
                let (column, right) = grid_position(x);
                let cloud = mix(clouds[column], clouds[column + 1], right);
                for channel in 0..3 {
                    let noise = self.noise * (f32::from(pixel[channel]) * (2.0 / 255.0) - 1.0);
                    // The conversion cuts off at 0 and 255.
                    pixel[channel] = (colour[channel] + cloud[channel] + noise + 0.5) as u8;
                }
            }
        }
    }

    /// The smooth deviation of the colours of image row `y`, at the columns of the grid.
    fn clouds_of_row(&self, y: usize) -> [Colour; GRID] {
        let (row, down) = grid_position(y);
        std::array::from_fn(|column| mix(self.clouds[row][column], self.clouds[row + 1][column], down))
    }
}

/// The grid point before pixel `position` of a row or column, and how far to the next one it is, smoothed at both ends.
fn grid_position(position: usize) -> (usize, f32) {
    let position = (position as f32 + 0.5) * ((GRID - 1) as f32 / SIDE as f32);
    let index = position as usize;
    let fraction = position - index as f32;
    (index, fraction * fraction * (3.0 - 2.0 * fraction))
}

impl Clutter {
    fn draw(random: &mut Random) -> Self {
        let start = [(); 2].map(|()| between(0.0, SIDE as f32, random));
        let length = between(0.0, 8.0, random);
        let angle = between(0.0, std::f32::consts::TAU, random);
        let step = [length * libm::cosf(angle), length * libm::sinf(angle)];
        let radius = between(0.5, 1.3, random);
        let grey = between(40.0, 215.0, random);
        Self { start, step, radius, colour: tint(grey, 50.0, random) }
    }

    fn paint(&self, canvas: &mut [[Colour; SIDE]; SIDE]) {
        let reach = self.radius + 1.0;
        let [columns, rows] = [0, 1].map(|axis| {
            let (from, to) = (self.start[axis], self.start[axis] + self.step[axis]);
            // The conversions cut off at 0.
            (from.min(to) - reach) as usize..((from.max(to) + reach) as usize).min(SIDE)
        });
        for y in rows {
            for x in columns.clone() {
                canvas[y][x] = mix(canvas[y][x], self.colour, self.coverage(x as f32 + 0.5, y as f32 + 0.5));
            }
        }
    }

    /// The share of the pixel around (`x`, `y`) that is covered, 0 to 1.
    fn coverage(&self, x: f32, y: f32) -> f32 {
        let [x, y] = [x - self.start[0], y - self.start[1]];
        let [dx, dy] = self.step;
        let share = ((x * dx + y * dy) / (dx * dx + dy * dy).max(1e-6)).clamp(0.0, 1.0);
        let [x, y] = [x - share * dx, y - share * dy];
        (self.radius + 0.5 - (x * x + y * y).sqrt()).clamp(0.0, 1.0)
    }
}

/// The colour of brightness `grey` and a random hue that is up to `strength` strong.
fn tint(grey: f32, strength: f32, random: &mut Random) -> Colour {
    let strength = between(0.0, strength, random);
    let hue = between(0.0, std::f32::consts::TAU, random);
    let third = std::f32::consts::TAU / 3.0;
    [hue, hue - third, hue + third].map(|hue| grey + strength * libm::cosf(hue))
}

fn mix(from: Colour, to: Colour, share: f32) -> Colour {
    [0, 1, 2].map(|channel| from[channel] + share * (to[channel] - from[channel]))
}
