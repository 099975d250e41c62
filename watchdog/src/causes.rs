//! An error with its causes on one line: what was being done comes first, the errno last.

use std::error::Error;

/// The message of `error` and of each of its causes that the messages before do not hold already.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read a file")]
    struct Silent {
        source: io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read a file: {source}")]
    struct Told {
        source: io::Error,
    }

    #[test]
    fn every_cause_is_told_once() {
        let source = || io::Error::from_raw_os_error(libc::EACCES);
        let expected = "cannot read a file: Permission denied (os error 13)";
        assert_eq!(with_causes(&Silent { source: source() }), expected);
        assert_eq!(with_causes(&Told { source: source() }), expected);
    }
}
