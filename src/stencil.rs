//! The stencils of lean convolutions: which neighbours of a pixel are read, and in which order they are summed.
#![forbid(unsafe_code)]

use crate::named_enum::named_enum;

named_enum! {
    /// The neighbours that the spatial part of a lean convolution reads.
    ///
    /// ```
    /// use leanresnet::Stencil;
    ///
    /// let stencil: Stencil = "cross4".parse().unwrap();
    /// assert_eq!(stencil.taps(), [(-1, 0), (0, -1), (0, 1), (1, 0)]);
    /// ```
    Stencil, "stencil" {
        /// North, west, east, south: the paper's stencil. The 1x1 part holds the centre.
        Cross4 = "cross4",
        /// North, west, centre, east, south.
        Cross5 = "cross5",
        /// All of 3x3, row by row.
        Box9 = "box9",
        /// West, centre, east.
        Row3 = "row3",
        /// North, centre, south.
        Col3 = "col3",
        /// All of 5x5, row by row.
        Box25 = "box25",
    }
}

impl Stencil {
    /// The taps as (dy, dx) from the output pixel, in the order of summation: row by row, west to east.
    pub fn taps(self) -> &'static [(i8, i8)] {
        match self {
            Stencil::Cross4 => &[(-1, 0), (0, -1), (0, 1), (1, 0)],
            Stencil::Cross5 => &[(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)],
            Stencil::Box9 => &[(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1)],
            Stencil::Row3 => &[(0, -1), (0, 0), (0, 1)],
            Stencil::Col3 => &[(-1, 0), (0, 0), (1, 0)],
            Stencil::Box25 => &BOX25,
        }
    }

    /// Side of the square that holds the stencil and that files store: 3 or 5.
    pub fn side(self) -> usize {
        if self == Stencil::Box25 { 5 } else { 3 }
    }

    /// How many pixels the square reaches from its centre: 1 or 2.
    pub fn radius(self) -> usize {
        self.side() / 2
    }

    /// For each of the `side() * side()` stored values, row by row: does the stencil have this tap?
    pub fn mask(self) -> Vec<bool> {
        let side = self.side();
        let radius = self.radius() as i8;
        let mut mask = vec![false; side * side];
        for &(dy, dx) in self.taps() {
            mask[(dy + radius) as usize * side + (dx + radius) as usize] = true;
        }
        mask
    }
}

const BOX25: [(i8, i8); 25] = {
    let mut taps = [(0, 0); 25];
    let mut index = 0;
    while index < 25 {
        taps[index] = (index as i8 / 5 - 2, index as i8 % 5 - 2);
        index += 1;
    }
    taps
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_in_row_major_order_inside_their_square() {
        let counts: Vec<usize> = Stencil::ALL.iter().map(|stencil| stencil.taps().len()).collect();
        assert_eq!(counts, [4, 5, 9, 3, 3, 25]);
        for stencil in Stencil::ALL {
            let radius = stencil.side() as i8 / 2;
            assert!(stencil.taps().windows(2).all(|pair| pair[0] < pair[1]), "{stencil}");
            assert!(stencil.taps().iter().all(|(dy, dx)| dy.abs() <= radius && dx.abs() <= radius), "{stencil}");
        }
        assert_eq!(Stencil::Box25.taps()[0], (-2, -2));
        assert_eq!(Stencil::Box25.taps()[7], (-1, 0));
    }

    #[test]
    fn mask_marks_the_taps() {
        let cross = [false, true, false, true, true, true, false, true, false];
        assert_eq!(Stencil::Cross5.mask(), cross);
        assert_eq!(Stencil::Row3.mask(), [false, false, false, true, true, true, false, false, false]);
        assert!(Stencil::Box25.mask().iter().all(|&tap| tap));
    }

    #[test]
    fn names_round_trip() {
        for stencil in Stencil::ALL {
            assert_eq!(stencil.name().parse::<Stencil>().unwrap(), *stencil);
            assert_eq!(serde_json::to_value(stencil).unwrap(), stencil.name());
        }
        let error = "star7".parse::<Stencil>().unwrap_err().to_string();
        assert_eq!(error, "stencil; expected one of cross4, cross5, box9, row3, col3, box25, got `star7`");
    }
}
