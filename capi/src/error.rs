//! Texts of errors in the caller's memory.
#![forbid(unsafe_code)]

use std::ffi::c_char;

/// Bytes of a message with its NUL: more than all messages need but those that quote long names.
const CAPACITY: usize = 1024;
/// What ends a message that was cut.
const ELLIPSIS: &str = "...";

/// Why a function failed. It belongs to the caller, usually on the stack, and needs no preparation and no release.
///
/// Its size is part of the ABI and never changes.
#[repr(C)]
pub struct ErrorText {
    /// One sentence in UTF-8 that ends with NUL: what is wrong, what was expected, what came. Empty after LEANRESNET_STATUS_OK. A
    /// longer one is cut and ends with "...".
    message: [c_char; 1024],
}

const _: () = assert!(size_of::<ErrorText>() == CAPACITY);

impl ErrorText {
    pub(crate) fn new(text: &str) -> Self {
        let mut message = [0; CAPACITY];
        // A NUL within would end the text early.
        let text = text.replace('\0', "\u{fffd}");
        let (kept, ending) = if text.len() < CAPACITY {
            (&*text, "")
        } else {
            let most = CAPACITY - 1 - ELLIPSIS.len();
            let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            (&text[..end], ELLIPSIS)
        };
        for (place, byte) in message.iter_mut().zip(kept.bytes().chain(ending.bytes())) {
            *place = byte as c_char;
        }
        Self { message }
    }
}

#[cfg(test)]
impl ErrorText {
    /// The message.
    pub(crate) fn text(&self) -> String {
        let bytes = self.message.iter().map(|&character| character as u8).take_while(|&byte| byte != 0);
        String::from_utf8(bytes.collect()).expect("messages are UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(ErrorText::new("").text(), "");
        assert_eq!(ErrorText::new(&"x".repeat(1023)).text(), "x".repeat(1023));
        assert_eq!(ErrorText::new(&"x".repeat(1024)).text(), format!("{}...", "x".repeat(1020)));
        // 1019 bytes before the cut at 1020: a character of two bytes does not fit whole.
        let text = format!("{}{}", "x".repeat(1019), "\u{e9}".repeat(10));
        assert_eq!(ErrorText::new(&text).text(), format!("{}...", "x".repeat(1019)));
    }

    #[test]
    fn a_nul_does_not_end_a_text() {
        assert_eq!(ErrorText::new("a\0b").text(), "a\u{fffd}b");
    }
}
