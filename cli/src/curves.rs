//! The picture of a training run: loss and top-1 over epochs, as `curves.svg` and `curves.png`.
#![forbid(unsafe_code)]

use std::sync::Once;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use leanresnet::train::{EpochMetrics, RunFolder};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::failure::Failure;
use crate::whole_file;

/// Pixels.
const SIZE: (u32, u32) = (1100, 460);
/// Colours that people with colour blindness tell apart (Okabe and Ito).
const TRAIN: RGBColor = RGBColor(0, 114, 178);
const VALIDATION: RGBColor = RGBColor(230, 159, 0);
const TEST: RGBColor = RGBColor(0, 158, 115);
const GRID: RGBColor = RGBColor(225, 225, 225);
const TEXT: RGBColor = RGBColor(60, 60, 60);
/// The family that both pictures name; the PNG is drawn with DejaVu Sans under this name.
const FONT: &str = "sans-serif";

/// How the finished model does on the test images.
#[derive(Clone, Copy, Debug)]
pub struct TestPoint {
    /// The epoch that it comes from.
    pub epoch: u64,
    /// Mean cross-entropy, nats.
    pub loss: f64,
    /// Share of right first guesses.
    pub top1: f64,
}

/// Draws the run into its folder; nothing before the first epoch is done.
pub fn write(folder: &RunFolder, history: &[EpochMetrics], test: Option<TestPoint>) -> Result<(), Failure> {
    if history.is_empty() {
        return Ok(());
    }
    let [loss, top1] = panels(history, test);
    whole_file::write(&folder.path().join("curves.svg"), svg(&loss, &top1)?.as_bytes())?;
    whole_file::write(&folder.path().join("curves.png"), &png(&loss, &top1)?)
}

/// One half of the picture.
struct Panel {
    title: &'static str,
    low: f64,
    high: f64,
    epochs: f64,
    series: Vec<Series>,
}

struct Series {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

fn panels(history: &[EpochMetrics], test: Option<TestPoint>) -> [Panel; 2] {
    let epochs = history.last().map_or(1, |metrics| metrics.epoch).max(2) as f64;
    let curve = |value: &dyn Fn(&EpochMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        history.iter().filter_map(|metrics| Some((metrics.epoch as f64, value(metrics)?))).collect()
    };
    let point = |value: &dyn Fn(TestPoint) -> f64| -> Vec<(f64, f64)> {
        test.map(|test| (test.epoch as f64, value(test))).into_iter().collect()
    };
    let loss = [curve(&|metrics| Some(metrics.train_loss)), curve(&|metrics| metrics.val_loss), point(&|test| test.loss)];
    let top1 = [
        curve(&|metrics| Some(100.0 * metrics.train_top1)),
        curve(&|metrics| metrics.val_top1.map(|top1| 100.0 * top1)),
        point(&|test| 100.0 * test.top1),
    ];
    let values = |series: &[Vec<(f64, f64)>; 3]| -> Vec<f64> {
        series.iter().flatten().map(|point| point.1).filter(|value| value.is_finite()).collect()
    };
    let highest_loss = values(&loss).into_iter().fold(1e-3, f64::max);
    let lowest_top1 = values(&top1).into_iter().fold(90.0, f64::min);
    [
        Panel { title: "loss (nats)", low: 0.0, high: 1.05 * highest_loss, epochs, series: series(loss) },
        Panel { title: "top-1 (%)", low: (lowest_top1 / 10.0).floor() * 10.0, high: 100.0, epochs, series: series(top1) },
    ]
}

fn series(points: [Vec<(f64, f64)>; 3]) -> Vec<Series> {
    let styles = [("training", TRAIN), ("validation", VALIDATION), ("test", TEST)];
    let is_finite = |point: &(f64, f64)| point.1.is_finite();
    let series = styles.into_iter().zip(points).map(|((name, colour), points)| Series {
        name,
        colour,
        points: points.into_iter().filter(is_finite).collect(),
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

fn svg(loss: &Panel, top1: &Panel) -> Result<String, Failure> {
    register_fonts();
    let mut text = String::new();
    draw(SVGBackend::with_string(&mut text, SIZE).into_drawing_area(), loss, top1)?;
    Ok(text)
}

fn png(loss: &Panel, top1: &Panel) -> Result<Vec<u8>, Failure> {
    register_fonts();
    let mut pixels = vec![0; SIZE.0 as usize * SIZE.1 as usize * 3];
    draw(BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area(), loss, top1)?;
    let mut file = Vec::new();
    let encoded = PngEncoder::new(&mut file).write_image(&pixels, SIZE.0, SIZE.1, ExtendedColorType::Rgb8);
    encoded.map_err(|error| Failure::bug(format!("cannot encode curves.png: {error}")))?;
    Ok(file)
}

/// Gives plotters the only font that it knows.
fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A font that is refused shows as an error when text is drawn.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
}

fn draw<B: DrawingBackend>(area: DrawingArea<B, Shift>, loss: &Panel, top1: &Panel) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::bug(format!("cannot draw the curves: {error}"));
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let halves = area.split_evenly((1, 2));
    for (half, panel) in halves.iter().zip([loss, top1]) {
        draw_panel(half, panel).map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}

fn draw_panel<B: DrawingBackend>(area: &DrawingArea<B, Shift>, panel: &Panel) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let text = |size: u32| (FONT, size).into_font().color(&TEXT);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .caption(panel.title, text(20))
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(1.0..panel.epochs, panel.low..panel.high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(TEXT)
        .label_style(text(14))
        .x_desc("epoch")
        .x_labels(panel.epochs.min(10.0) as usize)
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .y_labels(6)
        .y_label_formatter(&|value| if panel.high > 10.0 { format!("{value:.0}") } else { format!("{value:.2}") })
        .draw()?;
    for series in &panel.series {
        let (colour, last) = (series.colour, series.points.last().copied());
        chart
            .draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?
            .label(series.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 18, y + 2)], colour.filled()));
        chart.draw_series(last.map(|point| Circle::new(point, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(if panel.low == 0.0 && panel.high < 100.0 {
            SeriesLabelPosition::UpperRight
        } else {
            SeriesLabelPosition::LowerRight
        })
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(text(14))
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> Vec<EpochMetrics> {
        let line = |epoch: u32| {
            let loss = 2.3 / f64::from(epoch);
            format!(
                r#"{{"epoch":{epoch},"step":{epoch},"learning_rate":0.1,"train_loss":{loss},"train_top1":{},"val_loss":{},"val_top1":{}}}"#,
                1.0 - loss / 3.0,
                loss + 0.1,
                0.95 - loss / 3.0
            )
        };
        (1..=12).map(|epoch| serde_json::from_str(&line(epoch)).unwrap()).collect()
    }

    #[test]
    fn both_pictures_show_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        write(&run, &[], None).unwrap();
        assert!(!folder.path().join("curves.svg").exists());
        write(&run, &history(), Some(TestPoint { epoch: 12, loss: 0.4, top1: 0.9 })).unwrap();
        let svg = std::fs::read_to_string(folder.path().join("curves.svg")).unwrap();
        for word in ["loss (nats)", "top-1 (%)", "training", "validation", "test", "epoch"] {
            assert!(svg.contains(word), "{word}");
        }
        let png = image::open(folder.path().join("curves.png")).unwrap().into_rgb8();
        assert_eq!(png.dimensions(), SIZE);
        for colour in [TRAIN, VALIDATION, TEST] {
            assert!(png.pixels().any(|pixel| pixel.0 == [colour.0, colour.1, colour.2]), "{colour:?}");
        }
        // Titles and labels, all within the margin above the curves.
        assert!(png.enumerate_pixels().any(|(_, y, pixel)| y < 40 && pixel.0.iter().all(|&value| value < 120)));
    }

    #[test]
    fn one_epoch_and_values_that_are_not_finite_can_be_drawn() {
        let mut history = history()[..1].to_vec();
        history[0].train_loss = f64::NAN;
        history[0].val_top1 = None;
        let [loss, top1] = panels(&history, None);
        assert_eq!(loss.series.len(), 1);
        svg(&loss, &top1).unwrap();
        png(&loss, &top1).unwrap();
    }
}
