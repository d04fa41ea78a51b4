//! ONNX, the exchange format of other engines: their models here, ours there.
#![forbid(unsafe_code)]

mod proto;
