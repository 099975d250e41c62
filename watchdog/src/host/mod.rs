//! Reads the machine. Each file owns one subject, takes a root path ("/" or a fixture tree) and
//! returns facts; what they mean is decided elsewhere.
pub mod layout;
