//! Models: what they say of themselves, and wrong calls.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr;

use super::{CLASSES, Failure, OwnedModel, called, from_memory, loaded, made, model, text};
use crate::model::{
    Model, leanresnet_model_class_name, leanresnet_model_classes, leanresnet_model_free, leanresnet_model_from_memory,
    leanresnet_model_input, leanresnet_model_load, leanresnet_model_preprocess,
};
use crate::status::Status;

fn load(path: &Path) -> Result<OwnedModel, Failure> {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: C1: places for one handle and one text; C2.
    made(|model, error| unsafe { leanresnet_model_load(path.as_ptr(), model, error) }).map(OwnedModel)
}

fn class_name(model: *const Model, class: usize) -> Result<String, Status> {
    let mut name = ptr::null();
    // SAFETY: C1: a place for a text; C3: callers pass owned handles or NULL.
    match unsafe { leanresnet_model_class_name(model, class, &raw mut name) } {
        Status::Ok => Ok(text(name)),
        status => Err(status),
    }
}

#[test]
fn a_model_says_what_it_is() {
    let model = loaded();
    let (mut channels, mut height, mut width, mut classes, mut resize) = (0, 0, 0, 0, 0);
    let (mut mean, mut deviation) = ([0.0; 3], [0.0; 3]);
    // SAFETY: C1: places for one number each, and for three; C3: an owned handle.
    let statuses = unsafe {
        [
            leanresnet_model_input(model.0, &raw mut channels, &raw mut height, &raw mut width),
            leanresnet_model_classes(model.0, &raw mut classes),
            leanresnet_model_preprocess(model.0, mean.as_mut_ptr(), deviation.as_mut_ptr(), 3, &raw mut resize),
        ]
    };
    assert_eq!(statuses, [Status::Ok; 3]);
    assert_eq!((channels, height, width, classes, resize), (3, 8, 8, CLASSES, 12));
    assert_eq!((mean, deviation), ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]));
    assert_eq!(class_name(model.0, 0).unwrap(), "cat");
    assert_eq!(class_name(model.0, 1).unwrap(), "d\u{f6}g");
    assert_eq!(class_name(model.0, 2), Err(Status::Usage));
    assert_eq!(class_name(model.0, usize::MAX), Err(Status::Usage));
}

#[test]
fn a_model_without_names_and_resize() {
    let network = leanresnet::Network::builder().with_input([1, 8, 8]).with_classes(3).with_stage(4, 1).build().unwrap();
    let model = from_memory(&leanresnet::Model::random(&network, 1).to_bytes().unwrap()).unwrap();
    let (mut mean, mut deviation, mut resize) = ([7.0; 1], [7.0; 1], 7);
    // SAFETY: C1: places for one number each; C3: an owned handle.
    let status = unsafe { leanresnet_model_preprocess(model.0, mean.as_mut_ptr(), deviation.as_mut_ptr(), 1, &raw mut resize) };
    assert_eq!((status, mean, deviation, resize), (Status::Ok, [0.0], [1.0], 0));
    assert_eq!(class_name(model.0, 2).unwrap(), "");
    assert_eq!(class_name(model.0, 3), Err(Status::Usage));
}

#[test]
fn a_model_that_was_trained_on_numbers_has_no_map_from_bytes() {
    let rust = model().with_preprocess(leanresnet::net::Preprocess::numbers_only()).unwrap();
    let model = from_memory(&rust.to_bytes().unwrap()).unwrap();
    let (mut mean, mut deviation, mut resize) = ([7.0; 3], [7.0; 3], 7);
    // SAFETY: C1: places for three numbers and one; C3: an owned handle.
    let status = unsafe { leanresnet_model_preprocess(model.0, mean.as_mut_ptr(), deviation.as_mut_ptr(), 3, &raw mut resize) };
    assert_eq!((status, mean, resize), (Status::Usage, [7.0; 3], 7));
}

#[test]
fn a_file_is_read_or_the_reason_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m\u{f6}del.safetensors");
    model().save(&path).unwrap();
    let model = load(&path).unwrap();
    assert_eq!(class_name(model.0, 0).unwrap(), "cat");
    drop(model);

    let (status, message) = load(&folder.path().join("absent")).map(drop).unwrap_err();
    assert_eq!(status, Status::Failure);
    assert!(message.starts_with("cannot read ") && message.contains("absent"), "{message}");
    let (status, message) = load(folder.path()).map(drop).unwrap_err();
    assert_eq!(status, Status::Data);
    assert!(message.contains("a folder"), "{message}");
    let (status, message) = load(Path::new(&"n".repeat(5000))).map(drop).unwrap_err();
    assert_eq!((status, message), (Status::Failure, format!("cannot read {}...", "n".repeat(1008))));
    std::fs::write(&path, "no model").unwrap();
    assert_eq!(load(&path).map(drop).unwrap_err().0, Status::Data);
}

#[cfg(unix)]
#[test]
fn names_of_files_are_bytes() {
    use std::os::unix::ffi::OsStrExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"latin\xe9"));
    model().save(&path).unwrap();
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: C1: places for one handle and one text; C2.
    let model = made(|model, error| unsafe { leanresnet_model_load(name.as_ptr(), model, error) }).map(OwnedModel);
    assert!(model.is_ok());
}

#[test]
fn null_is_refused() {
    let bytes = model().to_bytes().unwrap();
    let null_model = |failure: Failure| assert_eq!(failure, (Status::Usage, "model; expected an address, got NULL".to_owned()));
    // SAFETY: C1 and C2: the slice's own extent, NULL, and places for one text.
    unsafe {
        null_model(called(|error| leanresnet_model_load(c"x".as_ptr(), ptr::null_mut(), error)).unwrap_err());
        null_model(
            called(|error| leanresnet_model_from_memory(bytes.as_ptr(), bytes.len(), ptr::null_mut(), error)).unwrap_err(),
        );
        let path = made(|model, error| leanresnet_model_load(ptr::null(), model, error)).unwrap_err();
        assert_eq!(path, (Status::Usage, "path; expected a text, got NULL".to_owned()));
        let content = made(|model, error| leanresnet_model_from_memory(ptr::null(), 5, model, error)).unwrap_err();
        assert_eq!(content, (Status::Usage, "bytes; expected an address, got NULL".to_owned()));
        let mut model = ptr::dangling_mut();
        assert_eq!(leanresnet_model_load(ptr::null(), &raw mut model, ptr::null_mut()), Status::Usage);
        assert!(model.is_null());
        leanresnet_model_free(ptr::null_mut());
    }
}

#[test]
fn null_is_refused_by_questions() {
    let model = loaded();
    let (mut number, mut values, mut name): (usize, [f32; 3], *const c_char) = (7, [7.0; 3], ptr::null());
    let (out, array) = (&raw mut number, values.as_mut_ptr());
    // SAFETY: C1: NULL, or places for one number, a text, or three numbers; C3: NULL, or an owned handle.
    let statuses = unsafe {
        [
            leanresnet_model_input(ptr::null(), out, out, out),
            leanresnet_model_input(model.0, ptr::null_mut(), out, out),
            leanresnet_model_input(model.0, out, ptr::null_mut(), out),
            leanresnet_model_input(model.0, out, out, ptr::null_mut()),
            leanresnet_model_classes(ptr::null(), out),
            leanresnet_model_classes(model.0, ptr::null_mut()),
            leanresnet_model_class_name(ptr::null(), 0, &raw mut name),
            leanresnet_model_class_name(model.0, 0, ptr::null_mut()),
            leanresnet_model_preprocess(ptr::null(), array, array, 3, out),
            leanresnet_model_preprocess(model.0, ptr::null_mut(), array, 3, out),
            leanresnet_model_preprocess(model.0, array, ptr::null_mut(), 3, out),
            leanresnet_model_preprocess(model.0, array, array, 3, ptr::null_mut()),
            leanresnet_model_preprocess(model.0, array, array, 0, out),
            leanresnet_model_preprocess(model.0, array, array, 2, out),
            leanresnet_model_preprocess(model.0, array, array, usize::MAX, out),
        ]
    };
    assert_eq!(statuses, [Status::Usage; 15]);
    assert_eq!((number, values, name), (7, [7.0; 3], ptr::null()), "nothing is written before all is checked");
}
