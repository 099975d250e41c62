//! What must hold of every parser that reads what others wrote, whatever they wrote: no panic, no sum that does not
//! fit, no place outside of the text, what is cut is no reading, and what was understood is understood again when it
//! is written down.
//!
//! The fuzz targets in `tests/fuzz` make up the input; `corpus` runs what they kept with every `cargo test`. No part
//! of what memwatch offers: only there in tests and with the feature `fuzzing`. Each part of memwatch has its own
//! parsers in a `fuzzing.rs` beside them, or here where all that is needed is public.

mod control;
#[cfg(test)]
mod corpus;
mod direct;
mod pytest;
mod records;

pub(crate) use records::{of_record, of_suite};
use std::fmt::Debug;

/// A parser with what must hold of it; the name is for people.
pub(crate) type Check = (&'static str, fn(&[u8]));

/// A fuzz target: its name and its parsers.
pub(crate) type Target = (&'static str, &'static [Check]);

/// All of them. A new one also needs its program in `tests/fuzz`.
pub(crate) const TARGETS: &[Target] = &[
    ("config", crate::config::fuzzing::CHECKS),
    ("control", control::CHECKS),
    ("direct", direct::CHECKS),
    ("export", crate::export::fuzzing::CHECKS),
    ("host", crate::host::fuzzing::CHECKS),
    ("kernel", crate::bpf::fuzzing::CHECKS),
    ("pytest", pytest::CHECKS),
    ("records", records::CHECKS),
];

/// Gives `input` to the parser of the target that its first byte names: `a` or any byte of the same lower five bits
/// is the first, so that parsers may be added at the end and kept inputs stay what they were.
///
/// # Panics
/// If something does not hold.
pub fn run(target: &str, input: &[u8]) {
    let (_, checks) = TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .expect("a target of this name");
    if let Some((&selector, text)) = input.split_first() {
        let place = usize::from(selector & 0x1f).checked_sub(1);
        if let Some((_, check)) = place.and_then(|place| checks.get(place)) {
            check(text);
        }
    }
}

/// Of a text in lines, what stands behind the last newline counts for nothing.
pub(crate) fn torn_lines<T: PartialEq + Debug>(text: &[u8], parse: impl Fn(&[u8]) -> T) {
    let end = text
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    assert_eq!(parse(text), parse(&text[..end]), "a line that is cut");
}

/// The beginning of a text is no reading, or the same reading.
pub(crate) fn torn<T: PartialEq + Debug>(text: &[u8], parse: impl Fn(&[u8]) -> Option<T>) {
    let whole = parse(text);
    for part in [1, 2, 3, 5, 7] {
        let cut = text.len() * part / 8;
        let read = parse(&text[..cut]);
        assert!(
            read.is_none() || read == whole,
            "cut at {cut}: {read:?}, whole: {whole:?}"
        );
    }
    if let Some(cut) = text.len().checked_sub(1) {
        let read = parse(&text[..cut]);
        assert!(
            read.is_none() || read == whole,
            "cut at {cut}: {read:?}, whole: {whole:?}"
        );
    }
}

/// What can be shown anywhere: one line that drives no terminal.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.contains(char::is_control)
}
