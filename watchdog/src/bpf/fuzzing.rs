//! What must hold of the parsers of what the kernel tells of itself and through the ring. See [`crate::fuzzing`].

use super::btf::Btf;
use super::facts::KernelTypes;
use super::{Event, Terms};
use crate::fuzzing::{Check, torn};

pub(crate) const CHECKS: &[Check] = &[
    ("BTF", btf),
    ("BTF behind a right head", btf_body),
    ("a record of the ring", event),
    ("what a dead memwatch left as terms", terms),
];

fn btf(bytes: &[u8]) {
    let Some(read) = Btf::parse(bytes) else {
        return;
    };
    let types = KernelTypes::of(&read);
    let most = bytes.len() as u32 / 12;
    for number in types.kfuncs.0.into_iter().flatten() {
        assert!((1..=most).contains(&number), "a function that is not there");
    }
    // Of the running kernel's own size, and what is looked for in every struct of it.
    for name in ["task_struct", "a", ""] {
        let _ = read.member_offset(name, "b");
        let _ = read.tracepoint_argument_is_pointer(name, 1);
    }
}

/// Two bytes say how much is types; the rest is strings.
fn btf_body(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk() else {
        return;
    };
    let types = usize::from(u16::from_le_bytes(*length)).min(body.len()) as u32;
    let strings = body.len() as u32 - types;
    let mut whole = 0xeb9f_u16.to_ne_bytes().to_vec();
    whole.extend([1, 0]);
    for word in [24, 0, types, types, strings] {
        whole.extend(word.to_ne_bytes());
    }
    whole.extend(body);
    btf(&whole);
    whole.pop();
    assert!(Btf::parse(&whole).is_none(), "the end is missing");
}

fn event(bytes: &[u8]) {
    torn(bytes, Event::decode);
    // What a later build adds behind a record changes nothing.
    if let Some(event) = Event::decode(bytes) {
        assert_eq!(Event::decode(&[bytes, &[0; 8]].concat()), Some(event));
    }
}

fn terms(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(terms) = text.parse::<Terms>() {
        let again = terms.to_string().parse::<Terms>();
        assert_eq!(again.ok(), Some(terms), "{text:?}");
    }
}
