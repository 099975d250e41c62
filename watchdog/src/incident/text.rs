//! Names and sentences that can be shown anywhere. A process chooses its own name, so a name may
//! hold newlines, terminal escapes or bytes that are no text at all; what leaves this file is one
//! line of printable characters. `record` carries these types, the terminal prints them as they are.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of a task's name in the kernel, with its NUL (`TASK_COMM_LEN`).
const COMM_BYTES: usize = 16;

/// A task's name as the kernel keeps it: bytes, without the NUL. Shown and serialised escaped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Comm {
    bytes: [u8; COMM_BYTES],
    len: u8,
}

impl Comm {
    /// Takes a name as `/proc/PID/stat`, a tracepoint or `bpf_get_current_comm` gives it: up to the
    /// first NUL, at most 16 bytes.
    #[must_use]
    pub fn new(raw: &[u8]) -> Self {
        let name = raw.split(|&byte| byte == 0).next().unwrap_or_default();
        let len = name.len().min(COMM_BYTES);
        let mut bytes = [0; COMM_BYTES];
        bytes[..len].copy_from_slice(&name[..len]);
        Self {
            bytes,
            len: len as u8,
        }
    }

    /// The name's own bytes, fit for comparing and for nothing else.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(self.as_bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Comm({self})")
    }
}

impl Serialize for Comm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Comm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&unescape(&String::deserialize(deserializer)?)))
    }
}

/// One line of printable text. However it was made, and also when it was read from a file, it holds
/// no control character and nothing that reorders or hides what stands around it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Shows a name that somebody else chose (a path, a program): invalid UTF-8 and control
    /// characters become `\xff`, `\n`, `\x1b`, a backslash becomes `\\`, so that no two names look
    /// alike.
    #[must_use]
    pub fn of_name(raw: &[u8]) -> Self {
        Self(escape(raw))
    }

    /// The name that [`Self::of_name`] has shown, for those who know it by its own bytes.
    #[must_use]
    pub fn to_name(&self) -> Vec<u8> {
        unescape(&self.0)
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A sentence of our own, in which names may already stand escaped: backslashes stay as they are.
impl From<&str> for Text {
    fn from(sentence: &str) -> Self {
        let mut shown = String::with_capacity(sentence.len());
        sentence.chars().for_each(|c| push_visible(&mut shown, c));
        Self(shown)
    }
}

impl From<String> for Text {
    fn from(sentence: String) -> Self {
        Self::from(sentence.as_str())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({})", self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

fn escape(raw: &[u8]) -> String {
    let mut shown = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                other => push_visible(&mut shown, other),
            }
        }
        for &byte in chunk.invalid() {
            push_hex(&mut shown, byte);
        }
    }
    shown
}

fn push_visible(shown: &mut String, c: char) {
    match c {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        c if c.is_ascii_control() => push_hex(shown, c as u8),
        c if c.is_control() || is_invisible(c) => shown.extend(c.escape_unicode()),
        c => shown.push(c),
    }
}

fn push_hex(shown: &mut String, byte: u8) {
    write!(shown, "\\x{byte:02x}").expect("a String takes all that is written to it");
}

/// Characters that turn, join or hide their neighbours: with a right-to-left override a name can
/// make the rest of its line read as something else.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// The way back from [`escape`]. What is no escape of ours is taken literally.
fn unescape(shown: &str) -> Vec<u8> {
    let mut raw = Vec::with_capacity(shown.len());
    let mut rest = shown;
    while let Some(at) = rest.find('\\') {
        raw.extend_from_slice(&rest.as_bytes()[..at]);
        let (taken, width) = unescape_one(&rest[at..]);
        raw.extend_from_slice(&taken);
        rest = &rest[at + width..];
    }
    raw.extend_from_slice(rest.as_bytes());
    raw
}

/// Reads the one escape that `shown` starts with: its bytes, and how much of `shown` it took.
fn unescape_one(shown: &str) -> (Vec<u8>, usize) {
    let after = &shown[1..];
    let simple = |byte| (vec![byte], 2);
    match after.bytes().next() {
        Some(b'n') => return simple(b'\n'),
        Some(b'r') => return simple(b'\r'),
        Some(b't') => return simple(b'\t'),
        Some(b'\\') => return simple(b'\\'),
        Some(b'x') => {
            if let Some(Ok(byte)) = after.get(1..3).map(|hex| u8::from_str_radix(hex, 16)) {
                return (vec![byte], 4);
            }
        }
        Some(b'u') => {
            let hex = after
                .strip_prefix("u{")
                .and_then(|tail| tail.split_once('}'));
            let code = hex.and_then(|(hex, _)| u32::from_str_radix(hex, 16).ok().map(|n| (n, hex)));
            if let Some((c, hex)) = code.and_then(|(n, hex)| Some((char::from_u32(n)?, hex))) {
                return (c.to_string().into_bytes(), hex.len() + 4);
            }
        }
        _ => {}
    }
    (vec![b'\\'], 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_names_are_shown_and_not_obeyed() {
        for (raw, shown) in [
            (&b"a\nb"[..], "a\\nb"),
            (b"\x1b[31mred", "\\x1b[31mred"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b") S 1 (", ") S 1 ("),
            (b"back\\n", "back\\\\n"),
            ("\u{202e}gnp.exe".as_bytes(), "\\u{202e}gnp.exe"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("größe".as_bytes(), "größe"),
        ] {
            assert_eq!(Comm::new(raw).to_string(), shown);
            assert_eq!(Text::of_name(raw).as_str(), shown);
        }
    }

    #[test]
    fn a_comm_ends_at_its_nul_and_at_sixteen_bytes() {
        assert_eq!(Comm::new(b"python3\0garbage\0").as_bytes(), b"python3");
        assert_eq!(Comm::new(&[b'a'; 40]).as_bytes(), &[b'a'; 16]);
        assert_eq!(Comm::new(b"").to_string(), "");
    }

    #[test]
    fn a_text_that_was_read_holds_no_controls_either() {
        let text: Text = serde_json::from_str(r#""note\u001b[2J: \\x1b stays""#).unwrap();
        assert_eq!(text.as_str(), "note\\x1b[2J: \\x1b stays");
    }

    #[test]
    fn what_is_no_escape_is_taken_literally() {
        assert_eq!(
            unescape("\\q \\x4 \\xzz \\u{} \\u{110000} \\"),
            b"\\q \\x4 \\xzz \\u{} \\u{110000} \\"
        );
    }

    proptest! {
        #[test]
        fn a_comm_survives_json(raw in prop::collection::vec(1u8.., 0..=16)) {
            let json = serde_json::to_string(&Comm::new(&raw)).unwrap();
            let back: Comm = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.as_bytes(), &raw[..]);
        }

        #[test]
        fn a_name_that_is_shown_can_be_found_again(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Text::of_name(&raw).to_name(), raw);
        }

        #[test]
        fn no_name_smuggles_a_control(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!Text::of_name(&raw).as_str().chars().any(|c| c.is_control() || is_invisible(c)));
        }

        #[test]
        fn reading_junk_never_panics(junk in "\\PC*") {
            prop_assert!(unescape(&junk).len() <= junk.len());
        }
    }
}
