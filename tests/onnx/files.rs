//! Files as other programs and this one write them.
#![forbid(unsafe_code)]

use leanresnet::internals::onnx_proto::{DataType, StringStringEntryProto, TensorProto, ValueInfoProto};
use leanresnet::onnx::import;

use crate::build::Builder;
use crate::check;
use crate::data::uniform;

fn small() -> Builder {
    let mut builder = Builder::new(&[2, 4, 4]);
    let weight = builder.floats(&[3, 2, 1, 1], &uniform(1, 6));
    let image = builder.node("Conv", &["x", &weight], &[]);
    builder.node("GlobalAveragePool", &[&image], &[]);
    builder
}

#[test]
fn weights_of_16_and_64_bits_become_f32() {
    let expected = check(&small(), "f32").tensor("node0.weight").unwrap().1.to_vec();
    let with = |tensor: TensorProto| {
        let mut builder = small();
        let own = &mut builder.graph().initializer[0];
        *own = TensorProto { name: own.name.clone(), dims: own.dims.clone(), ..tensor };
        import(&builder.bytes(), "test.onnx").unwrap().model.tensor("node0.weight").unwrap().1.to_vec()
    };
    let doubles = expected.iter().map(|value| f64::from(*value)).collect();
    let got = with(TensorProto { data_type: DataType::Double as i32, double_data: doubles, ..Default::default() });
    assert_eq!(got, expected);
    let halves: Vec<half::f16> = expected.iter().map(|value| half::f16::from_f32(*value)).collect();
    let raw_data = halves.iter().flat_map(|value| value.to_le_bytes()).collect();
    let got = with(TensorProto { data_type: DataType::Float16 as i32, raw_data, ..Default::default() });
    assert_eq!(got, halves.iter().map(|value| value.to_f32()).collect::<Vec<_>>());
    let halves: Vec<half::bf16> = expected.iter().map(|value| half::bf16::from_f32(*value)).collect();
    let int32_data = halves.iter().map(|value| i32::from(value.to_bits())).collect();
    let got = with(TensorProto { data_type: DataType::Bfloat16 as i32, int32_data, ..Default::default() });
    assert_eq!(got, halves.iter().map(|value| value.to_f32()).collect::<Vec<_>>());
}

#[test]
fn the_report_says_what_was_read() {
    let mut builder = small();
    builder.floats(&[1], &[1.0]);
    builder.node("Softmax", &["v0"], &[]);
    // What the output does not need is not looked at; writers of old list weights among the inputs.
    builder.graph().output = vec![ValueInfoProto { name: "v1".to_owned(), r#type: None }];
    builder.graph().input.push(ValueInfoProto { name: "w0".to_owned(), r#type: None });
    builder.model.producer_name = "writer".to_owned();
    builder.model.producer_version = "1.2".to_owned();
    let report = import(&builder.bytes(), "test.onnx").unwrap();
    assert_eq!((report.opset, report.nodes, report.loaded, report.ignored), (20, 2, 1, 1));
    assert_eq!(report.producer, "writer 1.2");
    let provenance = "imported from test.onnx, ONNX with opset 20, written by writer 1.2";
    assert_eq!(report.model.provenance(), provenance);
    assert_eq!((report.model.input(), report.model.classes()), ([2, 4, 4], 3));
}

#[test]
fn metadata_of_this_crate_comes_back() {
    let with = |entries: &[(&str, &str)]| {
        let mut builder = small();
        builder.model.metadata_props = entries
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: (*key).to_owned(), value: (*value).to_owned() })
            .collect();
        import(&builder.bytes(), "test.onnx")
    };
    let names = ("class_names", r#"["a","b","c"]"#);
    let preprocess = ("preprocess", r#"{"mean":[0.5,0.25],"std":[0.5,0.125]}"#);
    let model = with(&[("leanresnet", "0.1.0"), names, preprocess]).unwrap().model;
    assert_eq!(model.class_names(), ["a", "b", "c"]);
    assert_eq!(model.preprocess(), &leanresnet::net::Preprocess::new(&[0.5, 0.25], &[0.5, 0.125]));
    // Of other programs nothing is taken over.
    assert!(with(&[names]).unwrap().model.class_names().is_empty());
    let refused = |entries: &[(&str, &str)], part: &str| {
        let message = with(entries).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    refused(&[("leanresnet", "0.1.0"), ("class_names", "a, b")], "metadata `class_names`; expected the JSON");
    refused(&[("leanresnet", "0.1.0"), ("class_names", r#"["a"]"#)], "expected");
}
