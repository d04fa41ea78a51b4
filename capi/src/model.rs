//! Models: reading them, and what there is to know about one.

use std::ffi::{CStr, CString, c_char};

use leanresnet::Result;

use crate::boundary::Boundary;
use crate::error::ErrorText;
use crate::pointer::{Output, elements, file_name, handle, invalid, misshaped, release};
use crate::status::Status;

/// A network with its weights, how bytes become its inputs, and the names of its classes. It never changes.
///
/// Thread safety: any number of threads may use one model at the same time. Its release must be the last use.
pub struct Model {
    pub(crate) model: leanresnet::Model,
    class_names: Vec<CString>,
}

impl Model {
    fn new(model: leanresnet::Model) -> Self {
        let c_string = |name: &String| CString::new(name.as_str()).expect("names of classes hold no control characters");
        Self { class_names: model.class_names().iter().map(c_string).collect(), model }
    }

    /// The name of a class; empty if the model has no names.
    fn class_name(&self, class: usize) -> Result<&CStr> {
        let classes = self.model.classes();
        if class >= classes {
            return Err(invalid("class_index", format!("0 to {}", classes - 1), class.to_string()));
        }
        Ok(self.class_names.get(class).map_or(c"", CString::as_c_str))
    }
}

/// Reads a model file, as leanresnet trains and imports them.
///
/// path: the file's name, ending with NUL, in the bytes that the system has for it; UTF-8 on Windows.
/// model: gets a handle that the caller releases by leanresnet_model_free(); NULL after a failure.
/// error: gets the reason of a failure; may be NULL.
///
/// Returns LEANRESNET_STATUS_FAILURE if the file cannot be read, LEANRESNET_STATUS_DATA if it holds no model.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_model_load(path: *const c_char, model: *mut *mut Model, error: *mut ErrorText) -> Status {
    // SAFETY: C1.
    let boundary = unsafe { Boundary::new(error) };
    boundary.run(|| {
        // SAFETY: C1.
        let model = unsafe { Output::handle(model, "model") }?;
        // SAFETY: C2.
        let path = unsafe { file_name(path, "path") }?;
        model.set_handle(Model::new(leanresnet::Model::load(path)?));
        Ok(())
    })
}

/// Reads the content of a model file from memory.
///
/// bytes, length: the content, at any alignment. It is copied; the caller may release it at once.
/// model: gets a handle that the caller releases by leanresnet_model_free(); NULL after a failure.
/// error: gets the reason of a failure; may be NULL.
///
/// The bytes may be anything: what is no model, damaged or made to do harm is LEANRESNET_STATUS_DATA.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_model_from_memory(
    bytes: *const u8,
    length: usize,
    model: *mut *mut Model,
    error: *mut ErrorText,
) -> Status {
    // SAFETY: C1.
    let boundary = unsafe { Boundary::new(error) };
    boundary.run(|| {
        // SAFETY: C1.
        let model = unsafe { Output::handle(model, "model") }?;
        // SAFETY: C1; every byte is valid.
        let bytes = unsafe { elements(bytes, length, "bytes") }?;
        model.set_handle(Model::new(leanresnet::Model::from_bytes(bytes)?));
        Ok(())
    })
}

/// Releases a model. Sessions that were made of it go on. NULL is allowed.
///
/// Thread safety: any thread; no other call may use the model at the same time or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_model_free(model: *mut Model) {
    Boundary::status_only().run(|| {
        // SAFETY: C3 and C4.
        unsafe { release(model) };
        Ok(())
    });
}

/// The extents of the images that a model takes: channels, height and width.
///
/// Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_model_input(
    model: *const Model,
    channels: *mut usize,
    height: *mut usize,
    width: *mut usize,
) -> Status {
    Boundary::status_only().run(|| {
        // SAFETY: C3.
        let model = unsafe { handle(model, "model") }?;
        // SAFETY: C1.
        let outputs =
            unsafe { [Output::new(channels, "channels")?, Output::new(height, "height")?, Output::new(width, "width")?] };
        for (output, extent) in outputs.iter().zip(model.model.input()) {
            output.set(extent);
        }
        Ok(())
    })
}

/// The number of classes: of the logits that an image gets.
///
/// Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_model_classes(model: *const Model, classes: *mut usize) -> Status {
    Boundary::status_only().run(|| {
        // SAFETY: C3.
        let model = unsafe { handle(model, "model") }?;
        // SAFETY: C1.
        unsafe { Output::new(classes, "classes") }?.set(model.model.classes());
        Ok(())
    })
}

/// The name of a class.
///
/// class_index: from 0, below the number of classes.
/// name: gets a text in UTF-8 that ends with NUL; an empty one if the model has no names. It belongs to the model and lives as long.
///
/// Returns LEANRESNET_STATUS_USAGE if a pointer is NULL or there is no such class.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_model_class_name(
    model: *const Model,
    class_index: usize,
    name: *mut *const c_char,
) -> Status {
    Boundary::status_only().run(|| {
        // SAFETY: C3.
        let model = unsafe { handle(model, "model") }?;
        // SAFETY: C1.
        unsafe { Output::new(name, "name") }?.set(model.class_name(class_index)?.as_ptr());
        Ok(())
    })
}

/// How leanresnet_session_run_u8() makes inputs of bytes, and a caller of leanresnet_session_run_f32() should: a byte of channel c
/// becomes (byte / 255 - mean[c]) / standard_deviation[c].
///
/// mean, standard_deviation: arrays of the caller's that get one number per channel.
/// channels: their length, the model's number of channels.
/// resize: gets the length that the shorter side of a picture is scaled to before its centre is cut out; 0 where pictures are scaled
/// to the model's height and width themselves. Scaling is up to the caller.
///
/// Returns LEANRESNET_STATUS_USAGE if a pointer is NULL or the length another one, and for a model that was trained on numbers and knows
/// no map from bytes.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_model_preprocess(
    model: *const Model,
    mean: *mut f32,
    standard_deviation: *mut f32,
    channels: usize,
    resize: *mut usize,
) -> Status {
    Boundary::status_only().run(|| {
        // SAFETY: C3.
        let model = unsafe { handle(model, "model") }?;
        let preprocess = model.model.preprocess();
        if !preprocess.takes_bytes() {
            return Err(invalid("model", "one that takes bytes", "one that was trained on numbers"));
        }
        if channels != preprocess.mean.len() {
            let expected = format!("{} values, as there are channels", preprocess.mean.len());
            return Err(misshaped("mean and standard deviation", expected, format!("{channels} values")));
        }
        // SAFETY: C1.
        let mean = unsafe { Output::array(mean, channels, "mean") }?;
        // SAFETY: C1.
        let standard_deviation = unsafe { Output::array(standard_deviation, channels, "standard_deviation") }?;
        // SAFETY: C1.
        let resize = unsafe { Output::new(resize, "resize") }?;
        mean.copy_from(&preprocess.mean);
        standard_deviation.copy_from(&preprocess.std);
        resize.set(preprocess.resize.unwrap_or(0));
        Ok(())
    })
}
