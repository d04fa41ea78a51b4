// What the tile unit does in a turn of a convolution: an ordered list of operations, and how it is spread over the columns of pixels that
// vectors finish meanwhile.
//
// A turn starts four tiles of sums anew, multiplies `steps` times 32 inputs, and stores what the sums were before. Tiles 0 to 3 are sums
// (0, 1: even and odd channels of the first tile of pixels; 2, 3: of the second), 4 and 5 pixels, 6 and 7 the matrix's even and odd
// channels.

/// Tiles of sums.
pub const SUMS: usize = 4;
/// The first tile of pixels.
pub const PIXELS: usize = 4;
/// The first tile of the matrix.
pub const MATRIX: usize = 6;

/// An operation of the tile unit, with its tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    LoadMatrix {
        tile: usize,
        step: usize,
    },
    LoadPixels {
        tile: usize,
        step: usize,
    },
    /// Stores the sums of the turn before.
    StoreSums {
        tile: usize,
    },
    /// The sums start as the bias.
    LoadBias {
        tile: usize,
    },
    Multiply {
        sums: usize,
        pixels: usize,
        matrix: usize,
    },
}

impl Operation {
    /// The macro of the template, and its arguments.
    pub fn call(self) -> (&'static str, Vec<usize>) {
        match self {
            Operation::LoadMatrix { tile, step } => ("LOAD_MATRIX", vec![tile, step]),
            Operation::LoadPixels { tile, step } => ("LOAD_PIXELS", vec![tile, step]),
            Operation::StoreSums { tile } => ("STORE_SUMS", vec![tile]),
            Operation::LoadBias { tile } => ("LOAD_BIAS", vec![tile]),
            Operation::Multiply { sums, pixels, matrix } => ("TILE_DOT", vec![sums, pixels, matrix]),
        }
    }
}

/// A quarter of a step: the products of one tile of sums, of whose operands an earlier quarter may have loaded one. In the first step the
/// sums are stored and start anew. A store blocks the instructions behind it for 16 cycles: each quarter has one, after the loads of its
/// operands.
pub fn quarter(sums: usize, step: usize, is_first: bool) -> Vec<Operation> {
    let (pixels, matrix) = (PIXELS + sums / 2, MATRIX + sums % 2);
    let mut operations = Vec::new();
    if sums < 2 {
        operations.push(Operation::LoadMatrix { tile: matrix, step });
    }
    if sums.is_multiple_of(2) {
        operations.push(Operation::LoadPixels { tile: pixels, step });
    }
    if is_first {
        operations.extend([Operation::StoreSums { tile: sums }, Operation::LoadBias { tile: sums }]);
    }
    operations.push(Operation::Multiply { sums, pixels, matrix });
    operations
}

/// A turn of so many steps.
pub fn turn(steps: usize) -> Vec<Operation> {
    (0..steps).flat_map(|step| (0..SUMS).flat_map(move |sums| quarter(sums, step, step == 0))).collect()
}

/// Equal parts of a list, as far as operations are whole: those that follow each of `columns` columns.
pub fn spread(operations: &[Operation], columns: usize) -> Vec<&[Operation]> {
    let count = operations.len();
    (0..columns).map(|column| &operations[column * count / columns..(column + 1) * count / columns]).collect()
}
