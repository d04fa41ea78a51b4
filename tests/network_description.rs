//! Networks from configuration text: defaults, overrides, presets, messages of errors, and round trips.
#![forbid(unsafe_code)]

use leanresnet::net::{Block, BlockForm, Connection, ConnectionForm, Norm, Operator, Stem, parameters};
use leanresnet::{Error, Network, Stencil};
use proptest::prelude::*;

const STAGE: &str = "stages = [{ width = 8, blocks = 1 }]\n";

fn message(text: &str) -> String {
    match Network::from_toml(text) {
        Err(error @ Error::Invalid { .. }) => error.to_string(),
        other => panic!("{text}\n{other:?}"),
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let network = Network::from_toml(&format!("[network]\n{STAGE}")).unwrap();
    assert_eq!(network.input(), [3, 32, 32]);
    assert_eq!(network.classes(), 10);
    assert!(network.class_names().is_empty());
    assert_eq!((network.norm_epsilon(), network.norm_momentum()), (1e-5, 0.1));
    let stem = network.stem();
    assert_eq!((stem.kernel, stem.stride, stem.pool.name(), stem.norm, stem.bias), (3, 1, "none", Norm::Batch, false));
    let block = &network.stages()[0].block;
    assert_eq!((block.form, block.operator, block.stencils), (BlockForm::Residual, Operator::Lean, [Stencil::Cross5; 2]));
    assert_eq!((block.group_size, block.norm, block.norms), (1, Norm::Batch, 1));
    assert_eq!((block.relu_after_sum, block.scale, block.bias), (false, 1.0, false));
    let connection = network.connection();
    assert_eq!((connection.form, connection.norm, connection.bias), (ConnectionForm::PoolConv, Norm::Batch, false));
    assert_eq!(network, Network::builder().with_stage(8, 1).build().unwrap());
}

#[test]
fn every_key_is_read() {
    let network = Network::from_toml(
        r#"
        version = 1
        [network]
        input = [1, 28, 30]
        class_names = ["cat", "dog \"rex\""]
        norm_epsilon = 1e-3
        norm_momentum = 0.01
        stages = [{ width = 32, blocks = 3 }, { width = 64, blocks = 2, stencil = "box9", norms = 0, scale = 0.5 }]
        [network.stem]
        kernel = 7
        stride = 2
        norm = "none"
        bias = true
        [network.block]
        form = "symmetric"
        stencil = ["cross4", "cross4"]
        norms = 2
        relu_after_sum = true
        [network.connection]
        form = "strided-conv"
        norm = "none"
        bias = true
        [data]
        name = "mnist"
        [train]
        epochs = 3
        "#,
    )
    .unwrap();
    let block =
        Block::default().with_form(BlockForm::Symmetric).with_stencil(Stencil::Cross4).with_norms(2).with_relu_after_sum(true);
    let folded = block.clone().with_stencil(Stencil::Box9).with_norms(0).with_scale(0.5).with_bias(true);
    let built = Network::builder()
        .with_input([1, 28, 30])
        .with_class_names(["cat", "dog \"rex\""])
        .with_norm_epsilon(1e-3)
        .with_norm_momentum(0.01)
        .with_stem(&Stem::default().with_kernel(7).with_stride(2).with_norm(Norm::None).with_bias(true))
        .with_block(&block)
        .with_connection(&Connection::default().with_form(ConnectionForm::StridedConv).with_norm(Norm::None).with_bias(true))
        .with_stage(32, 3)
        .with_stage_of(64, 2, &folded)
        .build()
        .unwrap();
    assert_eq!(network, built);
    assert_eq!(network.classes(), 2);
    assert_eq!(network.stage_sizes(), [[14, 15], [7, 8]]);
}

#[test]
fn presets_are_those_of_the_comparison_with_other_engines() {
    let stages = |name| -> Vec<(usize, usize)> {
        Network::preset(name).unwrap().stages().iter().map(|stage| (stage.width, stage.blocks)).collect()
    };
    assert_eq!(stages("small"), [(32, 3), (64, 3), (128, 3)]);
    assert_eq!(stages("base"), [(64, 5), (128, 5), (256, 5)]);
    assert_eq!(stages("imagenet"), [(64, 3), (128, 4), (256, 6), (512, 3)]);
    let imagenet = Network::preset("imagenet").unwrap();
    assert_eq!((imagenet.input(), imagenet.classes()), ([3, 224, 224], 1000));
    assert_eq!(imagenet.stage_sizes(), [[56, 56], [28, 28], [14, 14], [7, 7]]);
    assert_eq!(imagenet.to_string(), "3x224x224, stages 64x3 128x4 256x6 512x3 (lean cross5), 1000 classes");
    for name in Network::PRESETS {
        assert!(Network::preset(name).is_ok());
    }
    let error = Network::preset("huge").unwrap_err().to_string();
    assert_eq!(error, "preset; expected one of small, base, imagenet, cifar10-s, cifar10-m, cifar10-fast, got `huge`");
}

#[test]
fn presets_for_accuracy_state_their_blocks() {
    let network = Network::preset("cifar10-s").unwrap();
    assert_eq!(network.to_string(), "3x32x32, stages 48x4 96x3 192x2 (lean box9), 10 classes");
    assert_eq!(network.parameter_count(), 267_130);
    assert!(network.stages().iter().all(|stage| (stage.block.norms, stage.block.relu_after_sum) == (2, true)));
    let network = Network::preset("cifar10-m").unwrap();
    assert_eq!(network.to_string(), "3x32x32, stages 64x6 128x5 256x4 (lean box9), 10 classes");
    assert_eq!((network.parameter_count(), network.macs()), (828_490, 143_002_112));
    let text = "[network]\npreset = \"cifar10-s\"\nclasses = 100\n[network.block]\nstencil = \"cross5\"";
    let other = Network::from_toml(text).unwrap();
    assert_eq!((other.classes(), other.stages()[1].block.norms), (100, 2));
    assert_eq!(other.stages()[2].block.stencils, [Stencil::Cross5; 2]);
}

#[test]
fn keys_override_a_preset_one_by_one() {
    let text = "[network]\npreset = \"imagenet\"\nclass_names = [\"a\", \"b\"]\n[network.stem]\nbias = true\n[network.block]\nscale = 0.5";
    let network = Network::from_toml(text).unwrap();
    let preset = Network::preset("imagenet").unwrap();
    assert_eq!(network.classes(), 2);
    assert_eq!(network.stem(), &preset.stem().clone().with_bias(true));
    assert!(network.stages().iter().all(|stage| stage.block.scale == 0.5));
    assert_eq!(network.stage_sizes(), preset.stage_sizes());
    let replaced = Network::builder().with_preset("imagenet").with_stage(8, 1).build().unwrap();
    assert_eq!((replaced.stages().len(), replaced.input()), (1, [3, 224, 224]));
    assert_eq!(preset.to_builder().build().unwrap(), preset);
    assert_eq!(preset.to_builder().without_stages().with_stage(8, 1).build().unwrap(), replaced);
}

#[test]
fn norms_of_zero_imply_a_bias_unless_it_is_stated() {
    let bias =
        |block: &str| Network::from_toml(&format!("[network]\n{STAGE}[network.block]\n{block}")).unwrap().stages()[0].block.bias;
    assert!(bias("norms = 0"));
    assert!(!bias("norms = 0\nbias = false"));
    assert!(bias("norms = 1\nbias = true"));
    assert!(!bias("norms = 1"));
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        ("network = 3", "configuration, line 1, column 11; expected struct NetworkTable, got invalid type: integer `3`"),
        ("", "configuration; expected a table [network], got none"),
        (
            "[network]",
            "network.stages; expected a list of stages, or a preset (small, base, imagenet, cifar10-s, cifar10-m, cifar10-fast), got neither",
        ),
        ("version = 2\n[network]\npreset = \"small\"", "version of the configuration; expected 1, got 2"),
        (
            "[network]\npreset = \"tiny\"",
            "preset; expected one of small, base, imagenet, cifar10-s, cifar10-m, cifar10-fast, got `tiny`",
        ),
        (
            "[networks]",
            "configuration, line 1, column 2; expected one of `version`, `network`, `data`, `train`, got unknown field `networks`",
        ),
        (
            "[network]\npreset = \"small\"\n[network.stem]\nkernle = 3",
            "configuration, line 4, column 1; expected one of `kernel`, `stride`, `pool`, `norm`, `bias`, got unknown field `kernle`",
        ),
        ("[network]\nclasses = \"ten\"", "configuration, line 2, column 11; expected usize, got invalid type: string \"ten\""),
        ("[network]\nclasses = -1", "configuration, line 2, column 11; expected usize, got invalid value: integer `-1`"),
        (
            "[network.connection]\nform = \"conv\"",
            "configuration, line 2, column 8; expected one of `pool-conv`, `conv-pool`, `strided-conv`, got unknown variant `conv`",
        ),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
    // The parts that come from the TOML parser's own words.
    for (text, part) in [
        ("[network", "configuration, line 1, column 9"),
        ("[network]\nstages = [{ width = 8 }]", "missing field `blocks`"),
        ("[network]\nstages = [{ width = 8, blocks = 1, colour = 1 }]", "unknown field `colour`"),
        ("[network]\nstages = [{ width = 8, blocks = 1, stencil = \"star\" }]", "unknown variant `star`"),
        ("[network.block]\nstencil = [\"cross5\"]", "invalid length 1"),
        ("[network.block]\nstencil = [\"cross5\", \"cross5\", \"cross5\"]", "invalid length 3"),
        ("[network.block]\nstencil = 5", "invalid type: integer `5`"),
        ("[network]\nnorm_epsilon = 1e-5\nnorm_epsilon = 1e-5", "duplicate key"),
        ("[network]\ninput = [3, 32]", "configuration, line 2, column 9"),
    ] {
        let message = message(text);
        assert!(message.contains(part), "{text}\n{message}");
    }
}

#[test]
fn choices_that_do_not_fit_together_or_are_of_later_versions_are_refused_by_name() {
    for (text, expected) in [
        (
            "[network.block]\nform = \"symmetric\"\noperator = \"separable\"",
            "network.block.operator (stage 0); expected lean or dense in a symmetric block, whose second convolution is the transpose of \
             the first, got `separable`",
        ),
        (
            "[network.block]\noperator = \"shift\"\ngroup_size = 2",
            "network.block.group_size (stage 0); expected 1 for shifts, which move single channels, got 2",
        ),
        (
            "[network.block]\nform = \"symmetric\"\nstencil = [\"row3\", \"col3\"]",
            "network.block.stencil (stage 0); expected one stencil in a symmetric block, whose second convolution is the transpose of \
             the first, got `row3` and `col3`",
        ),
        (
            "[network.block]\nnorm = \"tv\"",
            "network.block.norm (stage 0): not supported yet; expected one of the supported: batch, got `tv`",
        ),
        (
            "[network.stem]\nnorm = \"tv\"",
            "network.stem.norm: not supported yet; expected one of the supported: batch, none, got `tv`",
        ),
        (
            "[network.stem]\npool = \"max3\"",
            "network.stem.pool: not supported yet; expected one of the supported: none, got `max3`",
        ),
        (
            "[network.connection]\nnorm = \"tv\"",
            "network.connection.norm: not supported yet; expected one of the supported: batch, none, got `tv`",
        ),
    ] {
        assert_eq!(message(&format!("[network]\n{STAGE}{text}")), expected);
    }
    assert_eq!(
        message("[network]\nstages = [{ width = 64, blocks = 1, group_size = 64 }]"),
        "network.block.group_size (stage 0): not supported yet; expected one of the supported: 1, 2, 4, 8, 16, 32, got `64`"
    );
    assert!(Network::from_toml(&format!("[network]\n{STAGE}[network.block]\noperator = \"dense\"\nstencil = \"box25\"")).is_ok());
}

#[test]
fn values_out_of_range_are_refused() {
    for (text, expected) in [
        ("input = [0, 32, 32]", "network.input channels; expected 1 to 65536, got 0"),
        ("input = [3, 32, 65537]", "network.input width; expected 1 to 65536, got 65537"),
        ("input = [3, 65536, 65536]", "network: activations of one image; expected at most 2147483648 values, got 34359738368"),
        ("classes = 0", "network.classes; expected 1 to 65536, got 0"),
        ("classes = 3\nclass_names = [\"a\"]", "class_names; expected 3 names, as there are classes, got 1"),
        ("class_names = [\"a\\nb\"]", "class_names; expected names of 1 to 256 printable bytes, got \"a\\nb\""),
        ("class_names = []", "network.classes; expected 1 to 65536, got 0"),
        ("norm_epsilon = 0.0", "network.norm_epsilon; expected a number above 0, at most 1, got 0"),
        ("norm_epsilon = nan", "network.norm_epsilon; expected a number above 0, at most 1, got NaN"),
        ("norm_momentum = 1.5", "network.norm_momentum; expected a number above 0, at most 1, got 1.5"),
        ("stem.kernel = 5", "network.stem.kernel; expected one of 1, 3, 7, got 5"),
        ("stem.stride = 3", "network.stem.stride; expected one of 1, 2, 4, got 3"),
        ("block.norms = 3", "network.block.norms (stage 0); expected one of 0, 1, 2, got 3"),
        ("block.scale = inf", "network.block.scale (stage 0); expected a number that is finite, got inf"),
        ("block.group_size = 3", "network.block.group_size (stage 0); expected a divisor of the width 8, got 3"),
        ("block.group_size = 0", "network.block.group_size (stage 0); expected a divisor of the width 8, got 0"),
        (
            "block.norm = \"none\"",
            "network.block.norm (stage 0); expected batch or tv (norms = 0 leaves the norms out), got `none`",
        ),
    ] {
        assert_eq!(message(&format!("[network]\n{STAGE}{text}")), expected);
    }
    for (stages, expected) in [
        ("", "network.stages; expected 1 to 64 stages, got 0"),
        ("{ width = 0, blocks = 1 }", "network.stages[0].width; expected 1 to 65536, got 0"),
        ("{ width = 8, blocks = 0 }", "network.stages[0].blocks; expected at least 1, at most 1024 in all stages, got 0"),
        (
            "{ width = 8, blocks = 1000 }, { width = 8, blocks = 25 }",
            "network.stages[1].blocks; expected at least 1, at most 1024 in all stages, got 25",
        ),
        ("{ width = 65536, blocks = 1 }", "network: parameters; expected at most 2147483648, got 8594063372"),
    ] {
        assert_eq!(message(&format!("[network]\nstages = [{stages}]")), expected);
    }
    let deep = "{ width = 1, blocks = 1 }, ".repeat(7);
    assert_eq!(
        message(&format!("[network]\nstages = [{deep}]")),
        "network.stages[6] after the connection's pooling; expected at least 2x2 pixels before it, got 1x1"
    );
    assert!(Network::from_toml(&format!("[network]\nconnection.form = \"strided-conv\"\nstages = [{deep}]")).is_ok());
    // Numbers at the end of their range must not overflow on the way to an error.
    let largest = i64::MAX;
    message(&format!(
        "[network]\nstages = [{{ width = {largest}, blocks = {largest} }}, {{ width = {largest}, blocks = {largest} }}]"
    ));
    message(&format!("[network]\ninput = [{largest}, {largest}, {largest}]\n{STAGE}"));
}

fn networks() -> impl Strategy<Value = Network> {
    let choose = |names: &'static [&'static str]| proptest::sample::select(names);
    let block = (
        choose(&["residual", "symmetric"]),
        choose(&["lean", "dense"]),
        choose(&["cross4", "cross5", "box9"]),
        0..3_usize,
        any::<bool>(),
        -1e3..1e3_f32,
        any::<bool>(),
    )
        .prop_map(|(form, operator, stencil, norms, relu_after_sum, scale, bias)| {
            Block::default()
                .with_form(form.parse().unwrap())
                .with_operator(operator.parse().unwrap())
                .with_stencil(stencil.parse().unwrap())
                .with_norms(norms)
                .with_relu_after_sum(relu_after_sum)
                .with_scale(scale)
                .with_bias(bias)
        });
    let stem = (choose(&["1", "3", "7"]), choose(&["1", "2", "4"]), any::<bool>(), any::<bool>()).prop_map(
        |(kernel, stride, norm, bias)| {
            let norm = if norm { Norm::Batch } else { Norm::None };
            Stem::default()
                .with_kernel(kernel.parse().unwrap())
                .with_stride(stride.parse().unwrap())
                .with_norm(norm)
                .with_bias(bias)
        },
    );
    let connection =
        (choose(&["pool-conv", "conv-pool", "strided-conv"]), any::<bool>(), any::<bool>()).prop_map(|(form, norm, bias)| {
            let norm = if norm { Norm::Batch } else { Norm::None };
            Connection::default().with_form(form.parse().unwrap()).with_norm(norm).with_bias(bias)
        });
    let names = proptest::collection::vec("[^\\p{Cc}]{1,12}", 1..5);
    let numbers = (f32::MIN_POSITIVE..1.0, f32::MIN_POSITIVE..1.0);
    let stages = proptest::collection::vec((1..40_usize, 1..4_usize, block), 1..4);
    (1..5_usize, 32..80_usize, 32..80_usize, names, any::<bool>(), numbers, stem, connection, stages).prop_map(
        |(channels, height, width, names, named, (epsilon, momentum), stem, connection, stages)| {
            let builder = Network::builder()
                .with_input([channels, height, width])
                .with_norm_epsilon(epsilon)
                .with_norm_momentum(momentum)
                .with_stem(&stem)
                .with_connection(&connection);
            let builder = if named { builder.with_class_names(names) } else { builder.with_classes(names.len()) };
            let with_stage = |builder: leanresnet::net::NetworkBuilder, (width, blocks, block): (usize, usize, Block)| {
                builder.with_stage_of(width, blocks, &block)
            };
            stages.into_iter().fold(builder, with_stage).build().unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn networks_survive_toml_and_json(network in networks()) {
        prop_assert_eq!(&Network::from_toml(&network.to_toml()).unwrap(), &network, "{}", network.to_toml());
        let json = serde_json::to_string(&network).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Network>(&json).unwrap(), &network, "{}", json);
        prop_assert_eq!(&network.to_builder().build().unwrap(), &network);
    }

    #[test]
    fn names_of_parameters_are_distinct(network in networks()) {
        let mut names: Vec<String> = parameters(&network).into_iter().map(|parameter| parameter.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), count);
    }

    #[test]
    fn text_never_panics(text in "(\\[network\\]\n)?(preset = \"small\"\n)?[a-z_.]{0,12} ?=? ?[\\[{\"0-9a-z,= -]{0,20}") {
        let _ = Network::from_toml(&text);
    }
}
