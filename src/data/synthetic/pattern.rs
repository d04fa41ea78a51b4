//! What the classes of the generated data set look like: how much of each pixel the object covers.
#![forbid(unsafe_code)]

use crate::random::Random;

use super::SIDE;

/// A class with its random place, size and turn. Lengths are in pixels, the origin is the image's top left corner.
pub(super) struct Pattern {
    kind: Kind,
    centre: [f32; 2],
    /// Cosine and sine of the turn.
    turn: [f32; 2],
    /// Radius of a shape, period of a texture.
    size: f32,
    /// Width of the line or bar of a shape, or of the inked part of a period.
    thickness: f32,
}

#[derive(Clone, Copy)]
enum Kind {
    Disc,
    Ring,
    Square,
    Triangle,
    Cross,
    /// Stripes; they are told apart by their turn.
    Stripes,
    Checkerboard,
    Dots,
}

/// A number in `low..high`.
pub(super) fn between(low: f32, high: f32, random: &mut Random) -> f32 {
    low + (high - low) * random.uniform()
}

impl Pattern {
    /// The classes, in the order of their labels.
    pub(super) const NAMES: [&'static str; 10] = [
        "disc",
        "ring",
        "square",
        "triangle",
        "cross",
        "horizontal stripes",
        "vertical stripes",
        "diagonal stripes",
        "checkerboard",
        "dots",
    ];

    /// A random member of class `label`.
    pub(super) fn draw(label: u32, random: &mut Random) -> Self {
        let radius = between(6.0, 11.0, random);
        let centre = [(); 2].map(|()| between(0.85 * radius, SIDE as f32 - 0.85 * radius, random));
        // Degrees around which, and by how much, a member may be turned.
        let (kind, angle, spread, size, thickness) = match label {
            0 => (Kind::Disc, 0.0, 0.0, radius, 0.0),
            1 => (Kind::Ring, 0.0, 0.0, radius, between(0.25, 0.4, random) * radius),
            2 => (Kind::Square, 0.0, 20.0, radius, 0.0),
            3 => (Kind::Triangle, 0.0, 30.0, radius, 0.0),
            4 => (Kind::Cross, 0.0, 20.0, radius, between(0.4, 0.65, random) * radius),
            5 => (Kind::Stripes, 90.0, 10.0, between(4.5, 9.0, random), 0.5),
            6 => (Kind::Stripes, 0.0, 10.0, between(4.5, 9.0, random), 0.5),
            7 => (Kind::Stripes, if random.below(2) == 0 { 45.0 } else { -45.0 }, 12.0, between(4.5, 9.0, random), 0.5),
            8 => (Kind::Checkerboard, 0.0, 15.0, between(7.0, 12.0, random), 0.5),
            _ => (Kind::Dots, 0.0, 45.0, between(6.0, 9.0, random), between(0.5, 0.62, random)),
        };
        let angle = between(angle - spread, angle + spread, random).to_radians();
        let turn = [libm::cosf(angle), libm::sinf(angle)];
        Self { kind, centre, turn, size, thickness }
    }

    /// The share of the pixel around (`x`, `y`) that the object covers, 0 to 1.
    pub(super) fn coverage(&self, x: f32, y: f32) -> f32 {
        let [x, y] = [x - self.centre[0], y - self.centre[1]];
        let [cosine, sine] = self.turn;
        let [x, y] = [cosine * x + sine * y, cosine * y - sine * x];
        let period = self.size;
        match self.kind {
            Kind::Disc => inside(self.size - length(x, y)),
            Kind::Ring => inside(0.5 * self.thickness - (length(x, y) - self.size + 0.5 * self.thickness).abs()),
            Kind::Square => inside(0.85 * self.size - x.abs().max(y.abs())),
            // Three sides at equal distance from the centre.
            Kind::Triangle => inside(0.55 * self.size - y.max(0.866_025_4 * x.abs() - 0.5 * y)),
            Kind::Cross => {
                let (along, across) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
                inside((self.size - along).min(0.5 * self.thickness - across))
            }
            Kind::Stripes => inside(from_edge(x, period)),
            Kind::Checkerboard => {
                let [u, v] = [x, y].map(|along| (2.0 * from_edge(along, period)).clamp(-1.0, 1.0));
                0.5 + 0.5 * u * v
            }
            Kind::Dots => {
                let [u, v] = [x, y].map(|along| period * (fraction(along / period) - 0.5));
                inside(0.5 * self.thickness * period - length(u, v))
            }
        }
    }
}

/// How much of a pixel is covered whose centre lies `depth` inside the object.
fn inside(depth: f32) -> f32 {
    (depth + 0.5).clamp(0.0, 1.0)
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// What is left of `x` above the next integer below; `floor` is slow where it is no instruction.
fn fraction(x: f32) -> f32 {
    let part = x - (x as i32) as f32;
    if part < 0.0 { part + 1.0 } else { part }
}

/// How deep `along` lies in the inked half of a period; less than 0 in the other half.
fn from_edge(along: f32, period: f32) -> f32 {
    period * (0.25 - (fraction(along / period) - 0.5).abs())
}
