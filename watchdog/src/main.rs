//! The `memwatch` binary.
fn main() {}
