//! Random graphs of all operators.
#![forbid(unsafe_code)]

use crate::build::Attribute::{Float, Int, Ints, Text};
use crate::build::{Attribute, Builder};
use crate::check;
use crate::data::{Random, uniform};

struct Writer {
    builder: Builder,
    random: Random,
    seed: u64,
    /// Names and shapes of the images so far.
    images: Vec<(String, [usize; 3])>,
}

impl Writer {
    fn weights(&mut self, dims: &[usize], scale: f32, offset: f32) -> String {
        self.seed += 1;
        let values: Vec<f32> = uniform(self.seed, dims.iter().product()).iter().map(|value| offset + scale * value).collect();
        self.builder.floats(dims, &values)
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len())]
    }

    fn add(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)], shape: [usize; 3]) {
        let name = self.builder.node(operator, inputs, attributes);
        self.images.push((name, shape));
    }

    /// Padding as an attribute, explicit or automatic, and the extents of the output.
    fn padding(
        &mut self,
        size: [usize; 2],
        kernel: [usize; 2],
        stride: usize,
        dilation: usize,
    ) -> (Vec<(&'static str, Attribute)>, [usize; 2]) {
        let reach = kernel.map(|taps| (taps - 1) * dilation + 1);
        let output = |pads: [usize; 4]| [0, 1].map(|axis| (size[axis] + pads[axis] + pads[axis + 2] - reach[axis]) / stride + 1);
        match self.random.below(4) {
            0 => (vec![("auto_pad", Text("SAME_UPPER"))], size.map(|extent| extent.div_ceil(stride))),
            1 => (vec![("auto_pad", Text("SAME_LOWER"))], size.map(|extent| extent.div_ceil(stride))),
            2 if reach[0] <= size[0] && reach[1] <= size[1] => (vec![("auto_pad", Text("VALID"))], output([0; 4])),
            _ => {
                let pads = [reach[0] / 2, reach[1] / 2, reach[0] / 2, reach[1] / 2];
                (vec![("pads", Ints(pads.iter().map(|&pixels| pixels as i64).collect()))], output(pads))
            }
        }
    }

    fn conv(&mut self, x: &str, [channels, height, width]: [usize; 3]) {
        let groups = self.choose(&[1, 1, channels, if channels % 2 == 0 { 2 } else { 1 }]);
        let outputs = groups * self.choose(&[1, 2, 4]);
        let kernel = [self.choose(&[1, 3, 3, 2]), self.choose(&[1, 3, 3, 5])];
        let (stride, dilation) = (self.choose(&[1, 1, 2, 3]), if kernel == [3, 3] { self.choose(&[1, 1, 2]) } else { 1 });
        let members = channels / groups;
        let scale = (3.0 / (members * kernel[0] * kernel[1]) as f32).sqrt();
        let weight = self.weights(&[outputs, members, kernel[0], kernel[1]], scale, 0.0);
        let bias = (self.random.below(2) == 0).then(|| self.weights(&[outputs], 0.5, 0.0));
        let (mut attributes, [rows, columns]) = self.padding([height, width], kernel, stride, dilation);
        attributes.push(("strides", Ints(vec![stride as i64; 2])));
        attributes.push(("dilations", Ints(vec![dilation as i64; 2])));
        attributes.push(("group", Int(groups as i64)));
        let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
        self.add("Conv", &inputs, &attributes, [outputs, rows, columns]);
    }

    fn pool(&mut self, x: &str, [channels, height, width]: [usize; 3]) {
        let kernel = [self.choose(&[2, 3]), self.choose(&[2, 3])];
        if height < kernel[0] || width < kernel[1] {
            return;
        }
        let stride = self.choose(&[1, 2, 3]);
        let is_ceil = self.random.below(3) == 0;
        let pads = if self.random.below(2) == 0 { [1, 0, 0, 1] } else { [0; 4] };
        let size = [height, width];
        let output = [0, 1].map(|axis| {
            let padded = size[axis] + pads[axis] + pads[axis + 2] - kernel[axis];
            let count = if is_ceil { padded.div_ceil(stride) } else { padded / stride } + 1;
            if is_ceil && (count - 1) * stride >= size[axis] + pads[axis] { count - 1 } else { count }
        });
        let mut attributes = vec![
            ("kernel_shape", Ints(kernel.map(|taps| taps as i64).to_vec())),
            ("strides", Ints(vec![stride as i64; 2])),
            ("pads", Ints(pads.iter().map(|&pixels| pixels as i64).collect())),
            ("ceil_mode", Int(i64::from(is_ceil))),
        ];
        let is_max = self.random.below(2) == 0;
        if !is_max && !is_ceil {
            attributes.push(("count_include_pad", Int(self.random.below(2) as i64)));
        }
        self.add(if is_max { "MaxPool" } else { "AveragePool" }, &[x], &attributes, [channels, output[0], output[1]]);
    }

    fn per_channel(&mut self, x: &str, shape: [usize; 3]) {
        let channels = shape[0];
        match self.random.below(3) {
            0 => {
                let (scale, mean) = (self.weights(&[channels], 0.5, 1.0), self.weights(&[channels], 0.5, 0.0));
                let (bias, variance) = (self.weights(&[channels], 0.5, 0.0), self.weights(&[channels], 0.5, 1.0));
                let epsilon = Float(self.choose(&[1e-5, 1e-3]));
                self.add("BatchNormalization", &[x, &scale, &bias, &mean, &variance], &[("epsilon", epsilon)], shape);
            }
            1 => {
                let all: [&[usize]; 4] = [&[channels, 1, 1], &[1, channels, 1, 1], &[1], &[]];
                let dims = self.choose(&all);
                let constant = self.weights(dims, 0.3, 1.0);
                let operator = self.choose(&["Add", "Mul", "Sub", "Div"]);
                self.add(operator, &[x, &constant], &[], shape);
            }
            _ => {
                let constant = self.weights(&[channels, 1, 1], 0.3, 1.0);
                let operator = self.choose(&["Add", "Mul", "Sub"]);
                self.add(operator, &[&constant, x], &[], shape);
            }
        }
    }

    fn pad(&mut self, x: &str, [channels, height, width]: [usize; 3]) {
        let pads: Vec<i64> = [0, 0, self.random.below(3), self.random.below(3), 0, 0, self.random.below(3), 1]
            .into_iter()
            .map(|pixels| pixels as i64)
            .collect();
        let shape = [channels, height + (pads[2] + pads[6]) as usize, width + (pads[3] + pads[7]) as usize];
        let pads = self.builder.integers(&pads);
        self.add("Pad", &[x, &pads], &[], shape);
    }

    fn sum(&mut self, x: &str, shape: [usize; 3]) {
        let same: Vec<String> = self.images.iter().filter(|(_, other)| *other == shape).map(|(name, _)| name.clone()).collect();
        let others: Vec<&str> = (0..=self.random.below(2)).map(|_| same[self.random.below(same.len())].as_str()).collect();
        let terms: Vec<&str> = std::iter::once(x).chain(others.iter().copied()).collect();
        match terms.len() {
            2 if self.random.below(4) == 0 => self.add("Sub", &terms, &[], shape),
            2 => self.add("Add", &terms, &[], shape),
            _ => self.add("Sum", &terms, &[], shape),
        }
    }

    /// One number per class, in one of the ways that networks end.
    fn finish(&mut self, x: &str, [channels, height, width]: [usize; 3]) {
        let (vector, inputs) = match self.random.below(4) {
            0 => {
                let pooled = self.builder.node("GlobalAveragePool", &[x], &[]);
                (self.builder.node("Flatten", &[&pooled], &[]), channels)
            }
            1 => {
                let axes = self.builder.integers(&[-1, -2]);
                (self.builder.node("ReduceMean", &[x, &axes], &[("keepdims", Int(0))]), channels)
            }
            2 => {
                let shape = self.builder.integers(&[0, -1]);
                (self.builder.node("Reshape", &[x, &shape], &[]), channels * height * width)
            }
            _ => (self.builder.node("Flatten", &[x], &[("axis", Int(1))]), channels * height * width),
        };
        let scale = (3.0 / inputs as f32).sqrt();
        let bias = self.weights(&[5], 0.5, 0.0);
        if self.random.below(2) == 0 {
            let matrix = self.weights(&[5, inputs], scale, 0.0);
            self.builder.node(
                "Gemm",
                &[&vector, &matrix, &bias],
                &[("transB", Int(1)), ("alpha", Float(0.5)), ("beta", Float(2.0))],
            );
        } else {
            let matrix = self.weights(&[inputs, 5], scale, 0.0);
            let product = self.builder.node("MatMul", &[&vector, &matrix], &[]);
            self.builder.node("Add", &[&bias, &product], &[]);
        }
    }
}

#[test]
fn random_graphs_compute_what_onnx_says() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let input = [1 + random.below(4), 6 + random.below(8), 6 + random.below(8)];
        let mut writer =
            Writer { builder: Builder::new(&input), random, seed: 1000 * seed, images: vec![("x".to_owned(), input)] };
        for _ in 0..=writer.random.below(14) {
            let back = writer.random.below(3).min(writer.images.len() - 1);
            let (x, shape) = writer.images[writer.images.len() - 1 - back].clone();
            match writer.random.below(12) {
                0..=2 => writer.conv(&x, shape),
                3 => writer.pool(&x, shape),
                4 | 5 => writer.per_channel(&x, shape),
                6 => writer.pad(&x, shape),
                7 | 8 => writer.sum(&x, shape),
                9 => {
                    let operator = writer.choose(&["Identity", "Dropout"]);
                    writer.add(operator, &[&x], &[], shape);
                }
                _ => writer.add("Relu", &[&x], &[], shape),
            }
        }
        let (x, shape) = writer.images.last().unwrap().clone();
        writer.finish(&x, shape);
        check(&writer.builder, &format!("seed {seed}"));
    }
}
