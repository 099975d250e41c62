//! Says on standard error why memwatch gave up. The words are those of whoever saw it go wrong.

use crate::causes::with_causes;
use crate::incident::Text;
use std::error::Error;
use std::io::Write;

/// One line: the error and its causes, each told once, since many name their cause themselves.
pub fn say(error: &dyn Error) {
    let line = format!("memwatch: {}\n", Text::from(with_causes(error)));
    // With standard error closed or full nobody is left to tell.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
