//! One record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg): `prefix,number,µs,flags[,more];text`, and lines
//! of `key=value` behind it. Pure. Whoever is root can write records too; which are the kernel's own is told apart.

use std::time::Duration;

/// A record, without the lines behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 0 (emergency) to 7 (debug), as syslog(2) counts.
    pub severity: u8,
    /// Whether the kernel wrote it, and not a program.
    pub is_kernels: bool,
    /// Counts records, so that a gap tells of lost ones.
    pub number: u64,
    /// When it was written, on the clock of the log.
    pub at: Duration,
    /// The task or CPU that wrote it, where the kernel says so (CONFIG_PRINTK_CALLER).
    pub caller: Option<Vec<u8>>,
    /// The text's own bytes; may hold newlines.
    pub text: Vec<u8>,
}

/// Reads a record as one read(2) gives it. `None` if it is none.
pub fn parse(bytes: &[u8]) -> Option<Record> {
    let end = bytes.iter().position(|&b| b == b';')?;
    let mut fields = bytes[..end].split(|&b| b == b',');
    let prefix = number(fields.next()?)?;
    let sequence = number(fields.next()?)?;
    let us = number(fields.next()?)?;
    let _flags = fields.next()?;
    let caller = fields.find_map(|field| field.strip_prefix(b"caller="));
    let text = bytes[end + 1..].split(|&b| b == b'\n').next()?;
    Some(Record {
        severity: (prefix & 7) as u8,
        is_kernels: prefix >> 3 == 0,
        number: sequence,
        at: Duration::from_micros(us),
        caller: caller.map(<[u8]>::to_vec),
        text: unescape(text),
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The way back from the kernel's `\xNN`. A backslash is always written so, so one that stands alone stays.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| after.strip_prefix(b"x")?.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        raw.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() {
            &after[3..]
        } else {
            after
        };
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_with_everything() {
        let record = parse(
            b"6,24609,11472946132,-,caller=T611;usb 1-1: a\\x0ab \\x5c \\xff\n SUBSYSTEM=usb\n DEVICE=+usb:1-1\n",
        );
        let expected = Record {
            severity: 6,
            is_kernels: true,
            number: 24_609,
            at: Duration::from_micros(11_472_946_132),
            caller: Some(b"T611".to_vec()),
            text: b"usb 1-1: a\nb \\ \xff".to_vec(),
        };
        assert_eq!(record, Some(expected));
    }

    #[test]
    fn what_a_program_wrote_is_not_the_kernels() {
        let record = parse(b"12,5,7,-;tail invoked oom-killer: no\n").expect("a record");
        assert_eq!((record.severity, record.is_kernels), (4, false));
    }

    #[test]
    fn semicolons_and_commas_of_the_text_are_its_own() {
        let record = parse(b"3,5,7,-;a;b,c\n").expect("a record");
        assert_eq!(record.text, b"a;b,c");
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bytes in [
            &b""[..],
            b";",
            b"6,1,2;no flags",
            b"x,1,2,-;t",
            b"6,-1,2,-;t",
            b"6,1,99999999999999999999999,-;t",
            b"no semicolon",
        ] {
            assert_eq!(parse(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn half_an_escape_stays_as_it_is() {
        let record = parse(b"6,1,2,-;a\\x4\\xzz\\x+1\\").expect("a record");
        assert_eq!(record.text, b"a\\x4\\xzz\\x+1\\");
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&junk);
        }

        #[test]
        fn every_text_comes_back(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = b"6,1,2,-;".to_vec();
            for &byte in &text {
                if (32..127).contains(&byte) && byte != b'\\' {
                    bytes.push(byte);
                } else {
                    bytes.extend(format!("\\x{byte:02x}").bytes());
                }
            }
            bytes.push(b'\n');
            prop_assert_eq!(parse(&bytes).map(|record| record.text), Some(text));
        }
    }
}
