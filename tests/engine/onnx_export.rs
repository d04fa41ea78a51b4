//! Exported ONNX files: what they say in f64 is what the oracle computes, and what sessions compute; names, metadata, unusual graphs.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use leanresnet::internals::onnx_proto::{Extent, GraphProto, ModelProto, TypeProto};
use leanresnet::net::{Block, BlockForm, Graph, Node, Operation, ParameterRole, Preprocess};
use leanresnet::onnx::{ExportOptions, as_graph, export, import};
use leanresnet::{Images, Isa, Model, Network, Pool, Stencil};
use prost::Message;

use crate::common::tolerance::widened;
use crate::graphs::{self, exact, graphs, random_graph, with_random_weights};
use crate::networks::{Case, cases, groups, wide};
use crate::onnx_interpreter::{Array, run};
use crate::session::{UNIT, assert_bits, build, channels_first, distances, oracle};

/// Images of a comparison.
const IMAGES: usize = 4;

/// What happens to norms.
#[derive(Clone, Copy)]
enum Norms {
    Folded,
    Kept,
}

impl Norms {
    fn options(self) -> ExportOptions {
        ExportOptions::default().with_keep_norm(matches!(self, Norms::Kept))
    }
}

fn file(model: &Model, norms: Norms) -> ModelProto {
    ModelProto::decode(&export(model, &norms.options()).unwrap()[..]).unwrap()
}

fn graph(model: &Model, norms: Norms) -> GraphProto {
    file(model, norms).graph.unwrap()
}

fn graph_model(model: &Model, norms: Norms) -> Model {
    as_graph(model, &norms.options()).unwrap()
}

/// What an exported file says that the logits of images, channels first, are.
fn logits_of_file(model: &Model, norms: Norms, images: &[f32]) -> Vec<f64> {
    let [channels, height, width] = model.input();
    let count = images.len() / (channels * height * width);
    let file = file(model, norms);
    check_form(file.graph.as_ref().unwrap());
    let logits = run(&file, Array { dims: vec![count, channels, height, width], values: widened(images) });
    assert_eq!(logits.dims, [count, model.classes()]);
    logits.values
}

/// Checks that nodes and values have names of their own, that nodes come after those that they read, that every tensor is read, and that
/// nodes have no attribute but those that the interpreter looks at.
fn check_form(graph: &GraphProto) {
    let window = &["kernel_shape", "strides", "pads"][..];
    let known = BTreeMap::from([
        ("Conv", [window, &["dilations", "group"]].concat()),
        ("MaxPool", window.to_vec()),
        ("AveragePool", [window, &["count_include_pad"]].concat()),
        ("BatchNormalization", vec!["epsilon"]),
        ("Gemm", vec!["transB"]),
        ("Flatten", vec!["axis"]),
    ]);
    let mut names = BTreeSet::new();
    let mut values: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(values.len(), graph.initializer.len());
    assert!(values.insert(&graph.input[0].name));
    for node in &graph.node {
        assert!(!node.name.is_empty() && names.insert(&node.name), "name `{}` of a node", node.name);
        assert!(node.input.iter().all(|name| values.contains(name.as_str())), "{}: {:?}", node.name, node.input);
        assert!(node.output.len() == 1 && values.insert(&node.output[0]), "{}: {:?}", node.name, node.output);
        for attribute in &node.attribute {
            let known = known.get(node.op_type.as_str()).is_some_and(|known| known.contains(&attribute.name.as_str()));
            assert!(known, "{}: {} {}", node.name, node.op_type, attribute.name);
        }
    }
    let read: BTreeSet<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
    assert!(graph.initializer.iter().all(|tensor| read.contains(&tensor.name)));
}

fn all_cases() -> impl Iterator<Item = Case> {
    cases().into_iter().chain(groups()).chain(wide())
}

/// Errors of the plain computation in f32, largest and Euclidean, times `factor`, and a few roundings of the largest logit.
fn allowed(case: &Case, model: &Model, exact: &[f64], factor: f64, unit: f64) -> [f64; 2] {
    let scale = exact.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    let naive = distances(&oracle::<f32>(case, model, IMAGES), exact);
    [factor * naive[0] + 4.0 * unit * scale, factor * naive[1] + 4.0 * unit * scale * (exact.len() as f64).sqrt()]
}

/// With kept norms nothing is rounded: file and oracle, both in f64, differ by as many roundings of f64 as the plain computation by
/// roundings of f32.
#[test]
fn files_with_norms_say_what_the_oracle_computes() {
    const UNIT_F64: f64 = 1.0 / (1_u64 << 53) as f64;
    let mut failures = Vec::new();
    for case in all_cases() {
        let model = case.model();
        let exact = oracle::<f64>(&case, &model, IMAGES);
        let logits = logits_of_file(&model, Norms::Kept, &channels_first(&case.network, &case.images(IMAGES)));
        let (error, allowed) = (distances(&logits, &exact), allowed(&case, &model, &exact, 16.0 * UNIT_F64 / UNIT, UNIT_F64));
        if error[0] > allowed[0] || error[1] > allowed[1] {
            failures.push(format!("{}: errors {error:?}, allowed {allowed:?}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Folding rounds every weight once: no worse than twice the plain computation in f32. The same for sessions, which fold too, and for
/// sessions of the file's graph, with and without norms.
#[test]
fn folded_files_are_no_worse_than_twice_the_plain_computation() {
    let mut failures = Vec::new();
    for case in all_cases() {
        let (model, images) = (case.model(), case.images(IMAGES));
        let exact = oracle::<f64>(&case, &model, IMAGES);
        let allowed = allowed(&case, &model, &exact, 2.0, UNIT);
        let images_first = channels_first(&case.network, &images);
        let session = |model: &Model| {
            let mut session = build(model, Isa::active().unwrap(), &Pool::inline(), IMAGES);
            let [channels, height, width] = model.input();
            let images = Images::nhwc_f32(&images, [IMAGES, channels, height, width]).unwrap();
            widened(session.run(images).unwrap().as_slice())
        };
        let logits = [
            ("file", logits_of_file(&model, Norms::Folded, &images_first)),
            ("session", session(&model)),
            ("session of the folded graph", session(&graph_model(&model, Norms::Folded))),
            ("session of the graph with norms", session(&graph_model(&model, Norms::Kept))),
            ("session of the imported file", session(&imported(&model, Norms::Folded))),
            ("session of the imported file with norms", session(&imported(&model, Norms::Kept))),
        ];
        for (what, logits) in &logits {
            let error = distances(logits, &exact);
            if error[0] > allowed[0] || error[1] > allowed[1] {
                failures.push(format!("{}, {what}: errors {error:?}, allowed {allowed:?}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A file that was written and read again.
fn imported(model: &Model, norms: Norms) -> Model {
    import(&export(model, &norms.options()).unwrap(), "exported.onnx").unwrap().model
}

/// The graph of a network runs on the weights and kernels of its session: the folding is the same to the bit. So does the file, read again.
#[test]
fn folded_graphs_have_the_bits_of_sessions() {
    for case in all_cases() {
        let (model, images) = (case.model(), case.images(IMAGES));
        let [channels, height, width] = model.input();
        let images = Images::nhwc_f32(&images, [IMAGES, channels, height, width]).unwrap();
        let [as_graph, again, expected] = [graph_model(&model, Norms::Folded), imported(&model, Norms::Folded), model]
            .map(|model| build(&model, Isa::active().unwrap(), &Pool::inline(), IMAGES).run(images).unwrap().as_slice().to_vec());
        assert_bits(case.name, &as_graph, &expected);
        // A stencil of a single group is a dense convolution to whoever reads the file.
        if case.network.stages().iter().all(|stage| stage.block.group_size < stage.width) {
            assert_bits(&format!("{}, imported", case.name), &again, &expected);
        }
    }
}

#[test]
fn files_of_graphs_say_what_the_interpreter_of_graphs_computes() {
    let random = (0..150).map(|seed| ("random", random_graph(seed)));
    for (name, graph) in graphs().into_iter().chain([("flat", flat())]).chain(random) {
        let (model, images) = (with_random_weights(&graph, 3), graphs::images(&graph, 2));
        let exact: Vec<f64> = images.chunks_exact(images.len() / 2).flat_map(|image| exact(&model, image)).collect();
        for norms in [Norms::Folded, Norms::Kept] {
            let logits = logits_of_file(&model, norms, &images);
            let [error, _] = distances(&logits, &exact);
            let scale = exact.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
            assert!(error <= 1e-12 * scale, "{name}: {error:.2e} of {scale:.2}: {:?}", graph.nodes());
        }
    }
}

/// Linear layers in the middle: what follows reads their outputs as images again, and sums have summands of both kinds. Names that the
/// file has for itself.
fn flat() -> Graph {
    let linear = |outputs| Operation::Conv {
        outputs,
        kernel: [1; 2],
        stride: 1,
        padding: [0; 4],
        dilation: 1,
        groups: 1,
        bias: outputs == 8,
    };
    let pool = Operation::MaxPool { kernel: [1; 2], stride: 1, padding: [0; 4] };
    let lean = Operation::Lean { stencil: Stencil::Cross5, group_size: 1, bias: true };
    let nodes = vec![
        Node::new("images", &[0], Operation::GlobalAveragePool),
        Node::new("logits", &[1], linear(8)),
        Node::new("lean", &[2], lean),
        Node::new("lean.flatten", &[3], Operation::Relu),
        Node::new("sum", &[2, 4], Operation::Add),
        Node::new("sum.flatten", &[4, 5], Operation::Add),
        Node::new("pool", &[6], pool),
        Node::new("twice", &[7, 6], Operation::Add),
        Node::new("last", &[8], linear(5)),
        // Read by nobody.
        Node::new("unread", &[8], linear(5)),
        Node::new("again", &[9], Operation::Flatten),
    ];
    Graph::new([3, 4, 5], nodes).unwrap()
}

/// `[batch, ...]` of a value's type.
fn extents(r#type: Option<&TypeProto>) -> Vec<String> {
    let shape = r#type.and_then(|kind| kind.tensor_type.as_ref()).and_then(|tensor| tensor.shape.as_ref()).unwrap();
    let text = |extent: &Option<Extent>| match extent {
        Some(Extent::Value(value)) => value.to_string(),
        Some(Extent::Param(name)) => name.clone(),
        None => panic!("an extent without value"),
    };
    shape.dim.iter().map(|dim| text(&dim.value)).collect()
}

#[test]
fn names_are_those_of_the_model() {
    let network = Network::builder()
        .with_input([3, 8, 6])
        .with_classes(2)
        .with_stage(4, 1)
        .with_stage_of(8, 1, &Block::default().with_norms(2).with_form(BlockForm::Symmetric).with_relu_after_sum(true))
        .build()
        .unwrap();
    let model = Model::random(&network, 1);
    let kept = graph(&model, Norms::Kept);
    assert_eq!((extents(kept.input[0].r#type.as_ref()).join(" "), &kept.input[0].name[..]), ("batch 3 8 6".into(), "images"));
    assert_eq!((extents(kept.output[0].r#type.as_ref()).join(" "), &kept.output[0].name[..]), ("batch 2".into(), "logits"));
    let nodes: Vec<String> = kept.node.iter().map(|node| format!("{} {}", node.op_type, node.name)).collect();
    let expected = [
        "Conv stem.conv",
        "BatchNormalization stem.norm",
        "Relu stem.relu",
        "Conv stages.0.0.conv1.spatial",
        "Conv stages.0.0.conv1.pointwise",
        "Add stages.0.0.conv1",
        "BatchNormalization stages.0.0.norm1",
        "Relu stages.0.0.relu1",
        "Conv stages.0.0.conv2.spatial",
        "Conv stages.0.0.conv2.pointwise",
        "Add stages.0.0.conv2",
        "Add stages.0.0.sum",
        "AveragePool connections.0.pool",
        "Conv connections.0.conv",
        "BatchNormalization connections.0.norm",
        "Relu connections.0.relu",
        "Conv stages.1.0.conv1.spatial",
        "Conv stages.1.0.conv1.pointwise",
        "Add stages.1.0.conv1",
        "BatchNormalization stages.1.0.norm1",
        "Relu stages.1.0.relu1",
        "Conv stages.1.0.conv1.transposed.spatial",
        "Conv stages.1.0.conv1.transposed.pointwise",
        "Add stages.1.0.conv1.transposed",
        "BatchNormalization stages.1.0.norm2",
        "Add stages.1.0.sum",
        "Relu stages.1.0.relu2",
        "GlobalAveragePool pool",
        "Flatten head.flatten",
        "Gemm head",
    ];
    assert_eq!(nodes, expected);
    let without_norms: Vec<&str> = expected.into_iter().filter(|node| !node.starts_with("Batch")).collect();
    let folded: Vec<String> =
        graph(&model, Norms::Folded).node.iter().map(|node| format!("{} {}", node.op_type, node.name)).collect();
    assert_eq!(folded, without_norms);
}

/// With kept norms the file has the very tensors of a model whose blocks are residual and of scale 1.
#[test]
fn kept_tensors_are_those_of_the_model() {
    for preset in Network::PRESETS.iter().filter(|preset| **preset != "imagenet") {
        let model = Model::random(&Network::preset(preset).unwrap(), 2);
        let graph = graph(&model, Norms::Kept);
        let stored: Vec<_> =
            model.parameters().into_iter().filter(|spec| spec.role != ParameterRole::NumBatchesTracked).collect();
        assert_eq!(graph.initializer.len(), stored.len(), "{preset}");
        for tensor in &graph.initializer {
            let (shape, values) = model.tensor(&tensor.name).unwrap_or_else(|| panic!("{preset}: {}", tensor.name));
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(tensor.raw_data == bytes, "{preset}: {}", tensor.name);
            assert_eq!(tensor.dims, shape.iter().map(|extent| *extent as i64).collect::<Vec<_>>(), "{preset}: {}", tensor.name);
        }
    }
}

#[test]
fn files_say_what_they_are() {
    let network = Network::builder().with_input([2, 4, 4]).with_class_names(["cat", "\"dog\"\n".trim_end()]).with_stage(4, 1);
    let model = Model::random(&network.build().unwrap(), 1)
        .with_preprocess(Preprocess::new(&[0.5, 0.25], &[0.125, 2.0]).with_resize(Some(9)))
        .and_then(|model| model.with_provenance("a test"))
        .unwrap();
    let file = file(&model, Norms::Folded);
    assert_eq!(
        (file.ir_version, &file.producer_name[..], &file.producer_version[..]),
        (8, "leanresnet", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!((file.opset_import.len(), file.opset_import[0].version, &file.opset_import[0].domain[..]), (1, 17, ""));
    let metadata: Vec<(&str, &str)> =
        file.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    let expected = [
        ("leanresnet", env!("CARGO_PKG_VERSION")),
        ("preprocess", r#"{"mean":[0.5,0.25],"std":[0.125,2.0],"resize":9}"#),
        ("class_names", r#"["cat","\"dog\""]"#),
        ("provenance", "a test"),
    ];
    assert_eq!(metadata, expected);
    for other in [graph_model(&model, Norms::Folded), imported(&model, Norms::Folded)] {
        assert_eq!((other.preprocess(), other.class_names()), (model.preprocess(), model.class_names()));
    }
}
