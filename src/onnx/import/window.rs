//! Windows of convolutions and pools: strides, dilations, padding in all the ways that ONNX has for it.
#![forbid(unsafe_code)]

use crate::onnx::import::draft::Window;
use crate::onnx::import::node::Node;
use crate::onnx::import::refusal::{Checked, refusal};

/// Largest kernel, stride, dilation or padding that is looked at: products of two of them are far from an overflow.
const LARGEST: usize = 1 << 20;

/// A window as ONNX has it, for rows and columns.
pub(super) struct Geometry {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    /// Above, left, below and right.
    pub(super) padding: [usize; 4],
    /// Pixels below and right that are no padding but only there so that extents are rounded up.
    pub(super) beyond: [usize; 2],
}

impl Geometry {
    /// The attributes of a node that puts this kernel onto images of this height and width.
    pub(super) fn of(node: &Node<'_>, kernel: [usize; 2], size: [usize; 2]) -> Checked<Self> {
        let mut geometry = Geometry {
            kernel,
            stride: numbers(node, "strides", 1)?.unwrap_or([1; 2]),
            dilation: numbers(node, "dilations", 1)?.unwrap_or([1; 2]),
            padding: [0; 4],
            beyond: [0; 2],
        };
        check_numbers("kernel", &kernel, 1)?;
        geometry.pad(node, size)?;
        let ceil_mode = node.integer("ceil_mode", 0)? != 0;
        for axis in 0..2 {
            let (padded, reach) = (geometry.padded(size, axis), geometry.reach(axis));
            if reach > padded {
                return Err(refusal("pixels under the kernel", format!("at most the {padded} of the padded image"), reach));
            }
            let stride = geometry.stride[axis];
            let rest = (padded - reach) % stride;
            if ceil_mode && rest > 0 {
                // One window more, unless it would begin in the padding.
                let begin = padded - reach - rest + stride;
                if begin < size[axis] + geometry.padding[axis] {
                    geometry.beyond[axis] = stride - rest;
                }
            }
        }
        Ok(geometry)
    }

    /// Sets the padding.
    fn pad(&mut self, node: &Node<'_>, size: [usize; 2]) -> Checked<()> {
        let explicit: Option<[usize; 4]> = numbers(node, "pads", 0)?;
        let auto = node.text("auto_pad", "NOTSET")?;
        match auto.as_str() {
            "NOTSET" => self.padding = explicit.unwrap_or_default(),
            "VALID" => {}
            "SAME_UPPER" | "SAME_LOWER" => {
                for axis in 0..2 {
                    let output = size[axis].div_ceil(self.stride[axis]);
                    let total = ((output - 1) * self.stride[axis] + self.reach(axis)).saturating_sub(size[axis]);
                    let before = if auto == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
                    (self.padding[axis], self.padding[axis + 2]) = (before, total - before);
                }
            }
            other => return Err(refusal("attribute auto_pad", "NOTSET, VALID, SAME_UPPER or SAME_LOWER", other)),
        }
        Ok(())
    }

    /// Pixels from the first to the last tap.
    pub(super) fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Height or width of the image with its padding.
    fn padded(&self, size: [usize; 2], axis: usize) -> usize {
        size[axis] + self.padding[axis] + self.padding[axis + 2]
    }

    /// The one stride of a window that has the same one for rows and columns, or of which only one is ever taken.
    pub(super) fn single_stride(&self, size: [usize; 2]) -> Checked<usize> {
        let [rows, columns] = self.stride;
        let steps = |axis: usize, stride: usize| (self.padded(size, axis) + self.beyond[axis] - self.reach(axis)) / stride;
        if rows == columns || steps(1, columns) == steps(1, rows) {
            Ok(rows)
        } else if steps(0, rows) == steps(0, columns) {
            Ok(columns)
        } else {
            Err(refusal("strides", "the same for rows and columns", format!("{:?}", self.stride)))
        }
    }

    /// The window with the same stride and dilation for rows and columns; kernels of one row or column have any dilation.
    pub(super) fn window(&self, size: [usize; 2]) -> Checked<Window> {
        let dilation = match (self.kernel, self.dilation) {
            ([1, 1], _) => 1,
            (_, [rows, columns]) if rows == columns => rows,
            ([1, _], [_, dilation]) | ([_, 1], [dilation, _]) => dilation,
            _ => return Err(refusal("dilations", "the same for rows and columns", format!("{:?}", self.dilation))),
        };
        let [top, left, bottom, right] = self.padding;
        let padding = [top, left, bottom + self.beyond[0], right + self.beyond[1]];
        Ok(Window { kernel: self.kernel, stride: self.single_stride(size)?, padding, dilation })
    }

    /// Whether all pixels are under a single window without padding.
    pub(super) fn is_global(&self, size: [usize; 2]) -> bool {
        self.padding == [0; 4] && self.beyond == [0; 2] && self.dilation == [1; 2] && self.kernel == size
    }
}

/// An attribute of so many numbers.
pub(super) fn numbers<const N: usize>(node: &Node<'_>, name: &str, least: usize) -> Checked<Option<[usize; N]>> {
    let Some(given) = node.integers(name)? else { return Ok(None) };
    let numbers: Vec<usize> = given.iter().map(|&number| usize::try_from(number).unwrap_or(usize::MAX)).collect();
    let Ok(numbers) = <[usize; N]>::try_from(numbers) else {
        let expected = format!("{N} numbers, of images with height and width");
        return Err(refusal(format!("attribute {name}"), expected, format!("{} numbers", given.len())));
    };
    check_numbers(&format!("attribute {name}"), &numbers, least)?;
    Ok(Some(numbers))
}

fn check_numbers(what: &str, numbers: &[usize], least: usize) -> Checked<()> {
    if numbers.iter().all(|number| (least..=LARGEST).contains(number)) {
        return Ok(());
    }
    Err(refusal(what, format!("numbers from {least} to {LARGEST}"), "others"))
}
