//! The answers of the verbs, as text and as JSON.
#![forbid(unsafe_code)]

use serde_json::Value;

use crate::support::{Ran, Scratch, bytes, npy_images};

#[test]
fn doctor() {
    let scratch = Scratch::new();
    let keys = "version commit compiler c_kernels isas isa threads threads_from cpu caches wide_tiles peak_gflops load_peak_gflops bandwidth_gbs auto_dtype auto_near_f32_dtype calibration_gflops profile warnings";
    let answer = scratch.run(&["doctor", "--json", "--threads", "1"]).expect(0).json("doctor", keys);
    assert_eq!((&answer["threads"], &answer["threads_from"]), (&1.into(), &"--threads".into()));
    assert!(answer["isas"].as_array().unwrap().contains(&answer["isa"]));
    let text = scratch.run(&["doctor"]).expect(0).stdout;
    assert!(text.contains("instruction sets") && text.contains("\n--dtype auto "), "{text}");
}

#[test]
fn doctor_says_what_auto_goes_by() {
    let scratch = Scratch::new();
    let answer = scratch.run(&["doctor", "--json"]).expect(0).json("doctor", "");
    for isa in answer["isas"].as_array().unwrap().iter().map(|isa| isa.as_str().unwrap()) {
        let answer = scratch.run(&["doctor", "--json", "--isa", isa]).expect(0).json("doctor", "auto_dtype");
        let speeds = answer["calibration_gflops"].as_object().unwrap();
        if ["neonbf16", "avx512bf16", "amx"].contains(&isa) {
            let [single, half] = ["f32", "bf16"].map(|dtype| speeds[dtype].as_f64().unwrap());
            assert_eq!(answer["auto_dtype"], if half >= 1.1 * single { "bf16" } else { "f32" }, "{answer}");
            let near = speeds.get("bf16x3").map_or(0.0, |gflops| gflops.as_f64().unwrap());
            assert_eq!(near > 0.0, isa == "amx", "{answer}");
            assert_eq!(answer["auto_near_f32_dtype"], if near >= 1.1 * single { "bf16x3" } else { "f32" }, "{answer}");
        } else {
            let f32 = &Value::from("f32");
            assert_eq!((&answer["auto_dtype"], &answer["auto_near_f32_dtype"], speeds.len()), (f32, f32, 0), "{answer}");
        }
    }
    let text = scratch.run(&["doctor", "--isa", "portable"]).expect(0).stdout;
    assert!(text.contains("\n--dtype auto        f32 (no kernels of bf16)\n"), "{text}");
}

#[test]
fn summary() {
    let scratch = Scratch::new();
    let keys = "parameters macs workspace_bytes training_bytes layers";
    let answer = scratch.run(&["summary", "--preset", "small", "--json"]).expect(0).json("summary", keys);
    assert_eq!(answer["macs"], 22_529_280);
    let layers = answer["layers"].as_array().unwrap();
    for key in ["name", "op", "output", "parameters", "macs", "kernel"] {
        assert!(layers[0].get(key).is_some(), "{key}");
    }
    assert!(layers.iter().any(|layer| layer["kernel"].is_string()));
    let text = scratch.run(&["summary", "--set", "network.block.stencil=box9"]).expect(0).stdout;
    assert!(text.contains("stages.0.0.conv1") && text.contains("lean box9"), "{text}");
}

#[test]
fn eval() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    let keys = "model dtype images loss top1 top5 ms_per_image classes confusion";
    let of_run = scratch.run(&["eval", "run", "--json"]).expect(0).json("eval", keys);
    assert_eq!((&of_run["images"], of_run["classes"].as_array().unwrap().len()), (&20.into(), 10));
    assert_eq!(of_run["confusion"].as_array().unwrap().len(), 10);
    let words =
        ["eval", "run/last.safetensors", "--data", "cifar10", "--data-dir", "data", "--batch", "7", "--json", "--threads", "1"];
    let of_file = scratch.run(&words).expect(0).json("eval", keys);
    assert_eq!((&of_run["loss"], &of_run["top1"]), (&of_file["loss"], &of_file["top1"]), "batch and threads change nothing");
    let text = scratch.run(&["eval", "run", "--split", "train"]).expect(0).stdout;
    assert!(text.contains("100 train images") && text.contains("airplane") && text.contains("confusion"), "{text}");
    let words = ["eval", "run", "--data", "synthetic", "--json"];
    assert_eq!(scratch.run(&words).expect(0).json("eval", keys)["images"], 2000);
}

/// The lines of an answer.
fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn auto_is_the_precision_that_it_says() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    let dtypes = ["f32", "bf16"];
    let evaluated = lines(&scratch.run(&["eval", "run", "--dtype", "f32,bf16,auto", "--json"]).expect(0));
    let of_auto = &evaluated[2];
    let same = dtypes.iter().position(|dtype| of_auto["dtype"] == *dtype).expect("a precision that computes");
    assert_eq!((&evaluated[same]["loss"], &evaluated[0]["dtype"]), (&of_auto["loss"], &"f32".into()));
    assert_ne!(evaluated[0]["loss"], evaluated[1]["loss"], "precisions differ");

    std::fs::write(scratch.path("x.npy"), npy_images(3)).unwrap();
    let predict = |dtype: &str, name: &str| {
        scratch.run(&["predict", "run", "--input", "x.npy", "--output", name, "--dtype", dtype, "--verbose"]).expect(0)
    };
    let stderr = predict("auto", "auto.npy").stderr;
    let dtype = dtypes.into_iter().find(|dtype| stderr.contains(&format!("computing in {dtype} on "))).expect("a precision");
    predict(dtype, "same.npy");
    assert!(bytes(&scratch.path("auto.npy")) == bytes(&scratch.path("same.npy")));

    let words = ["bench", "net", "--config", "config.toml", "--dtype", "auto", "--batch", "1,2", "--seconds", "0.02"];
    let cells = lines(&scratch.run(&[&words[..], &["--threads", "1", "--json"]].concat()).expect(0));
    let word = format!("_{}_", cells[0]["dtype"].as_str().unwrap());
    assert!(["_f32_", "_bf16_"].contains(&&word[..]) && cells[0]["dtype"] == cells[1]["dtype"], "{cells:?}");
    assert!(cells[0]["kernel"].as_str().unwrap().contains(&word), "{cells:?}");
}

#[test]
fn auto_is_f32_where_there_are_no_kernels_of_bf16() {
    let scratch = Scratch::new();
    let words = ["bench", "net", "--config", "config.toml", "--dtype", "auto", "--batch", "1", "--seconds", "0.02"];
    let portable = scratch.run(&[&words[..], &["--isa", "portable", "--json"]].concat()).expect(0).json("bench", CELL);
    assert_eq!((&portable["dtype"], &portable["isa"]), (&"f32".into(), &"portable".into()));
    let forced = scratch.command(&words).env("LEANRESNET_ISA", "portable").output().unwrap();
    let text = String::from_utf8(forced.stdout).unwrap();
    assert!(text.contains("  portable  f32  "), "{text}");
    scratch
        .run(&["bench", "train", "--dtype", "auto"])
        .expect_error(2, &["--dtype; expected f32 or bf16, got auto", "bench net"]);
    let message = "precision; expected one of f32, bf16, bf16x3, auto, auto-near-f32, got `f16`";
    scratch.run(&["predict", "--dtype", "f16", "x.png"]).expect_error(2, &[message]);
}

#[test]
fn predict_pictures() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    image::RgbImage::from_pixel(40, 30, image::Rgb([90, 90, 90])).save(scratch.path("grey.png")).unwrap();
    let ran = scratch.run(&["predict", "run", "grey.png", "grey.png", "--top", "3", "--json"]).expect(0);
    assert_eq!(ran.stdout.lines().count(), 2);
    let answer = ran.json("predict", "model file top");
    let top = answer["top"].as_array().unwrap();
    assert_eq!((top.len(), top[0]["class"].is_string(), top[0]["index"].is_number()), (3, true, true));
    assert!(top[0]["probability"].as_f64() >= top[1]["probability"].as_f64());
    assert!(scratch.run(&["predict", "run", "grey.png"]).expect(0).stdout.contains('%'));
    scratch.run(&["predict", "run", "config.toml"]).expect_error(3, &["config.toml", "PNG"]);
    scratch.run(&["predict", "run"]).expect_error(2, &["IMAGE"]);
}

#[test]
fn predict_arrays() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    std::fs::write(scratch.path("x.npy"), npy_images(3)).unwrap();
    let answer = scratch
        .run(&["predict", "run", "--input", "x.npy", "--output", "y.npy", "--json"])
        .expect(0)
        .json("predict", "model images shape output");
    assert_eq!(answer["shape"], serde_json::json!([3, 10]));
    let whole = bytes(&scratch.path("y.npy"));
    assert_eq!(whole.len(), 128 + 3 * 10 * 4);
    scratch.run(&["predict", "run", "--input", "x.npy", "--output", "z.npy", "--batch", "2", "--threads", "1"]).expect(0);
    assert!(whole == bytes(&scratch.path("z.npy")), "batch and threads change nothing");
    std::fs::write(scratch.path("x.npy"), b"\x93NUMPY\x01\x00\xff\xffshort").unwrap();
    scratch.run(&["predict", "run", "--input", "x.npy", "--output", "w.npy"]).expect_error(3, &["x.npy"]);
    assert!(!scratch.path("w.npy").exists());
}

/// A safetensors file of 32-bit floats, all 0, in the given order.
fn state_dict(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert((*name).to_owned(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] }));
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; end]].concat()
}

#[test]
fn import() {
    let scratch = Scratch::new();
    let network = "[network]\nstages = [{ width = 4, blocks = 1 }]\nclasses = 2\nblock = { norms = 0, bias = false }\nstem = { norm = \"none\" }\n";
    std::fs::write(scratch.path("net.toml"), network).unwrap();
    let tensors: [(&str, &[usize]); 7] = [
        ("stem.conv.weight", &[4, 3, 3, 3]),
        ("stages.0.0.conv1.spatial.weight", &[4, 1, 3, 3]),
        ("stages.0.0.conv1.pointwise.weight", &[4, 4, 1, 1]),
        ("stages.0.0.conv2.spatial.weight", &[4, 1, 3, 3]),
        ("stages.0.0.conv2.pointwise.weight", &[4, 4, 1, 1]),
        ("fc.weight", &[2, 4]),
        ("head.bias", &[2]),
    ];
    std::fs::write(scratch.path("theirs.safetensors"), state_dict(&tensors)).unwrap();
    let keys = "loaded ignored missing unexpected misshaped output";
    let words = ["import", "theirs.safetensors", "--config", "net.toml", "-o", "ours.safetensors", "--json"];
    let ran = scratch.run(&words).expect_error(3, &["1 missing, 1 unexpected", "--map"]);
    let answer: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&answer["missing"][0], &answer["unexpected"][0]), (&"head.weight".into(), &"fc.weight".into()));
    assert!(!scratch.path("ours.safetensors").exists());
    std::fs::write(scratch.path("map.txt"), "fc.* = head.*\n").unwrap();
    let words = [&words[..], &["--map", "map.txt", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]].concat();
    let answer = scratch.run(&words).expect(0).json("import", keys);
    assert_eq!((&answer["loaded"], &answer["output"]), (&7.into(), &"ours.safetensors".into()));
    assert!(scratch.run(&["summary", "ours.safetensors"]).expect(0).stdout.contains("2 classes"));
    // A plain state dict is no model: the hint says how to make one.
    scratch.run(&["eval", "theirs.safetensors"]).expect_error(3, &["import theirs.safetensors"]);
}

/// A network of one linear layer as ONNX, written by hand: an input [batch, 3, 32, 32], a global pool, a Flatten and a Gemm.
fn onnx_model(last_operator: &str) -> Vec<u8> {
    // A field of a message that is text, bytes or a message.
    let field = |number: u8, content: &[u8]| -> Vec<u8> {
        let length = [(content.len() % 128) as u8 | 128, (content.len() / 128) as u8];
        [&[number << 3 | 2], &length[..], content].concat()
    };
    let integer = |number: u8, value: u8| vec![number << 3, value];
    let node = |operator: &str, inputs: &[&str], output: &str| {
        let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
        field(1, &[inputs, field(2, output.as_bytes()), field(4, operator.as_bytes())].concat())
    };
    let extents: Vec<u8> = [[field(2, b"batch")].concat()]
        .into_iter()
        .chain([3, 32, 32].map(|extent| integer(1, extent)))
        .flat_map(|extent| field(1, &extent))
        .collect();
    let kind = field(2, &field(1, &[integer(1, 1), field(2, &extents)].concat()));
    let weight: Vec<u8> = (0..6).flat_map(|index| (index as f32 / 4.0 - 0.5).to_le_bytes()).collect();
    let tensor = [integer(1, 3), integer(1, 2), integer(2, 1), field(8, b"weight"), field(9, &weight)].concat();
    let graph = [
        node("GlobalAveragePool", &["image"], "pooled"),
        node("Flatten", &["pooled"], "vector"),
        node(last_operator, &["vector", "weight"], "logits"),
        field(5, &tensor),
        field(11, &[field(1, b"image"), kind].concat()),
        field(12, &field(1, b"logits")),
    ];
    [integer(1, 8), field(7, &graph.concat()), field(8, &integer(2, 20))].concat()
}

#[test]
fn import_of_onnx() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("theirs.onnx"), onnx_model("Gemm")).unwrap();
    let keys = "loaded ignored missing unexpected misshaped output opset producer nodes layers input classes";
    let words = ["import", "theirs.onnx", "-o", "ours.safetensors", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"];
    let answer = scratch.run(&[&words[..], &["--json"]].concat()).expect(0).json("import", keys);
    assert_eq!((&answer["nodes"], &answer["layers"], &answer["opset"]), (&3.into(), &2.into(), &20.into()));
    let text = scratch.run(&words).expect(0).stdout;
    assert!(text.contains("3 nodes of opset 20 became 2 layers, 3 x 32 x 32 to 2 classes"), "{text}");
    let text = scratch.run(&["summary", "ours.safetensors"]).expect(0).stdout;
    assert!(text.contains("imported graph") && text.contains("global average pool"), "{text}");
    // The file says what network it is, and is no model file itself.
    scratch.run(&[&words[..], &["--preset", "small"]].concat()).expect_error(2, &["--preset"]);
    scratch.run(&["eval", "theirs.onnx"]).expect_error(3, &["leanresnet import theirs.onnx -o model.safetensors"]);
    std::fs::write(scratch.path("theirs.onnx"), onnx_model("Einsum")).unwrap();
    scratch.run(&words).expect_error(3, &["theirs.onnx: 1 node that cannot be imported", "Einsum", "README"]);
    scratch.run(&["import", "theirs.safetensors", "-o", "x.safetensors"]).expect_error(2, &["--preset", "--config"]);
}

#[test]
fn completions() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = scratch.run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("leanresnet") && script.contains("summary"), "{shell}");
    }
}

/// The keys of one cell of `bench`.
const CELL: &str = "what preset shape op stencil variant batch threads isa dtype ms_per_image ms_min spread images_per_second gflops \
                    peak_gflops fraction load_peak_gflops load_fraction kernel group_size stride recompute training_bytes";

#[test]
fn bench() {
    let scratch = Scratch::new();
    let short = ["--seconds", "0.02", "--rounds", "2", "--threads", "1", "--json"];
    let bench = |words: &[&str]| scratch.run(&[&["bench"][..], words, &short].concat()).expect(0);
    let net = bench(&["net", "--config", "config.toml", "--batch", "1,3"]);
    assert_eq!(net.stdout.lines().count(), 2);
    let cell = net.json("bench", CELL);
    assert_eq!((&cell["what"], &cell["batch"], &cell["threads"]), (&"net".into(), &3.into(), &1.into()));
    assert!(cell["ms_min"].as_f64() <= cell["ms_per_image"].as_f64() && cell["kernel"].is_string());
    let words = ["layer", "--shape", "4x5x16,3x3x8", "--op", "lean,dense", "--stencil", "cross5,box9", "--isa", "portable"];
    let layer = bench(&words);
    assert_eq!(layer.stdout.lines().count(), 2 * (2 + 1));
    assert_eq!(layer.json("bench", CELL)["isa"], "portable");
    let words = ["layer", "--shape", "4x5x8", "--op", "lean,separable", "--variant", "fused,unfused"];
    let variants = bench(&words);
    assert_eq!(variants.stdout.lines().count(), 2 + 1);
    assert_eq!(variants.json("bench", CELL)["op"], "separable");
    let words = ["layer", "--shape", "5x4x8", "--op", "lean,separable,dense", "--group-size", "1,4", "--stride", "1,2"];
    let strides = bench(&[&words[..], &["--variant", "fused,unfused"]].concat());
    assert_eq!(strides.stdout.lines().count(), 2 * (2 * 2 + 2 + 1));
    let cell = strides.json("bench", CELL);
    assert_eq!((&cell["stride"], &cell["group_size"]), (&2.into(), &Value::Null));
    scratch
        .run(&["bench", "layer", "--stride", "3"])
        .expect_error(2, &["stride of a lean convolution; expected 1, 2 or 4, got 3"]);
    scratch.run(&["bench", "layer", "--group-size", "5"]).expect_error(2, &["group size; expected one of 1, 2, 4, 8, 16, 32"]);
    let train = bench(&["train", "--config", "config.toml", "--batch", "4"]);
    assert_eq!(train.json("bench", CELL)["what"], "train");
    let stages = bench(&["train", "--config", "config.toml", "--batch", "4", "--recompute", "none,stage"]);
    let bytes: Vec<u64> = stages
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|cell| cell["training_bytes"].as_u64().unwrap())
        .collect();
    assert!(bytes[1] < bytes[0], "{bytes:?}");
    let half = bench(&["train", "--config", "config.toml", "--batch", "4", "--dtype", "bf16"]).json("bench", CELL);
    assert_eq!(half["dtype"], "bf16");
    let layers = bench(&["train", "--config", "config.toml", "--batch", "4", "--layers"]);
    let cell: Value = serde_json::from_str(layers.stdout.lines().next().unwrap()).unwrap();
    assert!(cell["layers"].as_array().unwrap().iter().any(|layer| layer["name"] == "stem.conv weights"), "{cell}");
    let words = ["bench", "layer", "--shape", "4x4x8", "--seconds", "0.02", "--rounds", "1"];
    assert!(scratch.run(&words).expect(0).stdout.contains("GFLOP/s"));
    let text = scratch.run(&[&words[..], &["--group-size", "4", "--stride", "2"]].concat()).expect(0).stdout;
    assert!(text.contains("lean fused cross5 groups of 4 stride 2 4x4x8"), "{text}");
    scratch.run(&["bench", "layer", "--shape", "4x4"]).expect_error(2, &["HEIGHTxWIDTHxCHANNELS"]);
    scratch.run(&["bench", "net", "--seconds", "0"]).expect_error(2, &["--seconds"]);
    scratch.run(&["bench", "net", "--bach", "3"]).expect_error(2, &["--bach", "hint: leanresnet bench net --help"]);
}

#[test]
fn bench_layers() {
    let scratch = Scratch::new();
    let words = ["bench", "net", "--config", "config.toml", "--batch", "1,3", "--threads", "1,2", "--layers"];
    let words = [&words[..], &["--seconds", "0.02", "--rounds", "2"]].concat();
    let json = scratch.run(&[&words[..], &["--json"]].concat()).expect(0);
    assert_eq!(json.stdout.lines().count(), 4);
    let cell = json.json("bench", &format!("{CELL} layers"));
    let layers = cell["layers"].as_array().unwrap();
    let names: Vec<&str> = layers.iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["input", "stem.conv", "stages.0.0.conv1", "stages.0.0.conv2", "head"]);
    for layer in layers {
        let keys: Vec<&str> = layer.as_object().unwrap().keys().map(String::as_str).collect();
        for key in ["name", "ms", "gflops", "bytes", "bound", "fraction"] {
            assert!(keys.contains(&key), "{key} of {keys:?}");
        }
        assert!(layer["ms"].as_f64() > Some(0.0) && layer["bytes"].as_u64() > Some(0), "{layer}");
    }
    // Where nothing is multiplied, memory is the bound; 32 x 32 x 3 values are read and written.
    let (input, words_of_memory) = (&layers[0], ["l1", "l2", "l3", "dram"]);
    assert_eq!((input["gflops"].as_f64(), input["bytes"].as_u64()), (Some(0.0), Some(2 * 4 * 32 * 32 * 3)));
    assert!(words_of_memory.contains(&input["bound"].as_str().unwrap()) && input["fraction"].as_f64() > Some(0.0), "{input}");
    let text = scratch.run(&words).expect(0).stdout;
    assert!(text.contains("\nnet config, batch 3, threads 2, "), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("stages.0.0.conv2 ")).count(), 4, "{text}");
    assert!(text.contains("of bound"), "{text}");
    scratch.run(&["bench", "layer", "--layers"]).expect_error(2, &["--layers"]);
}
