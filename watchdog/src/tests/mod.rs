//! What memwatch knows about test suites, beside running one: pure functions over texts. `cli::tests` reads
//! the files and prints.

pub mod direct;
