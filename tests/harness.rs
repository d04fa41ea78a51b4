//! Tests of the test harness: a harness that cannot fail proves nothing.

mod common;

use common::data::{cancelling_pairs, equal_pairs, exact_maximum, integers, log_uniform, uniform};
use common::guard::{CANARY, EDGES, Edge, GuardedBuffer};
use common::shapes::{Tile, channel_counts, image_sizes, shapes};
use common::tolerance::{Case, Exact, bound, compare_bits, compare_within_bound, gamma, same_bits};

const LENGTHS: [usize; 7] = [0, 1, 5, 1023, 1024, 1025, 5000];

#[test]
fn guarded_buffers_start_as_signalling_nan_and_hold_what_is_written() {
    for edge in EDGES {
        for len in LENGTHS {
            let mut buffer = GuardedBuffer::new(len, edge);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|value| value.is_nan() && value.to_bits() == CANARY));
            buffer.iter_mut().enumerate().for_each(|(index, value)| *value = index as f32);
            assert!(buffer.iter().enumerate().all(|(index, &value)| value == index as f32));
            assert_eq!(buffer.check(), Ok(()));
            assert_eq!(*GuardedBuffer::from_slice(&buffer, edge), *buffer);
        }
    }
}

#[cfg(unix)]
#[test]
fn one_float_beyond_the_guarded_edge_kills() {
    use common::guard::reading_kills;
    for len in LENGTHS {
        let end = GuardedBuffer::new(len, Edge::End);
        assert!(reading_kills(&end, len as isize), "reading past {len} floats");
        let start = GuardedBuffer::new(len, Edge::Start);
        assert!(reading_kills(&start, -1), "reading before {len} floats");
        if len > 0 {
            assert!(!reading_kills(&end, 0) && !reading_kills(&end, len as isize - 1));
            assert!(!reading_kills(&start, 0) && !reading_kills(&start, len as isize - 1));
        }
    }
}

#[test]
fn exact_integers_are_distinct_within_a_run_and_bounded() {
    for seed in 0..5 {
        let values = integers(seed, 1000, 20);
        assert!(values.iter().all(|value| value.fract() == 0.0 && (1.0..=20.0).contains(&value.abs())));
        for run in values.chunks(40) {
            let mut sorted = run.to_vec();
            sorted.sort_by(f32::total_cmp);
            sorted.dedup();
            assert_eq!(sorted.len(), run.len());
        }
        assert_ne!(values[..40], values[40..80], "runs repeat");
        assert_ne!(values, integers(seed + 1, 1000, 20), "seeds do not matter");
    }
}

#[test]
fn exact_maximum_is_the_largest_that_fits() {
    for (terms, others) in [(1, 0), (25, 1000), (521, 1000), (4617, 5000), (1 << 20, 1000)] {
        let maximum = exact_maximum(terms, others);
        assert!(terms * maximum * maximum + others <= 1 << 24);
        assert!(maximum == 1000 || terms * (maximum + 1) * (maximum + 1) + others > 1 << 24);
    }
}

#[test]
fn random_data_has_the_promised_ranges_and_repeats() {
    let values = uniform(1, 10_000);
    assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)));
    assert!(values.iter().sum::<f32>().abs() < 300.0);
    assert_eq!(values[..100], uniform(1, 100));

    let magnitudes: Vec<f32> = log_uniform(2, 10_000).iter().map(|value| value.abs()).collect();
    assert!(magnitudes.iter().all(|value| (0.99 / 1_048_576.0..=1.01 * 1_048_576.0).contains(value)));
    let small = magnitudes.iter().filter(|&&value| value < 1.0).count();
    assert!((4700..5300).contains(&small), "{small} of 10000 magnitudes below 1");

    let (values, weights) = (cancelling_pairs(3, 101), equal_pairs(4, 101));
    assert_eq!((values.len(), weights.len()), (101, 101));
    for pair in 0..50 {
        let (a, b) = (values[2 * pair], values[2 * pair + 1]);
        assert!((a + b).abs() <= a.abs() / 4000.0);
        assert_eq!(weights[2 * pair], weights[2 * pair + 1]);
    }
}

#[test]
fn bits_are_compared_with_all_nan_equal() {
    assert!(same_bits(f32::NAN, f32::from_bits(CANARY)));
    assert!(!same_bits(0.0, -0.0));
    let case = Case { kernel: "lean_fused", shape: &[2, 1, 3] };
    let expected = [1.0, f32::NAN, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(compare_bits(case, &expected, &expected), Ok(()));
    let mut actual = expected;
    actual[4] = 5.000_000_5;
    let message = compare_bits(case, &actual, &expected).expect_err("values differ");
    for part in ["lean_fused", "[2, 1, 3]", "[1, 0, 1]", "got 5.0000005", "expected 5.0", "40a00001"] {
        assert!(message.contains(part), "{part} in: {message}");
    }
    assert!(compare_bits(case, &actual[1..], &expected[1..]).is_err(), "a missing element");
}

#[test]
fn the_bound_accepts_rounding_and_refuses_more() {
    assert!((gamma(10) / (10.0 / 16_777_216.0) - 1.0).abs() < 1e-5);
    let allowed = bound(8.0, 9, 10);
    let case = Case { kernel: "lean_fused", shape: &[1] };
    let exact = Exact { values: &[1.0], magnitudes: &[8.0], terms: 9, roundings: 10 };
    let compare = |value: f64| compare_within_bound(case, &[value as f32], &exact);
    assert_eq!(compare(1.0), Ok(0.0));
    assert!((0.4..0.6).contains(&compare(1.0 + allowed / 2.0).expect("half the bound")));
    assert!(compare(1.0 + 1.1 * allowed).is_err());
    assert!(compare(1.0 - 1.1 * allowed).is_err());
    assert!(compare(f64::NAN).is_err());
    let zero = Exact { values: &[0.0], magnitudes: &[0.0], terms: 0, roundings: 1 };
    assert_eq!(compare_within_bound(case, &[0.0], &zero), Ok(0.0));
}

#[test]
fn shapes_lie_on_both_sides_of_every_boundary() {
    let tile = Tile { lanes: 16, pixels: 14, channels: 32 };
    assert_eq!(channel_counts(tile), [1, 15, 16, 17, 31, 32, 33, 67]);
    let sizes = image_sizes(tile);
    let pixels: Vec<usize> = sizes.iter().map(|(height, width)| height * width).collect();
    for count in [1, 13, 14, 15, 27, 28, 29] {
        assert!(pixels.contains(&count), "{count} pixels");
    }
    assert!(sizes.contains(&(1, 14)) && sizes.contains(&(14, 1)) && sizes.contains(&(2, 14)));
    assert_eq!(shapes(tile).len(), sizes.len() * 8);

    let single = Tile { lanes: 1, pixels: 1, channels: 1 };
    assert_eq!(channel_counts(single), [1, 2, 5]);
    assert!(image_sizes(single).iter().all(|&(height, width)| height > 0 && width > 0));
}
