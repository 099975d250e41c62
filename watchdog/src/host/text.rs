//! The two shapes in which the kernel prints numbers: `key value` lines and `key=value` words.
//! Pure and without allocation: the deciding thread runs these.

/// The number at the start of `bytes`, after blanks.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.trim_ascii_start();
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    bytes[..digits].iter().try_fold(0u64, |n, b| {
        n.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}

/// The text up to its last newline. The kernel ends every line with one: what follows was cut by the buffer, and
/// a number that is cut is another number.
pub(crate) fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&b| b == b'\n');
    &bytes[..end.unwrap_or(0)]
}

/// The text up to its last blank or newline: the same for what is all one line.
pub(crate) fn whole_words(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| matches!(b, b' ' | b'\n'));
    &bytes[..end.unwrap_or(0)]
}

/// Every `key value` line that is whole, as cgroup flat-keyed files and `/proc/vmstat` have them.
pub(crate) fn keyed_lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    whole_lines(bytes)
        .split(|&b| b == b'\n')
        .filter_map(|line| {
            let space = line.iter().position(|&b| b == b' ')?;
            let key = &line[..space];
            Some((
                key.strip_suffix(b":").unwrap_or(key),
                number(&line[space..])?,
            ))
        })
}

/// The number after `key`, which includes its `=`, in a line of words.
pub(crate) fn after(line: &[u8], key: &[u8]) -> Option<u64> {
    line.split(|&b| b == b' ')
        .find_map(|word| number(word.strip_prefix(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stop_where_digits_do_and_never_wrap() {
        assert_eq!(number(b"  42 kB"), Some(42));
        assert_eq!(number(b"max"), None);
        assert_eq!(number(b""), None);
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616"), None);
    }

    #[test]
    fn what_is_cut_counts_for_nothing() {
        assert_eq!(
            keyed_lines(b"a 1\nb 23").collect::<Vec<_>>(),
            [(&b"a"[..], 1)]
        );
        assert_eq!(keyed_lines(b"a 12").count(), 0);
        assert_eq!(whole_words(b"1 23 45\n"), b"1 23 45");
        assert_eq!(whole_words(b"1 23 4"), b"1 23");
    }

    #[test]
    fn keyed_lines_pass_over_what_is_not_one() {
        let text = b"anon 10\nbroken\nfile max\nMemTotal:  7 kB\n";
        let found: Vec<_> = keyed_lines(text).collect();
        assert_eq!(found, [(&b"anon"[..], 10), (&b"MemTotal"[..], 7)]);
    }
}
