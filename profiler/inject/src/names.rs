//! Names become numbers, each told once. They are told apart by what they say, not by where they are: a
//! module that is loaded again may have another name at the same place.

use profiler_wire::LONGEST_NAME;
use std::collections::HashMap;
use std::ffi::c_char;

/// Names that are kept apart, at most; what is beyond has the number 0. No server has as many kernels, but
/// ranges may be named by requests.
const MOST: usize = 1 << 18;

/// The names of a window.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Vec<u8>, u64>,
    /// Those that are not told yet.
    new: Vec<(u64, String)>,
}

impl Names {
    /// The number of a name; none has 0.
    pub(crate) fn number(&mut self, name: &[u8]) -> u64 {
        if name.is_empty() {
            return 0;
        }
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        if self.numbers.len() >= MOST {
            return 0;
        }
        let number = self.numbers.len() as u64 + 1;
        self.numbers.insert(name.to_vec(), number);
        self.new
            .push((number, String::from_utf8_lossy(name).into_owned()));
        number
    }

    /// Those that were not told yet; they count as told.
    pub(crate) fn take_new(&mut self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.new)
    }
}

/// The text at an address of C's, up to the length that is kept.
///
/// # Safety
/// Nothing is there, or a text that ends with a zero and lasts as long as it is used.
#[expect(unsafe_code, reason = "names are addresses")]
pub(crate) unsafe fn text_at<'a>(at: *const c_char) -> &'a [u8] {
    if at.is_null() {
        return &[];
    }
    // SAFETY: the caller answers for the text; no more of it is read than up to its zero.
    unsafe {
        let length = libc::strnlen(at, LONGEST_NAME);
        std::slice::from_raw_parts(at.cast(), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_once() {
        let mut names = Names::default();
        assert_eq!(
            ["a", "b", "a", ""].map(|name| names.number(name.as_bytes())),
            [1, 2, 1, 0]
        );
        assert_eq!(names.take_new(), [(1, "a".to_owned()), (2, "b".to_owned())]);
        assert_eq!(names.number(b"a"), 1);
        assert!(names.take_new().is_empty());
    }
}
