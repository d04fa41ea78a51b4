//! The order of the tile unit's operations, and how columns of pixels share them.
#![forbid(unsafe_code)]

use crate::generator::tiles::{MATRIX, Operation, PIXELS, SUMS, spread, turn};

const STEPS: [usize; 5] = [1, 2, 3, 4, 8];

/// Each product finds its operands in place, of the same step, and each tile of sums takes part in every step once.
#[test]
fn every_step_is_multiplied_once_by_what_was_loaded_for_it() {
    for steps in STEPS {
        let mut held = [None; 8];
        let mut products = [0; SUMS];
        for operation in turn(steps) {
            match operation {
                Operation::LoadMatrix { tile, step } => {
                    assert!(tile >= MATRIX);
                    held[tile] = Some(step);
                }
                Operation::LoadPixels { tile, step } => {
                    assert!((PIXELS..MATRIX).contains(&tile));
                    held[tile] = Some(step);
                }
                Operation::Multiply { sums, pixels, matrix } => {
                    assert_eq!((pixels - PIXELS, matrix - MATRIX), (sums / 2, sums % 2), "the sums of these operands");
                    let step = Some(products[sums]);
                    assert_eq!((held[pixels], held[matrix]), (step, step), "operands of {operation:?}");
                    products[sums] += 1;
                }
                Operation::StoreSums { .. } | Operation::LoadBias { .. } => {}
            }
        }
        assert_eq!(products, [steps; SUMS]);
    }
}

#[test]
fn sums_are_stored_then_start_anew_then_take_products() {
    for steps in STEPS {
        let operations = turn(steps);
        for tile in 0..SUMS {
            let place = |wanted: Operation| operations.iter().position(|operation| *operation == wanted).unwrap();
            let is_product = |operation: &Operation| matches!(operation, Operation::Multiply { sums, .. } if *sums == tile);
            let product = operations.iter().position(is_product).unwrap();
            let (store, bias) = (place(Operation::StoreSums { tile }), place(Operation::LoadBias { tile }));
            assert!(store < bias && bias < product);
        }
        assert_eq!(operations.len(), 16 + 8 * (steps - 1), "nothing is loaded or stored twice");
    }
}

#[test]
fn columns_share_the_list_evenly_and_in_order() {
    for (steps, columns) in STEPS.into_iter().flat_map(|steps| [7, 8, 14, 16].map(|columns| (steps, columns))) {
        let operations = turn(steps);
        let parts = spread(&operations, columns);
        assert_eq!((parts.concat(), parts.len()), (operations.clone(), columns));
        let (least, most) = (operations.len() / columns, operations.len().div_ceil(columns));
        assert!(parts.iter().all(|part| (least..=most).contains(&part.len())));
    }
}
