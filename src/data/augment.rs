//! Random changes to training images.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::data::Flip;
use crate::error::{Error, Result};
use crate::random::Random;

/// Which random changes a training image goes through; the default is none.
///
/// On the command line it is a list such as `crop=4,flip,cutout=8,mixup=0.2`, with `flip=alternate`, or `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Augmentation {
    /// Pixels added on every side, with the mean colour, before a random part of the original size is cut out.
    pub crop: usize,
    /// Mirror half of the images left to right.
    pub flip: Flip,
    /// Side of a square at a random place that is filled with the mean colour (DeVries and Taylor 2017); it may stick out.
    pub cutout: usize,
    /// The alpha of mixup (Zhang et al. 2018), 0 to 1: an image is blended with another one of the data set, with a weight from
    /// the distribution Beta(alpha, alpha). 0 turns it off.
    pub mixup: f32,
}

impl Augmentation {
    /// Pads by `crop` pixels and cuts out a random part.
    #[must_use]
    pub fn with_crop(mut self, crop: usize) -> Self {
        self.crop = crop;
        self
    }

    /// Mirrors half of the images, or not.
    #[must_use]
    pub fn with_flip(mut self, flip: impl Into<Flip>) -> Self {
        self.flip = flip.into();
        self
    }

    /// Blanks a square of side `cutout`.
    #[must_use]
    pub fn with_cutout(mut self, cutout: usize) -> Self {
        self.cutout = cutout;
        self
    }

    /// Blends images with weights from Beta(`mixup`, `mixup`).
    #[must_use]
    pub fn with_mixup(mut self, mixup: f32) -> Self {
        self.mixup = mixup;
        self
    }

    /// Checks the values against the images' height and width.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `crop` or `cutout` is larger than the image, or `mixup` is not in 0 to 1.
    pub fn check(&self, height: usize, width: usize) -> Result<()> {
        let side = height.min(width);
        for (name, value) in [("crop", self.crop), ("cutout", self.cutout)] {
            if value > side {
                return Err(Error::invalid(
                    format!("augmentation {name}"),
                    format!("at most {side} for {height} x {width}"),
                    value,
                ));
            }
        }
        if !(0.0..=1.0).contains(&self.mixup) {
            return Err(Error::invalid("augmentation mixup", "0 to 1", self.mixup));
        }
        Ok(())
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.crop > 0 {
            parts.push(format!("crop={}", self.crop));
        }
        match self.flip {
            Flip::Off => {}
            Flip::Random => parts.push("flip".to_string()),
            Flip::Alternate => parts.push(format!("flip={}", self.flip)),
        }
        if self.cutout > 0 {
            parts.push(format!("cutout={}", self.cutout));
        }
        if self.mixup > 0.0 {
            parts.push(format!("mixup={}", self.mixup));
        }
        formatter.write_str(if parts.is_empty() { "none".to_string() } else { parts.join(",") }.as_str())
    }
}

impl FromStr for Augmentation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut augmentation = Self::default();
        if text.trim() == "none" {
            return Ok(augmentation);
        }
        for item in text.split(',').map(str::trim) {
            let expected = "none, or a list such as crop=4,flip,cutout=8,mixup=0.2";
            let invalid = || Error::invalid("augmentation", expected, format!("`{item}`"));
            match item.split_once('=') {
                Some(("crop", value)) => augmentation.crop = value.parse().map_err(|_| invalid())?,
                Some(("cutout", value)) => augmentation.cutout = value.parse().map_err(|_| invalid())?,
                Some(("mixup", value)) => augmentation.mixup = value.parse().map_err(|_| invalid())?,
                Some(("flip", value)) => augmentation.flip = Flip::parse(value).ok_or_else(invalid)?,
                None if item == "flip" => augmentation.flip = Flip::Random,
                _ => return Err(invalid()),
            }
        }
        Ok(augmentation)
    }
}

/// What happens to the pixels of one image in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    /// Row and column of the original, minus those of the result, before mirroring.
    shift: [isize; 2],
    /// Mirror left to right.
    flip: bool,
    /// Rows and columns (first, end) of the result that are blank.
    blank: [(usize, usize); 2],
    height: usize,
    width: usize,
}

impl Transform {
    /// Draws a transform. The same draws are made whatever is turned on, so that one option does not change another's choices.
    /// `mirrors`: takes the draw of a fair coin.
    pub(crate) fn draw(
        augmentation: &Augmentation,
        height: usize,
        width: usize,
        random: &mut Random,
        mirrors: impl FnOnce(bool) -> bool,
    ) -> Self {
        let crop = augmentation.crop;
        let shift = [(); 2].map(|()| random.below(2 * crop as u32 + 1) as isize - crop as isize);
        let flip = mirrors(random.below(2) == 1);
        let blank = [height, width].map(|side| {
            let centre = random.below(side as u32) as usize;
            let before = augmentation.cutout / 2;
            (centre.saturating_sub(before), (centre + augmentation.cutout - before).min(side))
        });
        Self { shift, flip, blank, height, width }
    }

    /// The pixel (row x width + column) of the original that lands on `row`, `column` of the result; `None`: the mean colour.
    pub(crate) fn source(&self, row: usize, column: usize) -> Option<usize> {
        let [rows, columns] = self.blank;
        if (rows.0..rows.1).contains(&row) && (columns.0..columns.1).contains(&column) {
            return None;
        }
        let column = if self.flip { self.width - 1 - column } else { column };
        let row = row.checked_add_signed(self.shift[0]).filter(|&row| row < self.height)?;
        let column = column.checked_add_signed(self.shift[1]).filter(|&column| column < self.width)?;
        Some(row * self.width + column)
    }
}

/// A draw from Beta(`alpha`, `alpha`), `alpha` in (0, 1], by the method of Jöhnk (1964), in logarithms so that no power underflows.
pub(crate) fn symmetric_beta(alpha: f32, random: &mut Random) -> f32 {
    loop {
        let [first, second] = [(); 2].map(|()| libm::log(1.0 - f64::from(random.uniform())) / f64::from(alpha));
        if libm::exp(first) + libm::exp(second) <= 1.0 {
            return (1.0 / (1.0 + libm::exp(second - first))) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn draw(augmentation: Augmentation, sample: u64) -> Transform {
        let mirrors = |drawn| augmentation.flip.mirrors(drawn, 1, 0, sample as u32);
        Transform::draw(&augmentation, 8, 6, &mut Random::keyed(1, Purpose::Augment, 0, sample), mirrors)
    }

    #[test]
    fn command_line_spelling() {
        let full = Augmentation { crop: 4, flip: Flip::Random, cutout: 8, mixup: 0.2 };
        assert_eq!("crop=4,flip,cutout=8,mixup=0.2".parse::<Augmentation>().unwrap(), full);
        assert_eq!("crop=4".parse::<Augmentation>().unwrap(), Augmentation::default().with_crop(4));
        assert_eq!("flip=false".parse::<Augmentation>().unwrap(), Augmentation::default());
        let alternate = Augmentation::default().with_flip(Flip::Alternate);
        assert_eq!(alternate.to_string(), "flip=alternate");
        for augmentation in [full, Augmentation::default(), Augmentation::default().with_flip(true), alternate] {
            assert_eq!(augmentation.to_string().parse::<Augmentation>().unwrap(), augmentation);
        }
        for wrong in ["", "crop", "crop=", "crop=-1", "crop=4;flip", "turn=3", "flip,", "flip=no", "mixup=x"] {
            let error = wrong.parse::<Augmentation>().unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("crop=4,flip"), "{wrong}: {error}");
        }
    }

    #[test]
    fn toml_spelling() {
        let read: Augmentation = toml::from_str("crop = 4\nflip = true").unwrap();
        assert_eq!(read, Augmentation::default().with_crop(4).with_flip(true));
        assert!(toml::from_str::<Augmentation>("turn = 3").unwrap_err().to_string().contains("turn"));
    }

    #[test]
    fn values_must_fit_the_image() {
        let none = Augmentation::default();
        for good in [none, none.with_crop(6), none.with_cutout(6), none.with_mixup(1.0)] {
            good.check(8, 6).unwrap();
        }
        for bad in
            [none.with_crop(7), none.with_cutout(7), none.with_mixup(1.1), none.with_mixup(-0.1), none.with_mixup(f32::NAN)]
        {
            assert!(matches!(bad.check(8, 6), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }

    #[test]
    fn without_options_nothing_changes() {
        for sample in 0..20 {
            let transform = draw(Augmentation::default(), sample);
            assert!((0..48).all(|pixel| transform.source(pixel / 6, pixel % 6) == Some(pixel)), "{transform:?}");
        }
    }

    #[test]
    fn crop_shifts_by_every_offset() {
        let mut seen = std::collections::BTreeSet::new();
        for sample in 0..400 {
            let transform = draw(Augmentation::default().with_crop(2), sample);
            seen.insert(transform.shift);
            let [down, right] = transform.shift;
            for (row, column) in (0..48).map(|pixel| (pixel / 6, pixel % 6)) {
                let (y, x) = (row as isize + down, column as isize + right);
                let inside = (0..8).contains(&y) && (0..6).contains(&x);
                assert_eq!(transform.source(row, column), inside.then_some((y * 6 + x) as usize));
            }
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.contains(&[-2, 2]));
    }

    #[test]
    fn flip_mirrors_half_of_the_images() {
        let flipped =
            (0..400).filter(|&sample| draw(Augmentation::default().with_flip(true), sample).source(1, 0) == Some(11)).count();
        assert!((150..250).contains(&flipped), "{flipped}");
    }

    #[test]
    fn cutout_blanks_a_square() {
        let mut largest = 0;
        for sample in 0..100 {
            let transform = draw(Augmentation::default().with_cutout(3), sample);
            let blank = (0..48).filter(|pixel| transform.source(pixel / 6, pixel % 6).is_none()).count();
            assert!([4, 6, 9].contains(&blank), "{blank}");
            largest = largest.max(blank);
        }
        assert_eq!(largest, 9);
    }

    #[test]
    fn options_do_not_change_each_other() {
        let [shift, flip] = [Augmentation::default().with_crop(2), Augmentation::default().with_flip(true).with_cutout(2)];
        let both = flip.with_crop(2);
        for sample in 0..20 {
            assert_eq!(draw(both, sample).shift, draw(shift, sample).shift);
            assert_eq!(draw(both, sample).flip, draw(flip, sample).flip);
            assert_eq!(draw(both, sample).blank, draw(flip, sample).blank);
        }
    }

    /// The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    #[test]
    fn beta_has_its_moments() {
        for alpha in [0.05, 0.2, 1.0] {
            let mut random = Random::keyed(1, Purpose::Augment, 0, 0);
            let draws: Vec<f64> = (0..20_000).map(|_| f64::from(symmetric_beta(alpha, &mut random))).collect();
            assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|draw| (draw - 0.5) * (draw - 0.5)).sum::<f64>() / 20_000.0;
            let expected = 1.0 / (4.0 * (2.0 * f64::from(alpha) + 1.0));
            assert!((mean - 0.5).abs() < 0.01 && (variance / expected - 1.0).abs() < 0.03, "{alpha}: {mean} {variance}");
        }
        assert!((0.0..=1.0).contains(&symmetric_beta(1e-30, &mut Random::keyed(1, Purpose::Augment, 0, 0))));
    }
}
