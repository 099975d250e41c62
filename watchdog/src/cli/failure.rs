//! Says on standard error why memwatch gave up. The words are those of whoever saw it go wrong.

use crate::causes::with_causes;
use crate::incident::Text;
use std::error::Error;
use std::io::{self, Write};

/// One line: the error and its causes, each told once, since many name their cause themselves.
pub fn say(error: &(dyn Error + 'static)) {
    let words = with_causes(error) + remedy(error);
    let line = format!("memwatch: {}\n", Text::from(words));
    // With standard error closed or full nobody is left to tell.
    let _ = io::stderr().write_all(line.as_bytes());
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What helps against a cause that any step can meet.
fn remedy(error: &(dyn Error + 'static)) -> &'static str {
    let errno = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    match errno {
        Some(libc::EMFILE) => "; raise the limit on open files: ulimit -n 1024",
        Some(libc::EAGAIN) => "; raise the limit on processes: ulimit -u",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_met_is_named() {
        let error = anyhow::Error::new(io::Error::from_raw_os_error(libc::EMFILE));
        assert!(remedy(&*error.context("cannot open `x`")).contains("ulimit -n"));
        assert_eq!(remedy(&io::Error::from_raw_os_error(libc::ENOENT)), "");
    }
}
