//! Says on standard error why memwatch gave up. The words are those of whoever saw it go wrong.

use crate::incident::Text;
use std::error::Error;
use std::io::Write;

/// One line: the error and its causes, each told once, since many name their cause themselves.
pub fn say(error: &dyn Error) {
    let line = format!("memwatch: {}\n", Text::from(with_causes(error)));
    // With standard error closed or full nobody is left to tell.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        at = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_once() {
        let cause = std::io::Error::from_raw_os_error(libc::ENOENT);
        let told = anyhow::Error::new(cause).context("cannot read `x`");
        assert_eq!(
            with_causes(&*told),
            "cannot read `x`: No such file or directory (os error 2)"
        );
        let again =
            told.context("cannot read `x`: No such file or directory (os error 2); make it");
        assert_eq!(with_causes(&*again), again.to_string());
    }
}
