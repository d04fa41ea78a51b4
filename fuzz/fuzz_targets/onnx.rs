#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| leanresnet_fuzz::onnx(data));
